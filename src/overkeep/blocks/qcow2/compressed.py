# SPDX-License-Identifier: GPL-3.0-or-later
"""The compressed clusters of one image file, read and inflated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from overkeep.blocks.compression import NotInflatable, inflate
from overkeep.blocks.errors import ImageDamaged
from overkeep.blocks.qcow2.cache import Cache
from overkeep.blocks.qcow2.layout import Header
from overkeep.blocks.qcow2.packed import PackedEntries
from overkeep.blocks.qcow2.runs import Run
from overkeep.blocks.reading import TargetFile
from overkeep.units import KIB, MIB

_MOST_GAP = 64 * KIB  # between two clusters that are read at once: reading it costs less than asking twice
_MOST_TOGETHER = 2 * MIB  # a cluster alone may have more


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the bytes of a cluster begin in the file, and where they end at the latest."""

    begin: int
    end: int


class CompressedClusters:
    """Reads compressed clusters of `file`; safe for several threads. Raises `ImageDamaged`."""

    def __init__(self, file: TargetFile, header: Header, cache: Cache[bytes]) -> None:
        self._file = file
        self._cluster = header.cluster
        self._packed = PackedEntries(header.cluster)
        self._kind = header.compression
        self._cache = cache

    def read(self, runs: Sequence[Run], buffers: Sequence[memoryview]) -> None:
        """Fill each buffer with its run, which is a compressed cluster or a part of one.

        Clusters that lie close together in the file are read at once: on a network each read waits for an answer.
        """
        if len(runs) == 1 and len(buffers[0]) < self._cluster:
            self._copy(self._kept(runs[0].place), runs[0], buffers[0])
            return
        places = self._places([run.place for run in runs])
        for first, last in _neighbours(places):
            near = places[first:last]
            begin, end = min(place.begin for place in near), max(place.end for place in near)
            data = memoryview(self._load(_Place(begin, end)))
            for place, run, buffer in zip(near, runs[first:last], buffers[first:last], strict=True):
                self._copy(self._inflated(place, data[place.begin - begin : place.end - begin]), run, buffer)

    def _copy(self, content: bytes, run: Run, buffer: memoryview) -> None:
        skipped = run.start % self._cluster
        buffer[:] = content[skipped : skipped + len(buffer)] if len(buffer) < len(content) else content

    def _kept(self, entry: int) -> bytes:
        """The content of a cluster of which a part is wanted: the rest is likely to be wanted next."""

        def make() -> bytes:
            (place,) = self._places([entry])
            return self._inflated(place, memoryview(self._load(place)))

        return self._cache.get((self._file.path.name, entry), make)

    def _places(self, entries: list[int]) -> list[_Place]:
        packed = np.array(entries, np.uint64)
        offsets = self._packed.offsets(packed)
        ends = np.minimum(offsets + self._packed.greatest(packed), np.uint64(self._file.size))
        if (offsets >= ends).any():
            raise self._damaged(f"a compressed cluster is said to be at {offsets[offsets >= ends][0]}")
        return [_Place(begin, end) for begin, end in zip(offsets.tolist(), ends.tolist(), strict=True)]

    def _load(self, place: _Place) -> bytearray:
        data = bytearray(place.end - place.begin)
        if self._file.fill(place.begin, memoryview(data)) < len(data):
            raise self._damaged(f"it ends before its data at {place.begin}")
        return data

    def _inflated(self, place: _Place, data: memoryview) -> bytes:
        try:
            return inflate(self._kind, data, self._cluster)
        except NotInflatable as error:
            raise self._damaged(f"the compressed cluster at {place.begin} is broken ({error})") from error

    def _damaged(self, reason: str) -> ImageDamaged:
        return ImageDamaged(file=self._file.path.name, reason=reason)


def _neighbours(places: Sequence[_Place]) -> Iterator[tuple[int, int]]:
    """Yield the stretches of places, first and behind the last, that lie close together and are read at once."""
    first = 0
    begin, end = places[0].begin, places[0].end
    for index, place in enumerate(places):
        joined_begin, joined_end = min(begin, place.begin), max(end, place.end)
        near = abs(place.begin - places[max(first, index - 1)].end) <= _MOST_GAP or index == first
        if near and joined_end - joined_begin <= max(_MOST_TOGETHER, places[first].end - places[first].begin):
            begin, end = joined_begin, joined_end
            continue
        yield first, index
        first, begin, end = index, place.begin, place.end
    yield first, len(places)
