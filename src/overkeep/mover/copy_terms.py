# SPDX-License-Identifier: GPL-3.0-or-later
"""What a copy of a disk is told: where the image is, how it is made, and who watches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from overkeep.blocks.copy import CHUNK, WORKERS
from overkeep.blocks.qcow2.form import PLAIN, Form
from overkeep.blocks.sockets import Sockets
from overkeep.mover.orders import Progress
from overkeep.units import MIB

_EVEN = 2 * MIB  # the largest cluster there is


@dataclass(frozen=True, kw_only=True)
class Place:
    """An image: its folder, its bare name, and the bare name of its backing image.

    One that is `new` replaces none that somebody else makes meanwhile.
    """

    folder: Path
    name: str
    backing: str | None = None
    new: bool = False


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a copy is made.

    `bandwidth` is in bytes a second, 0 for no limit; `read_back` is the share (0 to 1) of the image that is read from
    the target again when it is finished, and compared with the digests.
    """

    form: Form = field(default=PLAIN)
    bandwidth: int = 0
    read_back: float = 0.0
    workers: int = WORKERS

    @property
    def chunk(self) -> int:
        """Bytes that a worker moves at once: less when there is a limit, so that the speed is even."""
        return _EVEN if self.bandwidth else CHUNK


class Watch(Protocol):
    """Who watches a copy: hears how far it is, and may stop it."""

    @property
    def stopped(self) -> bool:
        """Whether the copy must stop."""

    def check(self) -> None:
        """Raise the reason to stop, if there is one."""

    def progress(self, progress: Progress) -> None:
        """Hear how far the copy is."""

    def on_stop(self, hook: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `hook` when the copy must stop during the body."""


@contextmanager
def interruptible(watch: Watch) -> Iterator[Sockets]:
    """Sockets for all ends of a copy: they break when it must stop, so that it never waits for a server that hangs."""
    sockets = Sockets()
    with watch.on_stop(sockets.interrupt):
        yield sockets
