# SPDX-License-Identifier: GPL-3.0-or-later
"""The intent of a merge, which is durable before anything changes, and how far the merge is (`merge.json`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from overkeep.blocks.merge.plan import Run

METHOD = 1
"""How places in the carrier are given out; raised whenever the same images would give other places."""


class Phase(StrEnum):
    """What is being done. The headers of the images say whether the carrier was switched and renamed."""

    DIGESTS = "digests"
    COPYING = "copying"
    SWITCHING = "switching"


@dataclass(frozen=True, kw_only=True)
class Intent:
    """A merge that has begun.

    `carrier` is the image that is extended, None when a new file is written; `carrier_size` the size of its file
    before; `to_move` the bytes that are moved in all. The first `done` stretches of the disk need not be copied again
    by a program of the same `method`. `l1_offset` is where the carrier's new L1 table lies, in phase `SWITCHING`.
    """

    run: Run
    carrier: str | None
    carrier_size: int
    to_move: int
    phase: Phase = Phase.DIGESTS
    done: int = 0
    l1_offset: int = 0
    method: int = METHOD


class Journal(Protocol):
    """Where the intent of a folder is kept.

    Raises `WriterReplaced` from `save` and `check` when somebody else has taken the merge over.
    """

    def load(self) -> Intent | None:
        """The intent that is there; whoever loads it is its owner from now on."""

    def begin(self, intent: Intent) -> None:
        """Keep the intent of a new merge; raise `WriterReplaced` when there is one already."""

    def save(self, intent: Intent) -> None:
        """Keep how far the merge is."""

    def check(self) -> None:
        """Raise unless the merge is still the caller's."""

    def clear(self) -> None:
        """Remove the intent: the merge is finished."""
