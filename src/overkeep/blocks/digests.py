# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests of guest clusters, made while a disk is copied and kept beside its image (docs/format/1.md, "Digests")."""

from __future__ import annotations

import os
import struct
import sys
import threading
from array import array
from functools import lru_cache
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.errors import BadRange, DigestsDamaged, on_target
from overkeep.blocks.files import PartialFile, open_regular
from overkeep.blocks.hashing import DIGEST, KINDS, ZERO, Hashing

ABSENT = bytes(DIGEST)
"""The image does not hold the cluster; its backing image tells."""

Row = NDArray[np.uint64]
"""Digests of clusters in a row: one line of two numbers each."""

PER_PAGE = 256
_PAGE = PER_PAGE * DIGEST
_PAGE_COVERS = PER_PAGE * CLUSTER
_MAGIC = b"OVKSUMS\0"
_VERSION = 1
_HEADER = struct.Struct("<8sIIIIQQQ16s")
_SIGNED = _HEADER.size - DIGEST
_KEY_AT = _HEADER.size
_ZERO_PAGE = ZERO * PER_PAGE
_ABSENT_PAGE = ABSENT * PER_PAGE
_MOST_RESIDENT = 4096  # 16 MiB of pages, of 64 GiB of the disk

SUMS_SUFFIX = ".sums"


def sums_name(image: str) -> str:
    """Name of the file of digests that belongs to an image."""
    return image.removesuffix(".qcow2") + SUMS_SUFFIX


def row(digests: bytes) -> Row:
    """The same digests as lines of an array, to compare them."""
    return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)


@lru_cache(maxsize=64)
def zero_row(count: int) -> Row:
    """Digests of `count` clusters of zeroes."""
    return np.broadcast_to(row(ZERO), (count, 2))


