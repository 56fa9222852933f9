# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed clusters that are moved as they are, sector by sector, to clusters of the carrier that they share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.merge.transfer import Transfer
from overkeep.blocks.qcow2 import packed
from overkeep.blocks.qcow2.held import Values
from overkeep.blocks.qcow2.space import Space

Numbers = NDArray[np.int64]


class Packing:
    """Lays compressed clusters side by side in an area of clusters, which need not lie in a row in the file.

    A compressed cluster that continues in the next cluster of the area does so in the file as well.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._places: list[int] = []  # where in the file each cluster of the area lies
        self._next = 0
        self._parts: list[tuple[Numbers, Numbers, Numbers, Numbers]] = []

    @property
    def size(self) -> int:
        """Bytes of the area."""
        return CLUSTER * len(self._places)

    def add(self, files: NDArray[np.int16], entries: Values) -> Values:
        """Take up the compressed clusters that these L2 entries of these images name; return their new entries."""
        begins = packed.begins(entries)
        lengths = packed.ends(entries) - begins
        at = np.fromiter((self._position(length) for length in lengths.tolist()), np.int64, len(lengths))
        if len(at):
            self._parts.append((at, lengths, files.astype(np.int64), begins))
        places = np.asarray(self._places, np.int64)[at // CLUSTER] + at % CLUSTER if len(at) else at
        return packed.moved(entries, places)

    def add_to(self, transfer: Transfer) -> None:
        """Let everything be moved by `transfer`; nothing is added after this."""
        start = transfer.size
        for at, lengths, files, offsets in self._parts:
            transfer.reads.add(start + at, lengths, files, offsets)
        places = np.asarray(self._places, np.int64)
        at = start + CLUSTER * np.arange(len(places), dtype=np.int64)
        transfer.writes.add(at, np.full_like(at, CLUSTER), np.zeros_like(at), places)
        transfer.size += self.size

    def _position(self, length: int) -> int:
        while self._next + length > self.size:
            self._grow(-(-length // CLUSTER))
        position = self._next
        self._next += length
        return position

    def _grow(self, clusters: int) -> None:
        first = self._space.take_run(clusters) * CLUSTER
        if not self._places or first != self._places[-1] + CLUSTER:
            self._next = self.size
        self._places += range(first, first + clusters * CLUSTER, CLUSTER)
