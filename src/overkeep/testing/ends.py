# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends of a copy that fail on demand: on the n-th request, whoever makes it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from overkeep.blocks.ends import Piece, Source
from overkeep.blocks.errors import DiskLost
from overkeep.blocks.wrappers import Wrapped


class Count:
    """Numbers requests from 1 on. Safe for several threads."""

    def __init__(self) -> None:
        self.made = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        """Number of this request."""
        with self._lock:
            self.made += 1
            return self.made


class FaultySource(Wrapped):
    """Loses the connection in the reads whose numbers are in `fails`; clones count on."""

    def __init__(self, source: Source, *, fails: Collection[int], reads: Count | None = None) -> None:
        super().__init__(source)
        self.fails = fails
        self.reads = reads or Count()

    def read_each(self, pieces: Sequence[Piece]) -> None:
        """Fill all `pieces`, or raise `DiskLost`."""
        number = self.reads.next()
        if number in self.fails:
            raise DiskLost(verb="read", url="faulty", reason=f"request {number} was to fail")
        super().read_each(pieces)

    def clone(self) -> FaultySource:
        """Clone the source; the count is shared."""
        return FaultySource(self._source.clone(), fails=self.fails, reads=self.reads)
