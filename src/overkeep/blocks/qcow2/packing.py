# SPDX-License-Identifier: GPL-3.0-or-later
"""Where compressed clusters lie in an image: one behind the other, in regions that are written whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from overkeep.blocks.buffers import aligned_buffer
from overkeep.blocks.qcow2.packed import packed_entry
from overkeep.units import MIB, align_up

_LARGEST_REGION = 2 * MIB


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes that belong at `offset` of the file, in whole clusters; everything up to `end` was taken for them."""

    offset: int
    data: memoryview
    end: int


class Packing:
    """Packs payloads into regions of the file; the caller holds the lock and writes the regions that are full.

    Regions begin small and double: a small image shall not have a large gap. `allocate` gives the offset of the next
    free clusters of the file.
    """

    def __init__(self, cluster: int, allocate: Callable[[int], int]) -> None:
        self._cluster = cluster
        self._room = cluster  # bytes of the file that the next region takes
        self._allocate = allocate
        self._region: Region | None = None
        self._used = 0
        self._full: dict[int, memoryview] = {}  # memory of regions that are being written, by their offset
        self._spare: list[memoryview] = []

    def add(self, payload: bytes) -> tuple[int, Region | None]:
        """Find a place for `payload`; return it as an L2 entry, and a region that is full and must be written now."""
        full = None
        if self._region is None or self._used + len(payload) > len(self._region.data):
            full = self.flush()
            self._region = self._begin()
        at = self._used
        self._region.data[at : at + len(payload)] = payload
        self._used = at + len(payload)
        return packed_entry(self._region.offset + at, len(payload), self._cluster), full

    def _begin(self) -> Region:
        room = self._room
        self._room = max(room, min(2 * room, _LARGEST_REGION))
        offset = self._allocate(room // self._cluster)
        memory = self._spare.pop() if self._spare and room == _LARGEST_REGION else aligned_buffer(room)
        return Region(offset, memory, offset + room)

    def flush(self) -> Region | None:
        """Begin a new region with the next payload; return the one so far, as far as it is used."""
        region, end = self._region, self._used
        used = align_up(end, self._cluster)
        self._region, self._used = None, 0
        if region is None or not used:
            return None
        region.data[end:used] = bytes(used - end)  # the memory may have been another region's
        if len(region.data) == _LARGEST_REGION:
            self._full[region.offset] = region.data
        return Region(region.offset, region.data[:used], region.end)

    def written(self, offsets: Iterable[int]) -> None:
        """Use the memory of the regions at `offsets` again; other offsets mean nothing here."""
        self._spare += [self._full.pop(offset) for offset in offsets if offset in self._full]
