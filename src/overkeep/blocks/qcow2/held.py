# SPDX-License-Identifier: GPL-3.0-or-later
"""What one image holds of a stretch of the disk, counted in our clusters of 64 KiB whatever its own are, as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.layout import COMPRESSED, OFFSET_MASK, ZERO
from overkeep.blocks.qcow2.tables import PER_TABLE

STRETCH = PER_TABLE * CLUSTER
"""Bytes of the disk that are looked at together: what one L2 table of 64 KiB describes, 512 MiB."""

HOLE, ZEROES, PLACE, PACKED, MIXED = range(5)
"""Kinds of clusters: not held; zeroes; data at an offset of the file; data compressed as an L2 entry says; anything
that only reading the chain at this cluster tells."""

Kinds = NDArray[np.uint8]
Values = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Held:
    """The `PER_TABLE` clusters of a stretch: `values` are offsets in the file (PLACE), L2 entries (PACKED), else 0."""

    kinds: Kinds
    values: Values


def held(image: ImageFile, stretch: int) -> Held:
    """Look at stretch number `stretch`; what lies behind the end of the disk is a hole.

    Raises `ImageDamaged` when a cluster lies outside of the file.
    """
    if image.header.cluster == CLUSTER:
        return _classified(image, entries(image, stretch))
    if image.header.cluster < CLUSTER:
        return _joined(image, stretch)
    return _split(image, stretch)


def entries(image: ImageFile, index: int) -> Values:
    """The L2 entries of a stretch of the disk that one table describes, zeroes when there is no table."""
    table = image.table(index) if index < len(image.l1) else None
    if table is None:
        return np.zeros(image.header.table_entries, np.uint64)
    return np.asarray(table, np.uint64)


def _classified(image: ImageFile, found: Values) -> Held:
    packed = found & np.uint64(COMPRESSED) != 0
    zero = ~packed & (found & np.uint64(ZERO) != 0)
    offsets = found & np.uint64(OFFSET_MASK)
    place = ~packed & ~zero & (offsets != 0)
    _check_places(image, offsets[place])
    kinds = np.select([packed, zero, place], [PACKED, ZEROES, PLACE], HOLE).astype(np.uint8)
    values = np.select([packed, place], [found, offsets], np.uint64(0))
    return Held(kinds, values)


def _check_places(image: ImageFile, offsets: Values) -> None:
    if not len(offsets):
        return
    odd = offsets[offsets % np.uint64(image.header.cluster) != 0]
    for suspect in (offsets.min(), offsets.max(), *odd[:1]):
        image.check_place(int(suspect))


def _joined(image: ImageFile, stretch: int) -> Held:
    """An image whose clusters are smaller: what its clusters agree in, else MIXED."""
    tables = STRETCH // image.header.table_covers
    parts = [_classified(image, entries(image, index)).kinds for index in _span(stretch, tables)]
    kinds = np.concatenate(parts).reshape(PER_TABLE, -1)
    least, most = kinds.min(axis=1), kinds.max(axis=1)
    same = (least == most) & (most <= ZEROES)
    return _without_places(np.where(same, most, MIXED).astype(np.uint8))


def _split(image: ImageFile, stretch: int) -> Held:
    """An image whose clusters are larger: each of them is several of ours."""
    ratio = image.header.cluster // CLUSTER
    index, part = divmod(stretch, image.header.table_covers // STRETCH)
    count = PER_TABLE // ratio
    kinds = _classified(image, entries(image, index)[part * count : (part + 1) * count]).kinds
    return _without_places(np.repeat(np.where(kinds <= ZEROES, kinds, MIXED).astype(np.uint8), ratio))


def _without_places(kinds: Kinds) -> Held:
    return Held(kinds, np.zeros(PER_TABLE, np.uint64))


def _span(stretch: int, tables: int) -> Iterator[int]:
    yield from range(stretch * tables, (stretch + 1) * tables)
