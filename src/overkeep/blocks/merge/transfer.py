# SPDX-License-Identifier: GPL-3.0-or-later
"""Data on their way from the images of a run into the carrier, as the two ends of a copy.

Everything that is moved is laid end to end in a *transfer space*, whose positions mean nothing outside of it: one piece
of a copy is then full of data, however scattered they lie in the files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.buffers import clear
from overkeep.blocks.ends import UNLIMITED, Extent
from overkeep.blocks.files import OutputFile
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.reader import ChainReader

CHAIN = -1
"""In place of the number of an image: the disk, as the newest image shows it."""

Numbers = NDArray[np.int64]


class Pieces:
    """Pieces of the transfer space, in order: each belongs to some file at some offset."""

    def __init__(self) -> None:
        self._parts: list[tuple[Numbers, Numbers, Numbers, Numbers]] = []

    def add(self, at: Numbers, lengths: Numbers, files: Numbers, offsets: Numbers) -> None:
        """Add pieces behind those that are there."""
        if len(at):
            self._parts.append((at, lengths, files, offsets))

    def seal(self) -> None:
        """Join neighbours that are neighbours in their file, too; nothing is added after this."""
        columns = [np.concatenate(column) for column in zip(*self._parts, strict=True)] or [np.zeros(0, np.int64)] * 4
        at, lengths, files, offsets = columns
        ends, stops = at + lengths, offsets + lengths
        apart = (ends[:-1] != at[1:]) | (files[:-1] != files[1:]) | (stops[:-1] != offsets[1:])
        first = np.flatnonzero(np.concatenate([[True], apart])) if len(at) else np.zeros(0, np.int64)
        last = np.concatenate([first[1:], [len(at)]])[: len(first)] - 1
        self._at: list[int] = at[first].tolist()
        self._ends: list[int] = ends[last].tolist()
        self._files: list[int] = files[first].tolist()
        self._offsets: list[int] = offsets[first].tolist()
        self._parts = []

    def within(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield `(start, end, file, offset)` of what lies between two positions, cut there."""
        index = max(0, bisect_right(self._at, start) - 1)
        while index < len(self._at) and self._at[index] < end:
            begin, stop = max(start, self._at[index]), min(end, self._ends[index])
            if begin < stop:
                yield begin, stop, self._files[index], self._offsets[index] + begin - self._at[index]
            index += 1


class Transfer:
    """What is moved at once: where the data come from, and where in the carrier they go. In whole clusters."""

    def __init__(self, cluster: int) -> None:
        self._cluster = cluster
        self.size = 0
        self.reads = Pieces()
        self.writes = Pieces()

    def add_clusters(self, files: Numbers, offsets: Numbers, places: Numbers) -> None:
        """Move a cluster from each `offsets` of each of `files` to each of `places`."""
        lengths = np.full(len(places), self._cluster, np.int64)
        at = self.size + self._cluster * np.arange(len(places), dtype=np.int64)
        self.reads.add(at, lengths, files, offsets)
        self.writes.add(at, lengths, np.zeros_like(at), places)
        self.size += self._cluster * len(places)

    def seal(self) -> None:
        """Nothing is added after this."""
        self.reads.seal()
        self.writes.seal()


class TransferSource:
    """The source of a transfer: `images` are the run's, newest first; `chain` is closed with this."""

    parallel = UNLIMITED

    def __init__(self, transfer: Transfer, images: Sequence[ImageFile], chain: ChainReader) -> None:
        self.size = transfer.size
        self._transfer = transfer
        self._images = images
        self._chain = chain

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield all there is to move; what changed since a base is not known here, so `dirty` changes nothing."""
        if self.size:
            yield Extent(0, self.size, False)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; what nothing is to be read for, between compressed clusters, is zeroes."""
        filled = offset
        for start, end, file, place in self._transfer.reads.within(offset, offset + len(buffer)):
            clear(buffer[filled - offset : start - offset])
            self._read(file, place, buffer[start - offset : end - offset])
            filled = end
        clear(buffer[filled - offset :])

    def _read(self, file: int, place: int, buffer: memoryview) -> None:
        if file != CHAIN:
            self._images[file].read_into(place, buffer)
            return
        there = min(len(buffer), self._chain.size - place)
        self._chain.read_into(place, buffer[:there])
        clear(buffer[there:])

    def clone(self) -> TransferSource:
        """Return another source of the same transfer."""
        return TransferSource(self._transfer, self._images, self._chain.clone())

    def close(self) -> None:
        """Close the chain; may be called twice."""
        self._chain.close()


class TransferSink:
    """The sink of a transfer: the file of the carrier, which stays open."""

    parallel = UNLIMITED

    def __init__(self, transfer: Transfer, file: OutputFile) -> None:
        self.size = transfer.size
        self._transfer = transfer
        self._file = file

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` where it belongs."""
        for start, end, _, place in self._transfer.writes.within(offset, offset + len(data)):
            self._file.write(place, [data[start - offset : end - offset]])

    def zero(self, offset: int, length: int) -> None:
        """A transfer moves data only."""
        raise NotImplementedError

    def clone(self) -> TransferSink:
        """Return this sink: it is safe for several threads."""
        return self

    def finish(self) -> None:
        """Make durable what was written."""
        self._file.sync()

    def close(self) -> None:
        """Nothing is held here."""
