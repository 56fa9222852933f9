# SPDX-License-Identifier: GPL-3.0-or-later
"""The stream writer: QCOW2 images written in the order in which data come, tables behind them, the header last."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

from overkeep.blocks.buffers import CLUSTER, aligned_buffer, zero_runs
from overkeep.blocks.errors import BadRange, UnsafeImage
from overkeep.blocks.files import PartialFile
from overkeep.blocks.qcow2.layout import BARE_NAME, SECTOR, Header, pack_header, refcount_block, refcount_room
from overkeep.blocks.qcow2.tables import Tables, big_endian
from overkeep.units import align_up


class ImageWriter:
    """A sink that makes one image of a chain: `<name>.partial`, renamed to `name` by `finish`.

    `size` is the virtual size in bytes, a multiple of 512. With `backing` (a bare name in the same folder) the image is
    an overlay: zeroes become zero clusters; without, they are left out. Ranges begin at multiples of 64 KiB and end
    there or at the end of the disk. Safe for several threads; `clone` is the same object.

    Raises the typed errors of the target (`TargetFull`, `TargetReadOnly`, ...) and `BadRange`.
    """

    def __init__(self, folder: Path, name: str, *, size: int, backing: str | None = None) -> None:
        for bare in (name, backing):
            if bare is not None and not BARE_NAME.fullmatch(bare):
                raise UnsafeImage(file=name, reason=f"{bare!r} is not the bare name of a file")
        if size % SECTOR or size < 0:
            raise BadRange(offset=0, length=size, what="an image", size=size)
        self.size = size
        self._backing = backing
        self._file = PartialFile(folder / name, direct=True)
        self._lock = threading.Lock()
        self._clusters = 1  # the first is the header's
        self._tables = Tables(size, self, self._allocate)

    @property
    def stored(self) -> int:
        """Bytes of the file so far; the size of the image once it is finished."""
        return self._clusters * CLUSTER

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset` of the disk; clusters of zeroes in it are not stored as data."""
        self._check(offset, len(data))
        if len(data) % CLUSTER:
            data = _padded(data)
        runs = list(zero_runs(data))
        with self._lock:
            pieces = [piece for run in runs for piece in self._place(offset, data, run)]
        for place, views in _joined(pieces):
            self._file.write(place, views)

    def zero(self, offset: int, length: int) -> None:
        """Let a run of the disk read as zeroes."""
        self._check(offset, length)
        with self._lock:
            self._tables.mark_zero(offset // CLUSTER, -(-length // CLUSTER), hide=self._backing is not None)

    def clone(self) -> ImageWriter:
        """Return this writer: it is safe for several threads."""
        return self

    def finish(self) -> None:
        """Write tables and header, make the file durable and give it its name; the writer is closed after this."""
        with self._lock:
            self._tables.flush()
            l1_offset = self._append(big_endian(self._tables.l1)) if self.size else 0
            refcount_offset, refcount_clusters = self._append_refcounts()
        header = Header(
            size=self.size,
            cluster_bits=CLUSTER.bit_length() - 1,
            l1_offset=l1_offset,
            l1_entries=len(self._tables.l1),
            refcount_offset=refcount_offset,
            refcount_clusters=refcount_clusters,
            backing=self._backing,
        )
        self.store(0, pack_header(header))
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
        staging = aligned_buffer(CLUSTER)
        self._file.read(offset, staging)
        return staging.tobytes()

    def _check(self, offset: int, length: int) -> None:
        end = offset + length
        if offset < 0 or offset % CLUSTER or end > self.size or (end % CLUSTER and end != self.size):
            raise BadRange(offset=offset, length=length, what="the image", size=self.size)

    def _place(self, offset: int, data: memoryview, run: tuple[int, int, bool]) -> Iterator[tuple[int, memoryview]]:
        """Find the places of one run of `data`, with what belongs there; nothing for zeroes."""
        start, end, zero = run
        first, count = (offset + start) // CLUSTER, (end - start) // CLUSTER
        if zero:
            self._tables.mark_zero(first, count, hide=self._backing is not None)
            return
        for place, clusters in self._tables.place(first, count):
            yield place, data[start : start + clusters * CLUSTER]
            start += clusters * CLUSTER

    def _allocate(self, clusters: int) -> int:
        offset = self._clusters * CLUSTER
        self._clusters += clusters
        return offset

    def _append(self, data: bytes) -> int:
        """Append `data`, padded to whole clusters; return where."""
        clusters = max(1, -(-len(data) // CLUSTER))
        offset = self._allocate(clusters)
        self.store(offset, data.ljust(clusters * CLUSTER, b"\0"))
        return offset

    def _append_refcounts(self) -> tuple[int, int]:
        """Append refcounts, which are 1 for every cluster of the file; return the place and clusters of their table."""
        blocks, table_clusters = refcount_room(self._clusters)
        left = self._clusters + blocks + table_clusters
        offsets = array("Q")
        for _ in range(blocks):
            here = min(left, CLUSTER // 2)
            offsets.append(self._append(refcount_block(here)))
            left -= here
        return self._append(big_endian(offsets)), table_clusters


def _padded(data: memoryview) -> memoryview:
    """Copy the end of a disk into whole clusters, the rest zeroes."""
    whole = aligned_buffer(align_up(len(data), CLUSTER))
    whole[: len(data)] = data
    return whole


def _joined(pieces: list[tuple[int, memoryview]]) -> Iterator[tuple[int, list[memoryview]]]:
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
