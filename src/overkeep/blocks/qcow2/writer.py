# SPDX-License-Identifier: GPL-3.0-or-later
"""The stream writer: QCOW2 images written in the order in which data come, tables behind them, the header last."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from overkeep.blocks.buffers import aligned_buffer, zero_runs
from overkeep.blocks.compression import Compression, Compressor
from overkeep.blocks.ends import UNLIMITED, Piece
from overkeep.blocks.errors import BadRange, ImageTooLarge, UnsafeImage
from overkeep.blocks.files import PartialFile
from overkeep.blocks.qcow2.form import PLAIN, Form
from overkeep.blocks.qcow2.layout import (
    COMPRESSED,
    MOST_SIZE,
    OFFSET_MASK,
    SECTOR,
    Header,
    is_bare_name,
    pack_header,
    refcount_room,
)
from overkeep.blocks.qcow2.packed import touched
from overkeep.blocks.qcow2.packing import Packing
from overkeep.blocks.qcow2.tables import Tables, big_endian
from overkeep.blocks.stages import Stages
from overkeep.units import align_up

_Run = tuple[int, int, bool]
"""Start and end within some data, and whether it is all zeroes."""


class ImageWriter:
    """A sink that makes one image of a chain: `<name>.partial`, renamed to `name` by `finish`.

    `size` is the virtual size in bytes, a multiple of 512. With `backing` (a bare name in the same folder) the image is
    an overlay: zeroes become zero clusters; without, they are left out. Ranges begin at multiples of the clusters of
    `form` and end there or at the end of the disk. Safe for several threads; `clone` is the same object.

    Raises the typed errors of the target (`TargetFull`, `TargetReadOnly`, ...) and `BadRange`.
    """

    parallel = UNLIMITED

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        size: int,
        backing: str | None = None,
        form: Form = PLAIN,
        stages: Stages | None = None,
    ) -> None:
        for bare in (name, backing):
            if bare is not None and not is_bare_name(bare):
                raise UnsafeImage(file=name, reason=f"{bare!r} is not the bare name of a file")
        if size > MOST_SIZE:
            raise ImageTooLarge(file=name, size=size, most=MOST_SIZE)
        if size % SECTOR or size < 0:
            raise BadRange(offset=0, length=size, what="an image", size=size)
        self.size = size
        self._backing = backing
        self._form = form
        self._cluster = form.cluster
        self._stages = stages or Stages()
        self._file = PartialFile(folder / name, direct=True)
        self._lock = threading.Lock()
        self._counts = array("H", [1])  # references to each cluster of the file; the first is the header's
        self._tables = Tables(size, self, cluster=self._cluster, allocate=self._allocate, release=self._release)
        self._compressors = _Compressors(form)
        self._packing = Packing(self._cluster, self._reserve)

    @property
    def stored(self) -> int:
        """Bytes of the file so far; the size of the image once it is finished."""
        return len(self._counts) * self._cluster

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset` of the disk; clusters of zeroes in it are not stored as data."""
        self.write_each([(offset, data)])

    def write_each(self, pieces: Sequence[Piece]) -> None:
        """Write all `pieces` as `write` does: scattered ones lie together in the file, and are written at once."""
        content = [self._prepared(offset, data) for offset, data in pieces]
        with self._lock:
            placed = [part for each in content for run in each.runs for part in self._place(each, run)]
        with self._stages.spent("target"):
            for place, views in _joined(placed):
                self._file.write(place, views)
        if self._form.compression is not None:
            with self._lock:
                self._packing.written(place for place, _ in placed)

    def _prepared(self, offset: int, data: memoryview) -> _Content:
        """Look for zeroes and compress, which needs no lock."""
        self._check(offset, len(data))
        if len(data) % self._cluster:
            data = _padded(data, self._cluster)
        runs = list(zero_runs(data, self._cluster))
        payloads = self._compressed(data, runs) if self._form.compression is not None else {}
        return _Content(offset, data, runs, payloads)

    def zero(self, offset: int, length: int) -> None:
        """Let a run of the disk read as zeroes."""
        self._check(offset, length)
        with self._lock:
            self._mark_zero(offset // self._cluster, -(-length // self._cluster))

    def clone(self) -> ImageWriter:
        """Return this writer: it is safe for several threads."""
        return self

    def finish(self) -> None:
        """Write tables and header, make the file durable and give it its name; the writer is closed after this."""
        self.complete()
        self.publish()

    def complete(self) -> None:
        """Write tables and header: the file is an image now, and bears its partial name still."""
        with self._stages.spent("target"):
            with self._lock:
                last = self._packing.flush()
                if last:
                    self._file.write(last.offset, [last.data])
                    self._give_back(last.offset + len(last.data), last.end)
                self._tables.flush()
                l1_offset = self._append(big_endian(self._tables.l1)) if self.size else 0
                refcount_offset, refcount_clusters = self._append_refcounts()
            header = Header(
                size=self.size,
                cluster_bits=self._cluster.bit_length() - 1,
                l1_offset=l1_offset,
                l1_entries=len(self._tables.l1),
                refcount_offset=refcount_offset,
                refcount_clusters=refcount_clusters,
                backing=self._backing,
                compression=self._form.compression or Compression.ZLIB,
            )
            self.store(0, pack_header(header))

    def publish(self) -> None:
        """Make the complete file durable and give it its name; the writer is closed after this."""
        with self._stages.spent("target"):
            self._file.publish()

    def close(self) -> None:
        """Remove the unfinished file; nothing happens when it is finished."""
        self._file.discard()

    def store(self, offset: int, data: bytes) -> None:
        """Write whole clusters of the file (for the tables)."""
        staging = aligned_buffer(len(data))
        staging[:] = data
        self._file.write(offset, [staging])

    def load(self, offset: int) -> bytes:
        """Read one cluster of the file back (for the tables)."""
        staging = aligned_buffer(self._cluster)
        self._file.read(offset, staging)
        return staging.tobytes()

    def _check(self, offset: int, length: int) -> None:
        end = offset + length
        if offset < 0 or offset % self._cluster or end > self.size or (end % self._cluster and end != self.size):
            raise BadRange(offset=offset, length=length, what="the image", size=self.size)

    def _compressed(self, data: memoryview, runs: list[_Run]) -> dict[int, bytes]:
        """Compress the clusters that get smaller by it, by their place in `data`."""
        payloads, compressor = {}, self._compressors.own
        with self._stages.spent("compress"):
            for start, end, zero in runs:
                for at in range(start, end, self._cluster) if not zero else ():
                    payload = compressor.deflate(data[at : at + self._cluster])
                    if payload is not None:
                        payloads[at] = payload
        return payloads

    def _place(self, content: _Content, run: _Run) -> Iterator[Piece]:
        """Find the places in the file of one run, with what belongs there; nothing for zeroes."""
        offset, data, payloads = content.offset, content.data, content.payloads
        start, end, zero = run
        if zero:
            self._mark_zero((offset + start) // self._cluster, (end - start) // self._cluster)
            return
        while start < end:
            stop = start + self._cluster
            if start in payloads:
                yield from self._place_packed((offset + start) // self._cluster, payloads[start])
            else:
                while stop < end and stop not in payloads:
                    stop += self._cluster
                yield from self._place_plain(offset + start, data[start:stop])
            start = stop

    def _place_plain(self, offset: int, data: memoryview) -> Iterator[Piece]:
        start = 0
        for place, clusters in self._tables.place(offset // self._cluster, len(data) // self._cluster):
            length = clusters * self._cluster
            yield place, data[start : start + length]
            start += length

    def _place_packed(self, cluster: int, payload: bytes) -> Iterator[Piece]:
        entry, full = self._packing.add(payload)
        for number in touched(entry, self._cluster):
            self._counts[number] += 1
        self._tables.pack(cluster, entry)
        if full:
            yield full.offset, full.data

    def _mark_zero(self, first: int, count: int) -> None:
        self._tables.mark_zero(first, count, hide=self._backing is not None)

    def _allocate(self, clusters: int) -> int:
        offset = self._reserve(clusters)
        for number in range(offset // self._cluster, len(self._counts)):
            self._counts[number] = 1
        return offset

    def _reserve(self, clusters: int) -> int:
        """Take clusters at the end of the file that nothing refers to yet."""
        offset = len(self._counts) * self._cluster
        self._counts.frombytes(bytes(2 * clusters))
        return offset

    def _give_back(self, start: int, end: int) -> None:
        """Forget that clusters were taken and not used, when they are the last: tables take their place."""
        if end == self.stored:
            del self._counts[start // self._cluster :]

    def _release(self, entry: int) -> None:
        """Forget the place that `entry` names: its cluster of the disk lies elsewhere now."""
        if entry & COMPRESSED:
            for number in touched(entry, self._cluster):
                self._counts[number] -= 1
        else:
            self._counts[(entry & OFFSET_MASK) // self._cluster] = 0

    def _append(self, data: bytes) -> int:
        """Append `data`, padded to whole clusters; return where."""
        clusters = max(1, -(-len(data) // self._cluster))
        offset = self._allocate(clusters)
        self.store(offset, data.ljust(clusters * self._cluster, b"\0"))
        return offset

    def _append_refcounts(self) -> tuple[int, int]:
        """Append the refcounts; return the place and the clusters of their table."""
        blocks, table_clusters = refcount_room(len(self._counts), self._cluster)
        first = self._allocate(blocks)
        table = self._allocate(table_clusters)
        offsets = array("Q", range(first, first + blocks * self._cluster, self._cluster))
        for number, offset in enumerate(offsets):
            counts = self._counts[number * self._cluster // 2 : (number + 1) * self._cluster // 2]
            self.store(offset, big_endian(counts).ljust(self._cluster, b"\0"))
        self.store(table, big_endian(offsets).ljust(table_clusters * self._cluster, b"\0"))
        return table, table_clusters


@dataclass(frozen=True)
class _Content:
    """Data for a place of the disk; `payloads` are its compressed clusters, by their place in it."""

    offset: int
    data: memoryview
    runs: list[_Run]
    payloads: dict[int, bytes]


class _Compressors(threading.local):
    """A compressor for each thread, as one serves only one at a time."""

    def __init__(self, form: Form) -> None:
        self.own = Compressor(form.compression or Compression.ZLIB, form.level)


def _padded(data: memoryview, cluster: int) -> memoryview:
    """Copy the end of a disk into whole clusters, the rest zeroes."""
    whole = aligned_buffer(align_up(len(data), cluster))
    whole[: len(data)] = data
    return whole


def _joined(pieces: list[Piece]) -> Iterator[tuple[int, list[memoryview]]]:
    """Join pieces that follow one another in the file, so that they are written at once."""
    place, end, views = 0, -1, list[memoryview]()
    for offset, view in pieces:
        if offset != end and views:
            yield place, views
            views = []
        if not views:
            place = offset
        views.append(view)
        end = offset + len(view)
    if views:
        yield place, views
