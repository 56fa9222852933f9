# SPDX-License-Identifier: GPL-3.0-or-later
"""L2 entries of compressed clusters, many at once."""

from __future__ import annotations

import numpy as np

from overkeep.blocks.qcow2.layout import COMPRESSED, SECTOR
from overkeep.blocks.qcow2.runs import Signed, Unsigned


class PackedEntries:
    """What L2 entries of compressed clusters say in an image with clusters of `cluster` bytes."""

    def __init__(self, cluster: int) -> None:
        shift = 62 - (cluster.bit_length() - 1 - 8)
        self._shift = np.uint64(shift)
        self._offset = np.uint64((1 << shift) - 1)
        self._sectors = np.uint64((1 << (62 - shift)) - 1)

    def begins(self, entries: Unsigned) -> Signed:
        """Offsets of the sectors in which the data begin."""
        return self._offsets(entries) // SECTOR * SECTOR

    def lengths(self, entries: Unsigned) -> Signed:
        """Bytes of all the sectors in which the data lie, in the first and the last of them perhaps only a part."""
        return ((entries >> self._shift & self._sectors).astype(np.int64) + 1) * SECTOR

    def moved(self, entries: Unsigned, begins: Signed) -> Unsigned:
        """The entries once their sectors have been moved to those offsets, which are multiples of 512."""
        places = begins + self._offsets(entries) % SECTOR
        kept = entries & (self._sectors << self._shift | np.uint64(COMPRESSED))
        return kept | places.astype(np.uint64)

    def _offsets(self, entries: Unsigned) -> Signed:
        return (entries & self._offset).astype(np.int64)
