# SPDX-License-Identifier: GPL-3.0-or-later
"""L2 entries of compressed clusters, many at once, in images whose clusters are 64 KiB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.qcow2.held import Values
from overkeep.blocks.qcow2.layout import COMPRESSED, SECTOR

_SHIFT = np.uint64(54)  # 62 - (cluster_bits - 8)
_OFFSET = np.uint64((1 << 54) - 1)
_SECTORS = np.uint64(0xFF)

Numbers = NDArray[np.int64]


def offsets(entries: Values) -> Numbers:
    """Offsets in the file where the compressed data begin."""
    return (entries & _OFFSET).astype(np.int64)


def sectors(entries: Values) -> Numbers:
    """How many sectors of 512 bytes the data lie in, the first and the last of them perhaps in part."""
    return (entries >> _SHIFT & _SECTORS).astype(np.int64) + 1


def begins(entries: Values) -> Numbers:
    """Offsets of the sectors in which the data begin."""
    return offsets(entries) // SECTOR * SECTOR


def ends(entries: Values) -> Numbers:
    """Offsets behind the sectors in which the data end."""
    return begins(entries) + sectors(entries) * SECTOR


def moved(entries: Values, begins_at: Numbers) -> Values:
    """The entries once their sectors have been moved to those offsets, which are multiples of 512."""
    places = begins_at + offsets(entries) % SECTOR
    kept = entries & (_SECTORS << _SHIFT | np.uint64(COMPRESSED))
    return kept | places.astype(np.uint64)
