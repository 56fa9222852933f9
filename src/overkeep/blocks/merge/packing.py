# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed clusters that are moved as they are, sector by sector, to clusters of the carrier that they share."""

from __future__ import annotations

import numpy as np

from overkeep.blocks.merge.transfer import Transfer
from overkeep.blocks.qcow2.packed import PackedEntries
from overkeep.blocks.qcow2.runs import Signed, Unsigned
from overkeep.blocks.qcow2.space import Space


class Packing:
    """Lays compressed clusters side by side in an area of clusters, which need not lie in a row in the file.

    A compressed cluster that continues in the next cluster of the area does so in the file as well. `file_sizes` are
    those of the images that they come from.
    """

    def __init__(self, space: Space, cluster: int, file_sizes: Signed) -> None:
        self._space = space
        self._file_sizes = file_sizes
        self._cluster = cluster
        self._packed = PackedEntries(cluster)
        self._places: list[int] = []  # where in the file each cluster of the area lies
        self._next = 0
        self._parts: list[tuple[Signed, Signed, Signed, Signed]] = []

    @property
    def size(self) -> int:
        """Bytes of the area."""
        return self._cluster * len(self._places)

    def add(self, files: Signed, entries: Unsigned) -> Unsigned:
        """Take up the compressed clusters that these L2 entries of these images name; return their new entries."""
        if not len(entries):
            return entries
        begins, lengths = self._packed.begins(entries), self._packed.lengths(entries)
        at = np.fromiter((self._position(length) for length in lengths.tolist()), np.int64, len(lengths))
        there = np.minimum(lengths, self._file_sizes[files] - begins)  # of the last sector of a file, what there is
        self._parts.append((at, there, files, begins))
        places = np.asarray(self._places, np.int64)[at // self._cluster] + at % self._cluster
        return self._packed.moved(entries, places)

    def add_to(self, transfer: Transfer) -> None:
        """Let everything be moved by `transfer`; nothing is added after this."""
        start = transfer.size
        for at, lengths, files, offsets in self._parts:
            transfer.reads.add(start + at, lengths, files, offsets)
        places = np.asarray(self._places, np.int64)
        at = start + self._cluster * np.arange(len(places), dtype=np.int64)
        transfer.writes.add(at, np.full_like(at, self._cluster), np.zeros_like(at), places)
        transfer.size += self.size

    def _position(self, length: int) -> int:
        while self._next + length > self.size:
            self._grow(-(-length // self._cluster))
        position = self._next
        self._next += length
        return position

    def _grow(self, clusters: int) -> None:
        first = self._space.take_run(clusters) * self._cluster
        if not self._places or first != self._places[-1] + self._cluster:
            self._next = self.size
        self._places += range(first, first + clusters * self._cluster, self._cluster)
