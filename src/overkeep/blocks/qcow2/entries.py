# SPDX-License-Identifier: GPL-3.0-or-later
"""L2 tables as arrays: what their entries mean, and the runs that they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from overkeep.blocks.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, SUBCLUSTERS, ZERO, Header
from overkeep.blocks.qcow2.packed import PackedEntries
from overkeep.blocks.qcow2.runs import NOTHING, Bools, Bytes8, Indices, Kind, Runs, Unsigned

_ALL = (1 << SUBCLUSTERS) - 1
_COPIED, _COMPRESSED, _OFFSET, _ZERO, _NONE = (np.uint64(bits) for bits in (COPIED, COMPRESSED, OFFSET_MASK, ZERO, 0))
_SHIFT, _ALLOCATED, _ONE = np.uint64(SUBCLUSTERS), np.uint64(_ALL), np.uint64(1)
_HOLE, _DATA, _ZEROES, _PACKED = (np.uint8(kind) for kind in Kind)  # looking up a member takes longer than comparing
_ALL_ZERO = np.uint64(_ALL << SUBCLUSTERS)


@dataclass(frozen=True, slots=True)
class Table:
    """Entries of L2 tables in the order of the disk; `bitmaps` of subclusters, where the image has them."""

    entries: Unsigned
    bitmaps: Unsigned | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return self.entries.nbytes + (0 if self.bitmaps is None else self.bitmaps.nbytes)

    def part(self, first: int, last: int) -> Table:
        """Some of the entries."""
        return Table(self.entries[first:last], None if self.bitmaps is None else self.bitmaps[first:last])


class BadEntry(ValueError):
    """An entry cannot be what it says; the text says what."""


@dataclass(frozen=True, slots=True)
class _Units:
    """What is known of each unit of a stretch: a cluster, or a subcluster (`each` of them make a cluster)."""

    kinds: Bytes8
    places: Unsigned
    bytes: int
    each: int = 1


def numbers(data: bytes | bytearray) -> Unsigned:
    """The numbers of 64 bits in the bytes of a table."""
    return np.frombuffer(data, ">u8").astype(np.uint64)


def native(data: bytes | bytearray, header: Header) -> Table:
    """Turn the bytes of L2 tables into entries."""
    entries = numbers(data)
    if not header.subclusters:
        return Table(entries)
    return Table(np.ascontiguousarray(entries[0::2]), np.ascontiguousarray(entries[1::2]))


def runs_of(table: Table, start: int, header: Header) -> Runs:
    """The runs that `table` makes of the disk from `start` on; raises `BadEntry`."""
    if not table.entries.any() and (table.bitmaps is None or not table.bitmaps.any()):
        return NOTHING
    units = _clusters(table, header) if table.bitmaps is None else _parts(table.entries, table.bitmaps, header)
    cuts = _cuts(units)
    begins, ends = cuts[:-1], cuts[1:]
    held = units.kinds[begins] != _HOLE
    begins, ends = begins[held], ends[held]
    return Runs(
        start + begins * units.bytes,
        start + ends * units.bytes,
        units.kinds[begins],
        units.places[begins],
        np.zeros(len(begins), np.uint8),
    )


def _clusters(table: Table, header: Header) -> _Units:
    entries = table.entries & ~_COPIED
    places = entries & _OFFSET
    kinds = (places != _NONE).astype(np.uint8)  # DATA is 1, HOLE is 0
    special = np.flatnonzero(entries & (_COMPRESSED | _ZERO))
    if len(special):
        _mark_special(entries, special, kinds, places)
        if header.version == 2 and (kinds[special] == _ZEROES).any():
            raise BadEntry("it has a cluster of zeroes, which version 2 does not know")
    return _Units(kinds, places, header.cluster)


def _mark_special(entries: Unsigned, special: Indices, kinds: Bytes8, places: Unsigned) -> None:
    """Enter clusters that are compressed, or zeroes, which show no place even if they keep one."""
    packed = (entries[special] & _COMPRESSED) != _NONE
    kinds[special] = np.where(packed, _PACKED, _ZEROES)
    places[special] = np.where(packed, entries[special], _NONE)


def _parts(entries: Unsigned, bitmaps: Unsigned, header: Header) -> _Units:
    """The units of an image with subclusters: whole clusters as long as the parts of each are all alike."""
    entries = entries & ~_COPIED
    packed = (entries & _COMPRESSED) != _NONE
    places = np.where(packed, entries, entries & _OFFSET)
    bitmaps = np.where(packed, _NONE, bitmaps)
    allocated, zero = bitmaps & _ALLOCATED, bitmaps >> _SHIFT
    if (allocated & zero).any() or (allocated[places == _NONE]).any():
        raise BadEntry("it has a bitmap of subclusters that contradicts itself")
    if ((bitmaps == _NONE) | (bitmaps == _ALLOCATED) | (bitmaps == _ALL_ZERO)).all():
        return _whole(packed, allocated, zero, places, header)
    bits = np.arange(SUBCLUSTERS, dtype=np.uint64)
    kinds = ((allocated[:, None] >> bits) & _ONE).astype(np.uint8)
    kinds += ((zero[:, None] >> bits) & _ONE).astype(np.uint8) * _ZEROES
    kinds[packed] = _PACKED
    places = places[:, None] + np.where(packed[:, None], _NONE, bits * np.uint64(header.unit))
    places[(kinds == _HOLE) | (kinds == _ZEROES)] = _NONE
    return _Units(kinds.ravel(), places.ravel(), header.unit, SUBCLUSTERS)


def _whole(packed: Bools, allocated: Unsigned, zero: Unsigned, places: Unsigned, header: Header) -> _Units:
    kinds = np.zeros(len(packed), np.uint8)
    kinds[allocated != _NONE] = _DATA
    kinds[zero != _NONE] = _ZEROES
    kinds[packed] = _PACKED
    places = np.where((kinds == _DATA) | packed, places, _NONE)
    return _Units(kinds, places, header.cluster)


def _cuts(units: _Units) -> Indices:
    """Where a unit does not go on with what the one before it began; the first and the last cut are the ends."""
    kinds, places = units.kinds, units.places
    steps = np.where(kinds[1:] == _DATA, np.uint64(units.bytes), _NONE)
    cut = (places[1:] - places[:-1]) != steps
    cut |= kinds[1:] != kinds[:-1]
    packed = kinds[1:] == _PACKED
    if packed.any():  # every compressed cluster is a run, also if two have the same place
        packed[np.arange(1, len(kinds)) % units.each != 0] = False
        cut |= packed
    return np.concatenate(([0], np.flatnonzero(cut) + 1, [len(kinds)]))


def check_places(runs: Runs, header: Header, file_size: int) -> None:
    """Raise `BadEntry` unless everything that whole runs of one image name lies in its file."""
    if not len(runs):
        return
    cluster, end = np.uint64(header.cluster), np.uint64(file_size)
    data = runs.take(runs.kinds == _DATA)
    starts = data.starts.astype(np.uint64)
    wrong = (data.places + (data.stops.astype(np.uint64) - starts) > end) | (data.places < cluster)
    wrong |= ((data.places - starts) & (cluster - _ONE)) != _NONE  # clusters are aligned, in the file as on the disk
    if wrong.any():
        raise BadEntry(f"it points to offset {data.places[wrong][0]}, which is no place in its {file_size} bytes")
    if len(data) == len(runs):
        return
    offsets = PackedEntries(header.cluster).offsets(runs.places[runs.kinds == _PACKED])
    wrong = (offsets >= end) | (offsets < cluster)
    if wrong.any():
        raise BadEntry(f"a compressed cluster is said to be at {offsets[wrong][0]}")
