# SPDX-License-Identifier: GPL-3.0-or-later
"""How often each cluster of a file is used: counted from its tables, and packed as refcount blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from overkeep.blocks.qcow2.layout import COMPRESSED, OFFSET_MASK
from overkeep.blocks.qcow2.packed import PackedEntries
from overkeep.blocks.qcow2.runs import Signed, Unsigned

_MOST = 1 << 31
"""Clusters of the largest file that is counted: 128 TiB."""


def touched_by(starts: Signed, ends: Signed, size: int) -> Iterator[Signed]:
    """Yield the numbers of the clusters of `size` bytes that pieces of a file lie in, at most one of each at a time."""
    first, last = starts // size, (ends - 1) // size
    while len(first):
        yield first
        more = first < last
        first, last = first[more] + 1, last[more]


class Outside(ValueError):
    """A cluster lies behind the end of its file."""


class Refcounts:
    """Counts by number of the cluster in a file of `clusters` of `size` bytes, 2 bytes each.

    The file may grow to `most` clusters while one counts.
    """

    def __init__(self, clusters: int, *, size: int, most: int = _MOST) -> None:
        self.counts = np.zeros(clusters, np.uint16)
        self._size = size
        self._most = most
        self._packed = PackedEntries(size)

    def add(self, numbers: Signed | range) -> None:
        """Count one use of each of these clusters; a number may be there several times. Raises `Outside`."""
        found = np.asarray(numbers, np.int64)
        if not len(found):
            return
        if int(found.max()) >= self._most:
            raise Outside
        missing = int(found.max()) + 1 - len(self.counts)
        if missing > 0:
            room = np.zeros(max(missing, len(self.counts) // 8), np.uint16)
            self.counts = np.concatenate([self.counts, room])
        np.add.at(self.counts, found, 1)

    def add_places(self, entries: Unsigned) -> Signed:
        """Count the clusters that entries of tables point to; return their numbers."""
        places = entries & np.uint64(OFFSET_MASK)
        numbers: Signed = (places[places != 0] // np.uint64(self._size)).astype(np.int64)
        self.add(numbers)
        return numbers

    def add_table(self, entries: Unsigned) -> Signed:
        """Count what the entries of an L2 table use; return the clusters that must not be used by anything else."""
        small = entries & np.uint64(COMPRESSED) != 0
        self._add_packed(entries[small])
        return self.add_places(entries[~small])

    def _add_packed(self, entries: Unsigned) -> None:
        begins = self._packed.begins(entries)
        for numbers in touched_by(begins, begins + self._packed.lengths(entries), self._size):
            self.add(numbers)

    @property
    def per_block(self) -> int:
        """Refcounts of 16 bits in a block."""
        return self._size // 2

    def block(self, index: int) -> bytes:
        """The refcount block of clusters from `index * per_block` on."""
        part = self.counts[index * self.per_block : (index + 1) * self.per_block].astype(">u2")
        return bytes(part.tobytes().ljust(self._size, b"\0"))
