# SPDX-License-Identifier: GPL-3.0-or-later
"""A sink that keeps nothing but where a disk differs from what it should hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digests import Row, check_range, row, zero_row
from overkeep.blocks.ends import UNLIMITED, Extent
from overkeep.blocks.expected import Expected
from overkeep.blocks.flags import runs
from overkeep.blocks.stages import Stages

_SAME, _DATA, _ZEROES = range(3)  # what a cluster that differs should hold; those that do not are 0, which is false


class Differences:
    """Takes a copy of a disk of `size` bytes and remembers the clusters whose digests are not the expected ones.

    One byte of memory for a cluster of the disk, but none for the long stretches of a large one that are the same. Safe
    for several threads; `clone` is the same object.
    """

    parallel = UNLIMITED

    def __init__(self, expected: Expected, *, size: int, stages: Stages | None = None) -> None:
        self.size = size
        self._expected = expected
        self._stages = stages or Stages()
        self._kinds = np.zeros(-(-size // CLUSTER), np.uint8)  # the system gives a page of it with the first write
        self._lock = threading.Lock()

    @property
    def clusters(self) -> int:
        """How many clusters differ."""
        return int(np.count_nonzero(self._kinds))

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the clusters that differ, in order."""
        for start, end in runs(self._kinds):
            yield from range(start, end)

    def extents(self) -> Iterator[Extent]:
        """Yield what differs, what should hold data first; `zero` is what should be zeroes."""
        for kind in (_DATA, _ZEROES):
            for start, end in runs(self._kinds, equal=kind):
                yield Extent(start * CLUSTER, min(end * CLUSTER, self.size) - start * CLUSTER, kind == _ZEROES)

    def write(self, offset: int, data: memoryview) -> None:
        """Compare `data` with what is expected at `offset`."""
        first, _ = check_range(offset, len(data), self.size)
        with self._stages.spent("digest"):
            self._note(first, row(self._expected.hashing.of(data)))

    def zero(self, offset: int, length: int) -> None:
        """Compare zeroes with what is expected."""
        first, count = check_range(offset, length, self.size)
        self._note(first, zero_row(count))

    def _note(self, first: int, found: Row) -> None:
        expected = self._expected.range(first, len(found))
        differ = (expected != found).any(axis=1)
        with self._lock:
            kinds = self._kinds[first : first + len(found)]
            if not differ.any() and not kinds.any():
                return
            zero = (expected == zero_row(len(found))).all(axis=1)
            kinds[:] = np.where(differ, np.where(zero, _ZEROES, _DATA), _SAME)

    def clone(self) -> Differences:
        """Return this sink: it is safe for several threads."""
        return self

    def finish(self) -> None:
        """Nothing is to be made durable."""

    def close(self) -> None:
        """Nothing is held."""
