# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that can be told to stop, once and for one reason, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from overkeep.errors import OverkeepError


class Stoppable:
    """What the work looks at, and what those call who stop it. Safe to use from several threads."""

    def __init__(self) -> None:
        self._stopping = threading.Lock()
        self._reason: OverkeepError | None = None
        self._hooks: list[Callable[[], None]] = []

    @property
    def reason(self) -> OverkeepError | None:
        """Why the work must stop, None while it may go on."""
        return self._reason

    @property
    def stopped(self) -> bool:
        """Whether the work must stop."""
        return self._reason is not None

    def stop(self, reason: OverkeepError) -> None:
        """Ask the work to stop; the first reason counts."""
        with self._stopping:
            if self._reason is not None:
                return
            self._reason = reason
            hooks = list(self._hooks)
        for hook in hooks:
            hook()

    def check(self) -> None:
        """Raise the reason to stop, if there is one."""
        if self._reason is not None:
            raise self._reason

    @contextmanager
    def on_stop(self, hook: Callable[[], None]) -> Iterator[None]:
        """Call `hook` from the stopping thread while the body runs, to end a wait that cannot look at `stopped`."""
        with self._stopping:
            self._hooks.append(hook)
        try:
            self.check()
            yield
        finally:
            with self._stopping:
                self._hooks.remove(hook)
