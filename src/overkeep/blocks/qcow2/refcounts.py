# SPDX-License-Identifier: GPL-3.0-or-later
"""How often each cluster of a file is used: counted from its tables, and packed as refcount blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.qcow2 import packed
from overkeep.blocks.qcow2.held import Values
from overkeep.blocks.qcow2.layout import COMPRESSED, OFFSET_MASK

PER_BLOCK = CLUSTER // 2
"""Refcounts of 16 bits in a block."""

Numbers = NDArray[np.int64]


_MOST = 1 << 31
"""Clusters of the largest file that is counted: 128 TiB."""


class Outside(ValueError):
    """A cluster lies behind the end of its file."""


class Refcounts:
    """Counts by number of the cluster in the file, 2 bytes each; the file may grow to `most` clusters meanwhile."""

    def __init__(self, clusters: int, *, most: int = _MOST) -> None:
        self.counts = np.zeros(clusters, np.uint16)
        self._most = most

    def add(self, numbers: Numbers | list[int]) -> None:
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

    def add_table(self, entries: Values) -> Numbers:
        """Count what the entries of an L2 table use; return the clusters that must not be used by anything else."""
        small = entries & np.uint64(COMPRESSED) != 0
        self._add_packed(entries[small])
        places = entries[~small] & np.uint64(OFFSET_MASK)
        numbers: Numbers = (places[places != 0] // np.uint64(CLUSTER)).astype(np.int64)
        self.add(numbers)
        return numbers

    def _add_packed(self, entries: Values) -> None:
        first = packed.begins(entries) // CLUSTER
        last = (packed.ends(entries) - 1) // CLUSTER
        while len(first):
            self.add(first)
            first, last = first[first < last] + 1, last[first < last]

    def block(self, index: int) -> bytes:
        """The refcount block of clusters from `index * PER_BLOCK` on."""
        part = self.counts[index * PER_BLOCK : (index + 1) * PER_BLOCK].astype(">u2")
        return bytes(part.tobytes().ljust(CLUSTER, b"\0"))
