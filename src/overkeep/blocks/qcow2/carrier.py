# SPDX-License-Identifier: GPL-3.0-or-later
"""An image file that is extended: new tables beside the old ones, and one write of its header that switches to them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.buffers import CLUSTER, aligned_buffer
from overkeep.blocks.files import OutputFile, open_output
from overkeep.blocks.qcow2.held import Values, entries
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.layout import COPIED, OFFSET_MASK, SECTOR, Header, pack_header
from overkeep.blocks.qcow2.refcounts import PER_BLOCK, Outside, Refcounts
from overkeep.blocks.qcow2.space import Space

_V3 = struct.Struct(">QQQII")
_V3_AT, _SNAPSHOTS_AT = 72, 60
_EXTENSION = struct.Struct(">II")
_KNOWN_EXTENSIONS = (0xE2792ACA, 0x6803F857)  # backing format, names of features
_REFCOUNTS_OF_16_BITS = 4
_ENTRIES = CLUSTER // 8

Numbers = NDArray[np.int64]


class Unfit(Exception):
    """The image cannot be a carrier; the text says why."""


def require_plain(image: ImageFile) -> None:
    """Raise `Unfit` unless the header of an image says nothing but what we write ourselves."""
    raw = bytearray(min(CLUSTER, image.file_size))
    image.read_into(0, memoryview(raw))
    if int.from_bytes(raw[4:8]) != 3 or image.header.cluster != CLUSTER:
        raise Unfit("it is not of version 3 with clusters of 64 KiB")
    if int.from_bytes(raw[_SNAPSHOTS_AT : _SNAPSHOTS_AT + 4]):
        raise Unfit("it has internal snapshots")
    incompatible, compatible, ignorable, order, length = _V3.unpack_from(raw, _V3_AT)
    if incompatible or compatible or ignorable or order != _REFCOUNTS_OF_16_BITS:
        raise Unfit("it uses features that we do not")
    if image.header.l1_entries != len(image.l1):
        raise Unfit("its L1 table is larger than its disk")
    _require_known_extensions(bytes(raw), length)


def _require_known_extensions(raw: bytes, at: int) -> None:
    while at + _EXTENSION.size <= len(raw):
        kind, length = _EXTENSION.unpack_from(raw, at)
        if kind == 0:
            return
        if kind not in _KNOWN_EXTENSIONS:
            raise Unfit(f"it has a header extension {kind:#x}")
        at += _EXTENSION.size + -(-length // 8) * 8


class _Old:
    """What the file of a carrier holds before anything is added: `used` clusters, and those of its `tables`."""

    def __init__(self, image: ImageFile, file_clusters: int) -> None:
        self._image = image
        self._counts = Refcounts(file_clusters, most=file_clusters)
        self._single: list[Numbers] = []
        try:
            tables = self._count()
        except Outside as error:
            raise Unfit("it points behind its end") from error
        self._require_single()
        self.used = self._counts.counts > 0
        self.tables = tables

    def _count(self) -> NDArray[np.bool_]:
        """Count everything; return which clusters hold tables."""
        image, header = self._image, self._image.header
        self._claim(np.zeros(1, np.int64))
        self._claim(_run(header.l1_offset, len(image.l1) * 8))
        self._claim(_run(header.refcount_offset, header.refcount_clusters * CLUSTER))
        self._claim(_places(self._read(header.refcount_offset, header.refcount_clusters * CLUSTER)))
        self._claim(_places(np.asarray(image.l1, np.uint64)))
        tables = self._counts.counts > 0
        for index in np.flatnonzero(image.l1):
            self._single.append(self._counts.add_table(entries(image, int(index))))
        return tables

    def _read(self, offset: int, length: int) -> Values:
        raw = bytearray(length)
        self._image.read_into(offset, memoryview(raw))
        return np.frombuffer(raw, ">u8").astype(np.uint64)

    def _claim(self, numbers: Numbers) -> None:
        self._counts.add(numbers)
        self._single.append(np.asarray(numbers, np.int64))

    def _require_single(self) -> None:
        """Nothing of it may be used twice: what one image hides could be what another shows."""
        for numbers in self._single:
            if (self._counts.counts[numbers] != 1).any():
                raise Unfit("it uses a cluster twice")
        self._single = []


class Carrier:
    """The file of `image` in `folder`, opened for writing; not for several threads, its `file` is.

    `file_size` is that of the file before anything was added. Raises `Unfit`, also for an image that is not sound.
    """

    def __init__(self, folder: Path, image: ImageFile, *, file_size: int, disk_size: int) -> None:
        require_plain(image)
        old = _Old(image, -(-file_size // CLUSTER))
        self.image = image
        self.space = Space(old.used)
        self.file: OutputFile = open_output(folder / image.name)
        self._disk_size = disk_size
        self._old_tables = old.tables
        self._counts = Refcounts(len(old.used))
        self._l1 = np.zeros(-(-disk_size // (_ENTRIES * CLUSTER)), np.uint64)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self.file.close()

    def set_table(self, index: int, found: Values, *, write: bool) -> None:
        """Give a stretch of the disk these L2 entries; they are written unless they are durable already."""
        if not found.any():
            return
        old = int(self.image.l1[index]) & OFFSET_MASK if index < len(self.image.l1) else 0
        if old and np.array_equal(found, entries(self.image, index)):
            place = old
        else:
            place = self.space.take_run(1) * CLUSTER
            if write:
                self._store(place, found.astype(">u8").tobytes())
        self._l1[index] = place | COPIED
        self._counts.add([place // CLUSTER])
        self._counts.add_table(found)

    def finish(self, backing: str | None) -> Header:
        """Write L1 table and refcounts and make everything durable; return the header that switches to them."""
        l1_offset = self._take(max(1, -(-len(self._l1) * 8 // CLUSTER)))
        self._store(l1_offset, self._l1.astype(">u8").tobytes())
        table_offset, table_clusters = self._write_refcounts()
        self.file.sync()
        return Header(
            size=self._disk_size,
            cluster_bits=CLUSTER.bit_length() - 1,
            l1_offset=l1_offset,
            l1_entries=len(self._l1),
            refcount_offset=table_offset,
            refcount_clusters=table_clusters,
            backing=backing,
        )

    def give_back(self) -> None:
        """Return to the file system what the new tables do not use; only after the switch.

        The old tables stay until the next merge, for readers that opened the image before this one.
        """
        kept = self._counts.counts[: self.space.end] > 0
        kept[: len(self._old_tables)] |= self._old_tables
        last = int(np.flatnonzero(kept)[-1]) + 1
        self.file.truncate(last * CLUSTER)
        edges = np.flatnonzero(np.diff(np.concatenate([[True], kept[:last], [True]])))
        for first, end in edges.reshape(-1, 2).tolist():
            if not self.file.punch(first * CLUSTER, (end - first) * CLUSTER):
                return
        self.file.sync()

    def _write_refcounts(self) -> tuple[int, int]:
        """Write a table and blocks for all clusters, their own as well; return place and clusters of the table."""
        self._counts.add([0])
        most_blocks = 2 * (-(-self.space.end // PER_BLOCK) + 1)  # they count themselves: more than enough
        table_clusters = -(-most_blocks * 8 // CLUSTER)
        table_offset = self._take(table_clusters)
        blocks: list[int] = []
        while len(blocks) * PER_BLOCK < self.space.end:
            blocks.append(self._take(1))
        for number, place in enumerate(blocks):
            self._store(place, self._counts.block(number))
        self._store(table_offset, np.asarray(blocks, ">u8").tobytes().ljust(table_clusters * CLUSTER, b"\0"))
        return table_offset, table_clusters

    def _take(self, clusters: int) -> int:
        first = self.space.take_run(clusters)
        self._counts.add(list(range(first, first + clusters)))
        return first * CLUSTER

    def _store(self, offset: int, data: bytes) -> None:
        staging = aligned_buffer(-(-len(data) // CLUSTER) * CLUSTER)
        staging[: len(data)] = data
        self.file.write(offset, [staging])


def switch(file: OutputFile, header: Header) -> None:
    """Let `header` hold, by one write of one sector, and make that durable.

    All of it fits: a backing name has at most 255 characters.
    """
    sector = aligned_buffer(SECTOR)
    sector[:] = pack_header(header)[:SECTOR]
    file.write(0, [sector])
    file.sync()


def _run(offset: int, length: int) -> Numbers:
    return np.arange(offset // CLUSTER, -(-(offset + length) // CLUSTER), dtype=np.int64)


def _places(found: Values) -> Numbers:
    places = found & np.uint64(OFFSET_MASK)
    numbers: Numbers = (places[places != 0] // np.uint64(CLUSTER)).astype(np.int64)
    return numbers
