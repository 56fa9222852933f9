# SPDX-License-Identifier: GPL-3.0-or-later
"""The bytes of a QCOW2 file, pure: what its fields are called, and packing what we write.

After the format's description in QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.compression import Compression
from overkeep.units import KIB, TIB

MAGIC = b"QFI\xfb"
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1
SUBCLUSTERS = 32
SECTOR = 512
HEADER_ROOM = 64 * KIB
"""What is read of a file to parse its header: extensions and backing name lie in the first cluster."""

MOST_SIZE = 1024 * TIB
"""Bytes of the largest disk: what is kept in memory for each cluster of a disk is bounded by it."""

HEADER_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
HEADER_V3 = struct.Struct(">QQQII")
"""What version 3 adds: incompatible, compatible and autoclear features, refcount order, length of the header."""

EXTENSION = struct.Struct(">II")
BACKING_FORMAT = 0xE2792ACA

_TYPE = struct.Struct(">B7x")  # how clusters are compressed
_COMPRESSION = 1 << 3

_MOST_NAME = 255
_NOT_FIRST = (".", "-")
_NOWHERE = ("/", ":")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of an image says; offsets and sizes in bytes, `backing` a bare file name.

    What follows `backing` is read from images of others. Ours have the defaults.
    """

    size: int
    cluster_bits: int
    l1_offset: int
    l1_entries: int
    refcount_offset: int
    refcount_clusters: int
    backing: str | None
    version: int = 3
    backing_raw: bool = False
    refcount_order: int = 4
    compression: Compression = Compression.ZLIB
    subclusters: bool = False
    snapshots: int = 0
    snapshots_offset: int = 0
    bitmaps: int = 0
    bitmaps_offset: int = 0
    bitmaps_bytes: int = 0

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def unit(self) -> int:
        """Bytes of the smallest piece of the disk that has a place of its own: a cluster, or one of its 32 parts."""
        return self.cluster // SUBCLUSTERS if self.subclusters else self.cluster

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry of an L2 table."""
        return 16 if self.subclusters else 8

    @property
    def table_entries(self) -> int:
        """Entries of an L2 table."""
        return self.cluster // self.entry_bytes

    @property
    def table_covers(self) -> int:
        """Bytes of the disk that one L2 table describes."""
        return self.cluster * self.table_entries

    @property
    def l1_needed(self) -> int:
        """Entries of the L1 table that describe the disk; there may be more."""
        return -(-self.size // self.table_covers)


def is_bare_name(name: str) -> bool:
    """Whether `name` can be that of an image: of a file in its folder, for us as for QEMU; no path, protocol, option.

    It has 1 to 255 bytes of UTF-8, begins with neither `.` nor `-`, and holds no `/`, no `:`, and nothing that is not
    printable, as line breaks and characters that change the direction of writing.
    """
    if not name.isprintable() or name.startswith(_NOT_FIRST) or any(bad in name for bad in _NOWHERE):
        return False
    return 0 < len(name.encode()) <= _MOST_NAME


def pack_header(header: Header) -> bytes:
    """Make the first cluster of an image of version 3, with the backing format as header extension.

    That its compressed clusters are of zstd is an incompatible feature of QCOW2; zlib is taken for granted.
    """
    extensions = b""
    backing = (header.backing or "").encode()
    if backing:
        form = b"raw" if header.backing_raw else b"qcow2"
        extensions = EXTENSION.pack(BACKING_FORMAT, len(form)) + form.ljust(8, b"\0")
    extensions += EXTENSION.pack(0, 0)
    kind = b"" if header.compression is Compression.ZLIB else _TYPE.pack(header.compression)
    length = HEADER_V2.size + HEADER_V3.size + len(kind)
    backing_at = length + len(extensions) if backing else 0
    packed = HEADER_V2.pack(
        MAGIC,
        3,
        backing_at,
        len(backing),
        header.cluster_bits,
        header.size,
        0,
        header.l1_entries,
        header.l1_offset,
        header.refcount_offset,
        header.refcount_clusters,
        0,
        0,
    ) + HEADER_V3.pack(_COMPRESSION if kind else 0, 0, 0, 4, length)
    return (packed + kind + extensions + backing).ljust(header.cluster, b"\0")


def refcount_room(used: int, cluster: int = CLUSTER) -> tuple[int, int]:
    """Return how many clusters of refcount blocks, and of their table, an image of `used` other clusters needs.

    Refcounts are 16 bits wide and count the blocks and the table themselves as well.
    """
    per_block, per_table = cluster // 2, cluster // 8
    blocks = table = 0
    while True:
        total = used + blocks + table
        new_blocks = -(-total // per_block)
        new_table = -(-new_blocks // per_table)
        if (new_blocks, new_table) == (blocks, table):
            return blocks, table
        blocks, table = new_blocks, new_table
