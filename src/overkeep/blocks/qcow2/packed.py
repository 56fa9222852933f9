# SPDX-License-Identifier: GPL-3.0-or-later
"""L2 entries of compressed clusters: where in the file the data begin, and in how many sectors they lie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from overkeep.blocks.qcow2.layout import COMPRESSED, SECTOR
from overkeep.blocks.qcow2.runs import Signed, Unsigned


class PackedEntries:
    """What such entries say in an image with clusters of `cluster` bytes, many at once."""

    def __init__(self, cluster: int) -> None:
        shift = _shift(cluster)
        self._shift = np.uint64(shift)
        self._offset = np.uint64((1 << shift) - 1)
        self._sectors = np.uint64((1 << (62 - shift)) - 1)

    def offsets(self, entries: Unsigned) -> Unsigned:
        """Offsets at which the data begin."""
        return entries & self._offset

    def greatest(self, entries: Unsigned) -> Unsigned:
        """Greatest lengths of the data: up to the end of the last sector in which they lie."""
        return self.lengths(entries).astype(np.uint64) - self.offsets(entries) % np.uint64(SECTOR)

    def begins(self, entries: Unsigned) -> Signed:
        """Offsets of the sectors in which the data begin."""
        return self.offsets(entries).astype(np.int64) // SECTOR * SECTOR

    def lengths(self, entries: Unsigned) -> Signed:
        """Bytes of all the sectors in which the data lie, in the first and the last of them perhaps only a part."""
        return ((entries >> self._shift & self._sectors).astype(np.int64) + 1) * SECTOR

    def moved(self, entries: Unsigned, begins: Signed) -> Unsigned:
        """The entries once their sectors have been moved to those offsets, which are multiples of 512."""
        places = begins.astype(np.uint64) + self.offsets(entries) % np.uint64(SECTOR)
        return entries & (self._sectors << self._shift | np.uint64(COMPRESSED)) | places


def packed_entry(offset: int, length: int, cluster: int) -> int:
    """Make the L2 entry of a compressed cluster: where it begins, and how many sectors it touches besides the first."""
    shift = _shift(cluster)
    sectors = (offset + length - 1) // SECTOR - offset // SECTOR
    return COMPRESSED | sectors << shift | offset


def touched(entry: int, cluster: int) -> Iterator[int]:
    """Yield the numbers of the clusters of the file in which the compressed cluster of `entry` lies."""
    shift = _shift(cluster)
    offset = entry & ((1 << shift) - 1)
    sectors = ((entry & ~COMPRESSED) >> shift & ((1 << (62 - shift)) - 1)) + 1
    end = (offset // SECTOR + sectors) * SECTOR
    yield from range(offset // cluster, -(-end // cluster))


def _shift(cluster: int) -> int:
    """Bits of the offset; those above it tell the sectors besides the first."""
    return 62 - (cluster.bit_length() - 1 - 8)
