# SPDX-License-Identifier: GPL-3.0-or-later
"""One QCOW2 file of a chain, open for reading: its header and its tables, every offset checked before it is used."""

from __future__ import annotations

import os
import threading
import zlib
from array import array
from collections import OrderedDict
from pathlib import Path

from overkeep.blocks.errors import ImageDamaged, UnsafeImage, on_target
from overkeep.blocks.files import open_regular
from overkeep.blocks.qcow2.layout import (
    BARE_NAME,
    HEADER_ROOM,
    OFFSET_MASK,
    compressed_place,
    parse_header,
)
from overkeep.blocks.qcow2.tables import from_big_endian

_CACHED_TABLES = 16  # 1 MiB of memory for each image of a chain, which covers 8 GiB of it


class ImageFile:
    """One image file. Safe for several threads; reading is `pread` only.

    Raises `UnsafeImage` for what is not a regular file in the folder, `ImageDamaged` or `ImageUnsupported` for what is
    not a sound image, and the typed errors of the target.
    """

    def __init__(self, folder: Path, name: str) -> None:
        if not BARE_NAME.fullmatch(name):
            raise UnsafeImage(file=name, reason="that is not the bare name of a file")
        self.name = name
        self._path = folder / name
        self._handle = open_regular(self._path)
        try:
            self._load_header()
        except BaseException:
            self.close()
            raise
        self._lock = threading.Lock()
        self._tables: OrderedDict[int, array[int]] = OrderedDict()

    def _load_header(self) -> None:
        with on_target(self._path):
            self.file_size = os.fstat(self._handle).st_size
        room = self._read(0, min(HEADER_ROOM, self.file_size))
        self.header = parse_header(room, self.file_size, file=self.name)
        needed = -(-self.header.size // self.header.table_covers)
        self.l1 = from_big_endian(self._read(self.header.l1_offset, needed * 8))

    def close(self) -> None:
        """Close the file; may be called twice."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def table(self, index: int) -> array[int] | None:
        """The L2 table for the `index`-th stretch of the disk, or None when there is none."""
        offset = self.l1[index] & OFFSET_MASK
        if not offset:
            return None
        with self._lock:
            table = self._tables.get(index)
            if table is not None:
                self._tables.move_to_end(index)
                return table
        self.check_place(offset)
        table = from_big_endian(self._read(offset, self.header.cluster))
        with self._lock:
            self._tables[index] = table
            while len(self._tables) > _CACHED_TABLES:
                self._tables.popitem(last=False)
        return table

    def check_place(self, offset: int, length: int = 0) -> None:
        """Raise `ImageDamaged` unless `length` bytes (a cluster, if 0) at `offset` are whole clusters of the file."""
        cluster = self.header.cluster
        if offset % cluster or not cluster <= offset <= self.file_size - (length or cluster):
            reason = f"it points to offset {offset}, outside of its {self.file_size} bytes"
            raise ImageDamaged(file=self.name, reason=reason)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` of the file."""
        while buffer:
            with on_target(self._path):
                done = os.preadv(self._handle, [buffer], offset)
            if not done:
                raise ImageDamaged(file=self.name, reason=f"it ends at {offset}, before its data")
            offset += done
            buffer = buffer[done:]

    def inflate(self, entry: int) -> bytes:
        """Return the content of a compressed cluster; `entry` is its L2 entry."""
        offset, length = compressed_place(entry, self.header.cluster_bits)
        length = min(length, self.file_size - offset)
        if length <= 0 or offset < self.header.cluster:
            raise ImageDamaged(file=self.name, reason=f"a compressed cluster is said to be at {offset}")
        unpacker = zlib.decompressobj(-15)
        try:
            content = unpacker.decompress(self._read(offset, length), self.header.cluster)
        except zlib.error as error:
            raise ImageDamaged(file=self.name, reason=f"the compressed cluster at {offset} is broken") from error
        if len(content) != self.header.cluster:
            raise ImageDamaged(file=self.name, reason=f"the compressed cluster at {offset} is too short")
        return content

    def _read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)
