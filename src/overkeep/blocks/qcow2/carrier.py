# SPDX-License-Identifier: GPL-3.0-or-later
"""An image file that is extended: new tables beside the old ones, and one write of its header that switches to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from overkeep.blocks.buffers import CLUSTER, aligned_buffer
from overkeep.blocks.compression import Compression
from overkeep.blocks.files import OutputFile, open_output
from overkeep.blocks.flags import runs
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, SECTOR, Header, pack_header
from overkeep.blocks.qcow2.refcounts import Outside, Refcounts
from overkeep.blocks.qcow2.runs import Bools, Signed, Unsigned
from overkeep.blocks.qcow2.space import Space

_REFCOUNTS_OF_16_BITS = 4


class Unfit(Exception):
    """The image cannot be a carrier; the text says why."""


def is_plain(header: Header) -> bool:
    """Whether the image is of a form in which we write ourselves, and holds nothing but a disk that is not empty."""
    ours = header.version == 3 and header.cluster >= CLUSTER and header.refcount_order == _REFCOUNTS_OF_16_BITS
    more = header.subclusters or header.snapshots or header.bitmaps or header.l1_entries != header.l1_needed
    return ours and not more and header.size > 0


class _Old:
    """What the file of a carrier holds before anything is added: `used` clusters, and those of its `tables`."""

    def __init__(self, image: ImageFile, file_clusters: int) -> None:
        self._image = image
        self._counts = Refcounts(file_clusters, size=image.header.cluster, most=file_clusters)
        self._single = np.zeros(file_clusters, np.bool_)
        self.packed = False
        try:
            self.tables = self._count_tables()
            self._count_data()
        except Outside as error:
            raise Unfit("it points behind its end") from error
        self._require_single()
        self.used: Bools = self._counts.counts > 0

    def _count_tables(self) -> Bools:
        image, header = self._image, self._image.header
        refcounts_bytes = header.refcount_clusters * header.cluster
        self._claim(np.zeros(1, np.int64))
        self._claim(_run(header.l1_offset, header.l1_entries * 8, header.cluster))
        self._claim(_run(header.refcount_offset, refcounts_bytes, header.cluster))
        raw = bytearray(refcounts_bytes)
        image.read_into(header.refcount_offset, memoryview(raw))
        self._single[self._counts.add_places(np.frombuffer(raw, ">u8").astype(np.uint64))] = True
        self._single[self._counts.add_places(image.l1)] = True
        return self._counts.counts > 0

    def _count_data(self) -> None:
        for index in np.flatnonzero(self._image.l1).tolist():
            table = self._image.table(index)
            assert table is not None
            self.packed = self.packed or bool((table & np.uint64(COMPRESSED)).any())
            self._single[self._counts.add_table(table)] = True

    def _claim(self, numbers: Signed) -> None:
        self._counts.add(numbers)
        self._single[numbers] = True

    def _require_single(self) -> None:
        """Nothing of it may be used twice: what one image hides could be what another shows."""
        if ((self._counts.counts != 1) & self._single).any():
            raise Unfit("it uses a cluster twice")


class Carrier:
    """The file of `image` in `folder`, opened for writing; not for several threads, its `file` is.

    `file_size` is that of the file before anything was added. Raises `Unfit`, also for an image that is not sound.
    """

    def __init__(self, folder: Path, image: ImageFile, *, file_size: int, disk_size: int) -> None:
        if not is_plain(image.header):
            raise Unfit("it is of another form than ours")
        self.cluster = image.header.cluster
        old = _Old(image, -(-file_size // self.cluster))
        self.image = image
        self.packed = old.packed
        self.space = Space(old.used)
        self.file: OutputFile = open_output(folder / image.name)
        self._disk_size = disk_size
        self._old_tables = old.tables
        self._counts = Refcounts(2 * len(old.used), size=self.cluster)  # what is not used of it takes no memory
        self._l1 = np.zeros(-(-disk_size // image.header.table_covers), np.uint64)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self.file.close()

    def old_table(self, index: int) -> Unsigned:
        """An L2 table as it was before, zeroes when there is none."""
        table = self.image.table(index) if index < len(self.image.l1) else None
        return np.zeros(self.image.header.table_entries, np.uint64) if table is None else table

    def set_table(self, index: int, found: Unsigned, *, write: bool) -> None:
        """Give the disk this L2 table in place of the old one; it is written unless it is durable already."""
        if not found.any():
            return
        old = int(self.image.l1[index]) if index < len(self.image.l1) else 0
        if old and np.array_equal(found, self.old_table(index)):
            place = old
        else:
            place = self.space.take_run(1) * self.cluster
            if write:
                self._store(place, found.astype(">u8").tobytes())
        self._l1[index] = place | COPIED
        self._counts.add(range(place // self.cluster, place // self.cluster + 1))
        self._counts.add_table(found)

    def finish(self, *, backing: str | None, backing_raw: bool, compression: Compression) -> Header:
        """Write L1 table and refcounts and make everything durable; return the header that switches to them."""
        l1_offset = self._take(max(1, -(-len(self._l1) * 8 // self.cluster)))
        self._store(l1_offset, self._l1.astype(">u8").tobytes())
        refcount_offset, refcount_clusters = self._write_refcounts()
        self.file.sync()
        return replace(
            self.image.header,
            size=self._disk_size,
            l1_offset=l1_offset,
            l1_entries=len(self._l1),
            refcount_offset=refcount_offset,
            refcount_clusters=refcount_clusters,
            backing=backing,
            backing_raw=backing_raw,
            compression=compression,
        )

    def give_back(self) -> None:
        """Return to the file system what the new tables do not use; only after the switch.

        The old tables stay until the next merge, for readers that opened the image before this one.
        """
        free = self._counts.counts[: self.space.end] == 0
        free[: len(self._old_tables)][self._old_tables] = False
        last = len(free) - int(np.argmin(free[::-1]))
        self.file.truncate(last * self.cluster)
        for first, end in runs(free[:last]):
            if not self.file.punch(first * self.cluster, (end - first) * self.cluster):
                break
        self.file.sync()

    def _write_refcounts(self) -> tuple[int, int]:
        """Write a table and blocks for all clusters, their own as well; return place and clusters of the table."""
        self._counts.add(range(1))
        per_block = self._counts.per_block
        most_blocks = 2 * (-(-self.space.end // per_block) + 1)  # they count themselves: more than enough
        table_clusters = -(-most_blocks * 8 // self.cluster)
        table_offset = self._take(table_clusters)
        blocks: list[int] = []
        while len(blocks) * per_block < self.space.end:
            blocks.append(self._take(1))
        for number, place in enumerate(blocks):
            self._store(place, self._counts.block(number))
        self._store(table_offset, np.asarray(blocks, ">u8").tobytes().ljust(table_clusters * self.cluster, b"\0"))
        return table_offset, table_clusters

    def _take(self, clusters: int) -> int:
        first = self.space.take_run(clusters)
        self._counts.add(range(first, first + clusters))
        return first * self.cluster

    def _store(self, offset: int, data: bytes) -> None:
        staging = aligned_buffer(-(-len(data) // self.cluster) * self.cluster)
        staging[: len(data)] = data
        self.file.write(offset, [staging])


def switch(file: OutputFile, header: Header) -> None:
    """Let `header` hold, by one write of one sector, and make that durable.

    All of it fits: a backing name has at most 255 characters.
    """
    sector = aligned_buffer(SECTOR)
    sector[:] = beginning(header)
    file.write(0, [sector])
    file.sync()


def beginning(header: Header) -> bytes:
    """What a switch to `header` writes."""
    return pack_header(header)[:SECTOR]


def repeat_switch(path: Path) -> None:
    """Write the header of an image again and sync it: whether that was done before, nobody knows."""
    file = open_output(path)
    try:
        sector = aligned_buffer(SECTOR)
        file.read(0, sector)
        file.write(0, [sector])
        file.sync()
    finally:
        file.close()


def places_of(entries: Unsigned) -> Signed:
    """Offsets of data that lie there as they are, by L2 entry; zero for all others."""
    plain = entries & np.uint64(COMPRESSED | 1) == 0
    found: Signed = np.where(plain, entries & np.uint64(OFFSET_MASK), np.uint64(0)).astype(np.int64)
    return found


def _run(offset: int, length: int, cluster: int) -> Signed:
    return np.arange(offset // cluster, -(-(offset + length) // cluster), dtype=np.int64)