class DigestWriter:
    """Makes one file of digests, `<final>.partial` until `finish`. Safe for several threads.

    `size` is the disk's in bytes; `hashing` makes the digests that are put. Clusters that never are stay absent. Pages
    stay in memory until many can be written at once: a call for each piece of a copy would cost an NFS target more than
    the data.
    """

    def __init__(self, final: Path, *, size: int, hashing: Hashing) -> None:
        self.hashing = hashing
        self._size = size
        self._places = array("I", bytes(4 * -(-size // _PAGE_COVERS)))
        self._used = 1  # the first page is the header's
        self._resident: dict[int, bytearray] = {}
        self._lock = threading.Lock()
        self._file = PartialFile(final)

    def put(self, first: int, digests: bytes) -> None:
        """Keep `digests`, of the clusters from number `first` on."""
        at = 0
        with self._lock:
            while at < len(digests):
                index, slot = divmod(first, PER_PAGE)
                piece = digests[at : at + (PER_PAGE - slot) * DIGEST]
                self._page(index)[slot * DIGEST : slot * DIGEST + len(piece)] = piece
                first += len(piece) // DIGEST
                at += len(piece)

    def put_zeroes(self, first: int, count: int) -> None:
        """Keep that `count` clusters from number `first` on read as zeroes."""
        while count:
            step = min(count, PER_PAGE - first % PER_PAGE)
            self.put(first, _ZERO_PAGE[: step * DIGEST])
            first, count = first + step, count - step

    def forget(self, first: int, count: int) -> None:
        """Make clusters absent again, where they are not."""
        while count:
            step = min(count, PER_PAGE - first % PER_PAGE)
            index = first // PER_PAGE
            if self._places[index] or index in self._resident:
                self.put(first, ABSENT * step)
            first, count = first + step, count - step

    def finish(self) -> None:
        """Write index and header, make the file durable and give it its name."""
        with self._lock:
            self._write_out(len(self._resident))
        index = _little_endian(self._places)
        index_at = self._used * _PAGE
        fields = (_MAGIC, _VERSION, CLUSTER, self.hashing.kind, PER_PAGE, self._size, index_at, len(self._places))
        signed = _HEADER.pack(*fields, ABSENT)[:_SIGNED]
        seal = _seal(signed, index, self.hashing.key)
        if index:
            self._file.write(index_at, [memoryview(index)])
        else:
            self._file.truncate(index_at)
        self._file.write(0, [memoryview(signed + seal + self.hashing.key)])
        self._file.publish()

    def close(self) -> None:
        """Remove the unfinished file; nothing happens when it is finished."""
        self._file.discard()

    def _page(self, index: int) -> bytearray:
        page = self._resident.get(index)
        if page is None:
            if len(self._resident) >= _MOST_RESIDENT:
                self._write_out(_MOST_RESIDENT // 2)
            page = bytearray(_PAGE)
            if self._places[index]:
                self._file.read(self._places[index] * _PAGE, memoryview(page))
            self._resident[index] = page
        return page

    def _write_out(self, count: int) -> None:
        """Write the `count` pages that came first, those without a place one behind the other."""
        new: list[memoryview] = []
        start = self._used
        for index in list(self._resident)[:count]:
            page = memoryview(self._resident.pop(index))
            if self._places[index]:
                self._file.write(self._places[index] * _PAGE, [page])
            else:
                self._places[index] = self._used
                self._used += 1
                new.append(page)
        self._file.write(start * _PAGE, new)


class Digests:
    """The digests of one image, read page by page. Safe for several threads.

    Raises `DigestsDamaged` for a file that is not one of digests of a disk, and the typed errors of the target.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = open_regular(path)
        try:
            self._load()
        except BaseException:
            self.close()
            raise
        self._loaded = (-1, b"")  # the page that was used last: a disk is gone through in order

    def _load(self) -> None:
        header = self._read(0, _HEADER.size)
        if len(header) < _HEADER.size or header[: len(_MAGIC)] != _MAGIC:
            raise self._damaged("it is not a finished file of digests")
        _, version, cluster, kind, per_page, self.size, index_at, entries, seal = _HEADER.unpack(header)
        made_by = KINDS.get(kind)
        if (version, cluster, per_page) != (_VERSION, CLUSTER, PER_PAGE) or made_by is None:
            raise self._damaged("it is of a kind that this release does not know")
        with on_target(self._path):
            file_size = os.fstat(self._handle).st_size
        # of a disk of 0 bytes there is no index, and earlier releases let the file end before its place
        ends_early = bool(entries) and index_at + 4 * entries != file_size
        if entries != -(-self.size // _PAGE_COVERS) or ends_early:
            raise self._damaged("its size is not what its header says")
        index = self._read(index_at, 4 * entries)
        key = self._read(_KEY_AT, made_by.key_size)
        if _seal(header[:_SIGNED], index, key) != seal:
            raise self._damaged("its index is not what was written")
        self.hashing = made_by(key)
        self._pages = _from_little_endian(index)

    @property
    def clusters(self) -> int:
        """Clusters of the disk."""
        return -(-int(self.size) // CLUSTER)

    def of(self, cluster: int) -> bytes:
        """Digest of cluster number `cluster`, or `ABSENT`."""
        return self.range(cluster, 1).tobytes()

    def range(self, first: int, count: int) -> Row:
        """Digests of `count` clusters from number `first` on; those behind the end of the disk are absent."""
        parts = []
        while count:
            index, slot = divmod(first, PER_PAGE)
            step = min(count, PER_PAGE - slot)
            parts.append(self._page(index)[slot * DIGEST : (slot + step) * DIGEST])
            first, count = first + step, count - step
        return row(b"".join(parts))

    def next_held(self, first: int) -> int:
        """Number of the first cluster from `first` on whose page is there, or of the first behind the disk."""
        index = first // PER_PAGE
        if index < len(self._pages) and not self._pages[index]:
            later = np.flatnonzero(np.frombuffer(self._pages, dtype=np.uint32)[index:])
            return (index + int(later[0])) * PER_PAGE if later.size else self.clusters
        return min(first, self.clusters)

    def close(self) -> None:
        """Close the file; may be called twice."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _page(self, index: int) -> bytes:
        if index >= len(self._pages) or not self._pages[index]:
            return _ABSENT_PAGE
        loaded, page = self._loaded
        if loaded != index:
            page = self._read(self._pages[index] * _PAGE, _PAGE)
            if len(page) != _PAGE:
                raise self._damaged(f"the page of cluster {index * PER_PAGE} is not there")
            self._loaded = (index, page)
        return page

    def _read(self, offset: int, length: int) -> bytes:
        """Read `length` bytes, fewer only where the file ends."""
        found = b""
        with on_target(self._path):
            while len(found) < length and (more := os.pread(self._handle, length - len(found), offset + len(found))):
                found += more
        return found

    def _damaged(self, reason: str) -> DigestsDamaged:
        return DigestsDamaged(file=self._path.name, reason=reason)


def _seal(signed: bytes, index: bytes, key: bytes) -> bytes:
    return blake3(signed).update(index).update(key).digest(DIGEST)


def check_range(offset: int, length: int, size: int) -> tuple[int, int]:
    """Return number of the first cluster and count of clusters; raise `BadRange` unless they are whole ones."""
    end = offset + length
    if offset < 0 or offset % CLUSTER or end > size or (end % CLUSTER and end != size):
        raise BadRange(offset=offset, length=length, what="the disk", size=size)
    return offset // CLUSTER, -(-length // CLUSTER)


def _little_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers = array("I", numbers)
        numbers.byteswap()
    return numbers.tobytes()


def _from_little_endian(data: bytes) -> array[int]:
    numbers = array("I", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
