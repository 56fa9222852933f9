# SPDX-License-Identifier: GPL-3.0-or-later
"""One QCOW2 file of a chain, open for reading: its header and its tables, every offset checked before it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from overkeep.blocks.errors import ImageDamaged, UnsafeImage
from overkeep.blocks.qcow2.cache import Cache
from overkeep.blocks.qcow2.compressed import CompressedClusters
from overkeep.blocks.qcow2.entries import BadEntry, Table, check_places, native, numbers, runs_of
from overkeep.blocks.qcow2.layout import HEADER_ROOM, OFFSET_MASK, Header, is_bare_name
from overkeep.blocks.qcow2.parsing import parse_header
from overkeep.blocks.qcow2.runs import NOTHING, Run, Runs, Span, Unsigned
from overkeep.blocks.reading import TargetFile
from overkeep.units import KIB, MIB

_SLICE_BYTES = 64 * KIB  # part of a table that is read and kept at once; the whole table if clusters are no larger
_MOST_TABLES = 20 * MIB  # in memory: a slice of each image of the longest chain, and some more
_BATCH_BYTES = MIB  # of tables looked at in one go: few steps in Python, and all arrays together some MiB
_BATCH_BYTES_SUBCLUSTERS = 64 * KIB  # each entry may become 32


@dataclass(frozen=True)
class Memory:
    """What the images of a chain keep in memory together: parts of tables, and clusters that were inflated."""

    tables: Cache[Table] = field(default_factory=lambda: Cache(_MOST_TABLES, lambda table: table.nbytes))
    clusters: Cache[bytes] = field(default_factory=lambda: Cache(8 * MIB, len))


class ImageFile:
    """One image file. Safe for several threads; reading is `pread` only.

    `cached=False` reads what is really on the target, past the page cache. Images that are read together share a
    `memory`. With `beginning` the image is as it will be once these bytes are the first of the file.

    Raises `UnsafeImage` for what is not a regular file in the folder, `ImageDamaged` or `ImageUnsupported` for what is
    not a sound image, and the typed errors of the target.
    """

    def __init__(
        self, folder: Path, name: str, *, cached: bool = True, memory: Memory | None = None, beginning: bytes = b""
    ) -> None:
        if not is_bare_name(name):
            raise UnsafeImage(file=name, reason="that is not the bare name of a file")
        self.name = name
        self._memory = memory or Memory()
        self._file = TargetFile(folder / name, cached=cached)
        try:
            self._load(folder, beginning)
        except BaseException:
            self.close()
            raise

    def _load(self, folder: Path, beginning: bytes) -> None:
        self.file_size = self._file.size
        room = self._read(0, min(HEADER_ROOM, self.file_size))
        room[: len(beginning)] = beginning
        self.header: Header = parse_header(bytes(room), self.file_size, file=self.name, folders=_paths(folder))
        self._compressed = CompressedClusters(self._file, self.header, self._memory.clusters)
        needed = self._read(self.header.l1_offset, self.header.l1_needed * 8) if self.header.size else b""
        self.l1: Unsigned = numbers(needed) & np.uint64(OFFSET_MASK)

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self.header.size

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def check_tables(self) -> None:
        """Raise `ImageDamaged` unless every L2 table lies in the file and describes one stretch of the disk.

        A table that is named many times would make a small file take very long to look through.
        """
        offsets = np.sort(self.l1[self.l1 != 0])
        cluster = np.uint64(self.header.cluster)
        if len(offsets):
            self._check_table(int(offsets[0]), self.header.cluster)
            self._check_table(int(offsets[-1]), self.header.cluster)
        if (offsets % cluster).any() or (offsets[1:] == offsets[:-1]).any():
            raise ImageDamaged(file=self.name, reason="its L1 table names a table twice, or one that cannot be")

    def table(self, index: int) -> Unsigned | None:
        """The L2 table for the `index`-th stretch of the disk, or None when there is none.

        The numbers are as in the file; an image with subclusters has two for each cluster, the second the bitmap.
        """
        if not self.l1[index]:
            return None
        return numbers(self._read_table(index, 0, self.header.cluster))

    def held(self) -> Iterator[Runs]:
        """Yield the runs that this file holds itself, in order: data, zeroes, and compressed clusters one by one.

        What lies between them is left to the backing image. Runs are whole clusters, or whole subclusters where the
        image has them, except at the end of the disk.
        """
        for span in self.spans(0, self.size):
            if len(span.runs):
                yield span.runs

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """Yield the stretches that make up `start` to `stop`, in order, each with what the file holds of it."""
        cluster = self.header.cluster
        position = start
        for first, last in self._described(start // cluster, -(-stop // cluster)):
            end = min(stop, last * cluster)
            runs = self._runs(first, last).clipped(start, stop)
            yield Span(position, end, runs)
            position = end
        if position < stop:
            yield Span(position, stop, NOTHING)

    def _described(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the runs of clusters between two that have L2 tables, in pieces that are small enough for memory."""
        per_table = self.header.table_entries
        batch = (_BATCH_BYTES_SUBCLUSTERS if self.header.subclusters else _BATCH_BYTES) // self.header.entry_bytes
        index = first // per_table
        if first == last:  # a disk of 0 bytes has no tables
            return
        if last <= min((index + 1) * per_table, first + batch):  # most often: a read of some MiB
            if self.l1[index]:
                yield first, last
            return
        present = np.flatnonzero(self.l1[index : -(-last // per_table)]) + index
        if not len(present):
            return
        ends = np.append(np.flatnonzero(np.diff(present) != 1), len(present) - 1)
        begins = np.concatenate(([0], ends[:-1] + 1))
        for begin, end in zip(present[begins].tolist(), present[ends].tolist(), strict=True):
            position, stop = max(first, begin * per_table), min(last, (end + 1) * per_table)
            while position < stop:
                piece = min(stop, (position // batch + 1) * batch)
                yield position, piece
                position = piece

    def _runs(self, first: int, last: int) -> Runs:
        """The runs of clusters `first` to `last`, all of which have L2 tables."""
        try:
            runs = runs_of(self._entries(first, last), first * self.header.cluster, self.header)
            check_places(runs, self.header, self.file_size)
        except BadEntry as error:
            raise ImageDamaged(file=self.name, reason=str(error)) from error
        return runs

    def _entries(self, first: int, last: int) -> Table:
        """Entries of some clusters: a few come from memory, many are read at once and not kept."""
        per_slice = min(self.header.table_entries, _SLICE_BYTES // self.header.entry_bytes)
        number = first // per_slice
        begin = number * per_slice
        if last <= begin + per_slice:
            return self._slice(number, per_slice).part(first - begin, last - begin)
        data = bytearray((last - first) * self.header.entry_bytes)
        self._read_tables(first, memoryview(data))
        return native(data, self.header)

    def _slice(self, number: int, per_slice: int) -> Table:
        size = per_slice * self.header.entry_bytes
        index, position = divmod(number * per_slice, self.header.table_entries)
        return self._memory.tables.get(
            (self.name, number),
            lambda: native(self._read_table(index, position * self.header.entry_bytes, size), self.header),
        )

    def _read_tables(self, first: int, buffer: memoryview) -> None:
        """Read the entries from `first` on; tables that follow one another in the file are read at once."""
        cluster, entry = self.header.cluster, self.header.entry_bytes
        index, position = divmod(first, self.header.table_entries)
        skipped = position * entry
        offsets = self.l1[index : index + -(-(skipped + len(buffer)) // cluster)]
        breaks = (np.flatnonzero(offsets[1:] - offsets[:-1] != cluster) + 1).tolist()
        for begin, end in zip([0, *breaks], [*breaks, len(offsets)], strict=True):
            offset, length = int(offsets[begin]), (end - begin) * cluster
            self._check_table(offset, length)
            part = buffer[: length - skipped]
            self.read_into(offset + skipped, part)
            buffer, skipped = buffer[len(part) :], 0

    def _read_table(self, index: int, begin: int, length: int) -> bytearray:
        offset = int(self.l1[index])
        self._check_table(offset, self.header.cluster)
        return self._read(offset + begin, length)

    def _check_table(self, offset: int, length: int) -> None:
        if offset % self.header.cluster or not self.header.cluster <= offset <= self.file_size - length:
            reason = f"its table at {offset} does not lie in the file of {self.file_size} bytes"
            raise ImageDamaged(file=self.name, reason=reason)

    def read_run(self, run: Run, buffer: memoryview) -> None:
        """Fill `buffer`, which is as long as `run`, with the data that lie there."""
        self.read_into(run.place, buffer)

    def read_packed(self, runs: Sequence[Run], buffers: Sequence[memoryview]) -> None:
        """Fill each buffer with its run, which is a compressed cluster or a part of one."""
        self._compressed.read(runs, buffers)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` of the file."""
        done = self._file.fill(offset, buffer)
        if done < len(buffer):
            raise ImageDamaged(file=self.name, reason=f"it ends at {offset + done}, before its data")

    def peek(self, offset: int, length: int) -> bytearray:
        """Return `length` bytes from `offset` of the file, zeroes for what lies behind its end: to look at damage."""
        buffer = bytearray(length)
        if offset < self.file_size:
            self._file.fill(offset, memoryview(buffer))
        return buffer

    def _read(self, offset: int, length: int) -> bytearray:
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return buffer


def _paths(folder: Path) -> tuple[str, ...]:
    """The absolute paths by which the folder itself is known: as it was named, and without links."""
    return os.path.abspath(folder), os.path.realpath(folder)  # noqa: PTH100  (the text is compared, not followed)
