# SPDX-License-Identifier: GPL-3.0-or-later
"""The lists of internal snapshots and of bitmaps in an image: only what a check of its structure must know of them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from overkeep.blocks.errors import ImageUnsupported
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.units import MIB, align_up

_SNAPSHOT = struct.Struct(">QIHHIIQII")
_BITMAP = struct.Struct(">QIIBBHI")
_MOST_SNAPSHOTS = 65536
_MOST_EXTRA = 1024  # bytes that an entry may have for what only later versions know
_MOST_LIST_BYTES = 64 * MIB
_MOST_TABLE_BYTES = 128 * MIB  # of all tables that the entries of one list name


@dataclass(frozen=True, slots=True)
class Listed:
    """The table of a snapshot (its L1 table) or of a bitmap: where it is, and how many entries of 8 bytes it has."""

    offset: int
    entries: int


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Lengths of what follows the fixed fields of an entry."""

    extra: int
    names: int


class BadList(ValueError):
    """A list cannot be read to its end; `offset` is where."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"broken at {offset}")
        self.offset = offset


def snapshots(image: ImageFile) -> tuple[list[Listed], int]:
    """The L1 tables of the internal snapshots, and the length of their list; raises `BadList`."""
    header = image.header
    if header.snapshots > _MOST_SNAPSHOTS or header.snapshots_offset % header.cluster:
        raise BadList(header.snapshots_offset)
    return _entries(image, header.snapshots_offset, header.snapshots, kind=(_SNAPSHOT, _snapshot_sizes))


def bitmaps(image: ImageFile) -> list[Listed]:
    """The tables of the bitmaps; raises `BadList`."""
    header = image.header
    if header.bitmaps_offset % header.cluster:
        raise BadList(header.bitmaps_offset)
    found, length = _entries(image, header.bitmaps_offset, header.bitmaps, kind=(_BITMAP, _bitmap_sizes))
    if align_up(length, 8) != header.bitmaps_bytes:
        raise BadList(header.bitmaps_offset)
    return found


def _snapshot_sizes(fields: tuple[int, ...]) -> _Sizes:
    _, _, identity, name, _, _, _, _, extra = fields
    return _Sizes(extra, identity + name)


def _bitmap_sizes(fields: tuple[int, ...]) -> _Sizes:
    *_, name, extra = fields
    return _Sizes(extra, name)


def _entries(
    image: ImageFile,
    start: int,
    number: int,
    *,
    kind: tuple[struct.Struct, Callable[[tuple[int, ...]], _Sizes]],
) -> tuple[list[Listed], int]:
    """Go through a list of `number` entries, each of which begins at a multiple of 8 bytes."""
    fixed, sizes_of = kind
    found, position, tables = [], start, 0
    for _ in range(number):
        position = align_up(position, 8)
        fields = fixed.unpack(image.peek(position, fixed.size))
        sizes = sizes_of(fields)
        tables += fields[1] * 8
        if sizes.extra > _MOST_EXTRA or position - start > _MOST_LIST_BYTES:
            raise BadList(position)
        if tables > _MOST_TABLE_BYTES:
            raise ImageUnsupported(file=image.name, feature=f"snapshots or bitmaps with tables of {tables} bytes")
        position += fixed.size + sizes.extra + sizes.names
        found.append(Listed(fields[0], fields[1]))
    return found, position - start
