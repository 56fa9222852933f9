# SPDX-License-Identifier: GPL-3.0-or-later
"""The bytes of a QCOW2 file, pure: packing what we write, parsing what anybody may have written.

After the format's description in QEMU, docs/interop/qcow2.txt. Parsing trusts nothing: every size and offset is checked
against the file before it is used.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.errors import ImageDamaged, ImageUnsupported, UnsafeImage
from overkeep.units import KIB, MIB, TIB, align_up

MAGIC = b"QFI\xfb"
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1
SECTOR = 512
HEADER_ROOM = 64 * KIB
"""What is read of a file to parse its header: extensions and backing name lie in the first cluster."""

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_TYPE = struct.Struct(">B7x")  # how clusters are compressed: 0 zlib, 1 zstd
_ZSTD = 1 << 3
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_INCOMPATIBLE = {2: "an external data file", 3: "compression other than zlib", 4: "subclusters (extended L2 entries)"}
_DIRTY, _CORRUPT = 1 << 0, 1 << 1
_MOST_L1_BYTES = 32 * MIB  # QEMU's own limit
_MOST_SIZE = 1024 * TIB
_MOST_BACKING_NAME = 1023

BARE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
"""What a backing name may be: no path, no protocol, no option."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of an image says; offsets and sizes in bytes, `backing` a bare file name."""

    size: int
    cluster_bits: int
    l1_offset: int
    l1_entries: int
    refcount_offset: int
    refcount_clusters: int
    backing: str | None

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def table_entries(self) -> int:
        """Entries of an L2 table."""
        return self.cluster // 8

    @property
    def table_covers(self) -> int:
        """Bytes of the disk that one L2 table describes."""
        return self.cluster * self.table_entries


def pack_header(header: Header, *, zstd: bool = False) -> bytes:
    """Make the first cluster of an image of version 3, with the backing format as header extension.

    With `zstd` the header says that compressed clusters are, which is an incompatible feature of QCOW2.
    """
    extensions = b""
    backing = (header.backing or "").encode()
    if backing:
        extensions = _EXTENSION.pack(_BACKING_FORMAT, 5) + b"qcow2".ljust(8, b"\0")
    extensions += _EXTENSION.pack(0, 0)
    kind = _TYPE.pack(1) if zstd else b""
    length = _V2.size + _V3.size + len(kind)
    backing_at = length + len(extensions) if backing else 0
    packed = _V2.pack(
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
    ) + _V3.pack(_ZSTD if zstd else 0, 0, 0, 4, length)
    return (packed + kind + extensions + backing).ljust(header.cluster, b"\0")


def parse_header(data: bytes, file_size: int, *, file: str) -> Header:
    """Parse the beginning of an image whose whole file has `file_size` bytes; `file` is its name, for errors.

    Raises `ImageDamaged`, `ImageUnsupported` or `UnsafeImage`.
    """
    if len(data) < _V2.size or data[:4] != MAGIC:
        raise ImageDamaged(file=file, reason="it is not a finished QCOW2 file")
    (_, version, backing_at, backing_length, bits, size, crypt, l1_entries, l1_at, ref_at, ref_clusters, _, _) = (
        _V2.unpack_from(data)
    )
    if crypt:
        raise ImageUnsupported(file=file, feature="encryption")
    header_length = _check_features(data, version, file)
    header = Header(
        size=size,
        cluster_bits=bits,
        l1_offset=l1_at,
        l1_entries=l1_entries,
        refcount_offset=ref_at,
        refcount_clusters=ref_clusters,
        backing=_backing(data, backing_at, backing_length, file) if backing_at else None,
    )
    _check_bounds(header, file_size, file)
    if header.backing and _backing_format(data, header_length, backing_at, file) not in (None, b"qcow2"):
        raise UnsafeImage(file=file, reason="its backing file is said not to be QCOW2")
    return header


def _check_features(data: bytes, version: int, file: str) -> int:
    """Refuse what cannot be read rightly; return the length of the header."""
    if version == 2:
        return _V2.size
    if version != 3:
        raise ImageUnsupported(file=file, feature=f"QCOW2 version {version}")
    if len(data) < _V2.size + _V3.size:
        raise ImageDamaged(file=file, reason="its header is cut off")
    incompatible, _, _, _, length = _V3.unpack_from(data, _V2.size)
    if incompatible & _CORRUPT:
        raise ImageDamaged(file=file, reason="it is marked as corrupt")
    for bit in range(64):
        if incompatible & ~(_DIRTY | _CORRUPT) & (1 << bit):
            raise ImageUnsupported(file=file, feature=_INCOMPATIBLE.get(bit, f"unknown incompatible feature {bit}"))
    if not _V2.size + _V3.size <= length <= len(data) or length % 8:
        raise ImageDamaged(file=file, reason=f"its header says it is {length} bytes long")
    return int(length)


def _check_bounds(header: Header, file_size: int, file: str) -> None:
    if not 9 <= header.cluster_bits <= 21:
        raise ImageDamaged(file=file, reason=f"clusters of 2^{header.cluster_bits} bytes are not possible")
    if header.size > _MOST_SIZE:
        raise ImageDamaged(file=file, reason=f"a disk of {header.size} bytes is above the limit of {_MOST_SIZE}")
    needed = -(-header.size // header.table_covers)
    if header.l1_entries < needed or header.l1_entries * 8 > _MOST_L1_BYTES:
        reason = f"its L1 table has {header.l1_entries} entries where {needed} are needed"
        raise ImageDamaged(file=file, reason=reason)
    tables = (
        ("L1", header.l1_offset, header.l1_entries * 8),
        ("refcount", header.refcount_offset, header.refcount_clusters * header.cluster),
    )
    for name, offset, length in tables:
        if length and (offset % header.cluster or not header.cluster <= offset <= file_size - length):
            reason = f"its {name} table ({length} bytes at {offset}) does not lie in the file of {file_size} bytes"
            raise ImageDamaged(file=file, reason=reason)


def _backing(data: bytes, offset: int, length: int, file: str) -> str:
    if not 0 < length <= _MOST_BACKING_NAME or offset + length > len(data):
        raise ImageDamaged(file=file, reason="its backing file name does not lie in the first cluster")
    name = data[offset : offset + length].decode(errors="backslashreplace")
    if not BARE_NAME.fullmatch(name):
        raise UnsafeImage(file=file, reason=f"its backing file is {name!r}")
    return name


def _backing_format(data: bytes, start: int, end: int, file: str) -> bytes | None:
    """Find the extension with the backing format in the room between header and backing name."""
    while start + _EXTENSION.size <= end:
        kind, length = _EXTENSION.unpack_from(data, start)
        start += _EXTENSION.size
        if kind == 0:
            return None
        if start + length > end:
            raise ImageDamaged(file=file, reason="its header extensions are cut off")
        if kind == _BACKING_FORMAT:
            return data[start : start + length]
        start += align_up(length, 8)
    return None


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


def compressed_place(entry: int, cluster_bits: int) -> tuple[int, int]:
    """Return offset and greatest length of the compressed cluster an L2 entry names."""
    shift = 62 - (cluster_bits - 8)
    offset = entry & ((1 << shift) - 1)
    sectors = ((entry & ~(COPIED | COMPRESSED)) >> shift) + 1
    return offset, sectors * SECTOR - offset % SECTOR
