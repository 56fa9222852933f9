# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers of images that anybody may have written: every size and offset is checked against the file before use.

Also of hostile ones: nothing here touches a file, and a backing name is compared as text, never looked up.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from overkeep.blocks.compression import Compression
from overkeep.blocks.errors import ImageDamaged, ImageTooLarge, ImageUnsupported, UnsafeImage
from overkeep.blocks.qcow2.layout import (
    BACKING_FORMAT,
    EXTENSION,
    HEADER_V2,
    HEADER_V3,
    MAGIC,
    MOST_SIZE,
    Header,
    is_bare_name,
)
from overkeep.units import MIB, align_up

_BITMAPS = 0x23852875
_BITMAPS_FIELDS = struct.Struct(">IIQQ")
_MOST_BITMAPS = 65535
_INCOMPATIBLE = {2: "an external data file"}
_DIRTY, _CORRUPT, _COMPRESSION, _SUBCLUSTERS = 1 << 0, 1 << 1, 1 << 3, 1 << 4
_AUTOCLEAR_BITMAPS = 1 << 0
_SMALLEST_CLUSTER_BITS, _LARGEST_CLUSTER_BITS = 9, 21
_SMALLEST_SUBCLUSTERED_BITS = 14  # a subcluster has at least 512 bytes
_MOST_REFCOUNT_ORDER = 6
_MOST_L1_BYTES = 32 * MIB  # QEMU's own limit, as the next one
_MOST_REFCOUNT_TABLE_BYTES = 8 * MIB
_MOST_BACKING_NAME = 1023
_PROTOCOL = re.compile(r"[^/]*:")


@dataclass(frozen=True)
class _Features:
    """What version 3 adds to the header; the defaults are what version 2 means."""

    length: int = HEADER_V2.size
    refcount_order: int = 4
    compression: Compression = Compression.ZLIB
    subclusters: bool = False
    bitmaps: bool = False


@dataclass(frozen=True)
class _Extensions:
    backing_format: bytes | None = None
    bitmaps: tuple[int, int, int] = (0, 0, 0)  # how many, bytes and offset of their directory


def parse_header(data: bytes, file_size: int, *, file: str, folders: Sequence[str] = ()) -> Header:
    """Parse the beginning of an image whose whole file has `file_size` bytes; `file` is its name, for errors.

    `folders` are the paths by which the image's folder is known: its backing file must lie in that.

    Raises `ImageDamaged`, `ImageUnsupported` or `UnsafeImage`.
    """
    if len(data) < HEADER_V2.size or data[:4] != MAGIC:
        raise ImageDamaged(file=file, reason="it is not a finished QCOW2 file")
    (_, version, backing_at, backing_length, bits, size, crypt, *tables) = HEADER_V2.unpack_from(data)
    l1_entries, l1_at, refcount_at, refcount_clusters, snapshots, snapshots_at = tables
    if crypt:
        raise ImageUnsupported(file=file, feature="encryption")
    if not _SMALLEST_CLUSTER_BITS <= bits <= _LARGEST_CLUSTER_BITS:
        raise ImageDamaged(file=file, reason=f"clusters of 2^{bits} bytes are not possible")
    room = data[: 1 << bits]
    features = _features(room, version, file)
    extensions = _extensions(room[features.length : backing_at or len(room)], features, file)
    backing = _backing(room, slice(backing_at, backing_at + backing_length), file, folders) if backing_at else None
    header = Header(
        size=size,
        cluster_bits=bits,
        l1_offset=l1_at,
        l1_entries=l1_entries,
        refcount_offset=refcount_at,
        refcount_clusters=refcount_clusters,
        backing=backing,
        version=version,
        backing_raw=bool(backing) and _is_raw(extensions.backing_format, file),
        refcount_order=features.refcount_order,
        compression=features.compression,
        subclusters=features.subclusters,
        snapshots=snapshots,
        snapshots_offset=snapshots_at,
        bitmaps=extensions.bitmaps[0],
        bitmaps_bytes=extensions.bitmaps[1],
        bitmaps_offset=extensions.bitmaps[2],
    )
    _check_bounds(header, file_size, file)
    return header


def _features(data: bytes, version: int, file: str) -> _Features:
    """Refuse what cannot be read rightly, and find what version 3 has to say."""
    if version == 2:
        return _Features()
    if version != 3:
        raise ImageUnsupported(file=file, feature=f"QCOW2 version {version}")
    if len(data) < HEADER_V2.size + HEADER_V3.size:
        raise ImageDamaged(file=file, reason="its header is cut off")
    incompatible, _, autoclear, refcount_order, length = HEADER_V3.unpack_from(data, HEADER_V2.size)
    _check_incompatible(incompatible, file)
    if not HEADER_V2.size + HEADER_V3.size <= length <= len(data) or length % 8:
        raise ImageDamaged(file=file, reason=f"its header says it is {length} bytes long")
    if refcount_order > _MOST_REFCOUNT_ORDER:
        raise ImageDamaged(file=file, reason=f"refcounts of 2^{refcount_order} bits are not possible")
    return _Features(
        length=length,
        refcount_order=refcount_order,
        compression=_compression(data[HEADER_V2.size + HEADER_V3.size : length], incompatible, file),
        subclusters=bool(incompatible & _SUBCLUSTERS),
        bitmaps=bool(autoclear & _AUTOCLEAR_BITMAPS),
    )


def _check_incompatible(features: int, file: str) -> None:
    if features & _CORRUPT:
        raise ImageDamaged(file=file, reason="it is marked as corrupt")
    unread = features & ~(_DIRTY | _CORRUPT | _COMPRESSION | _SUBCLUSTERS)
    if unread:
        bit = (unread & -unread).bit_length() - 1
        raise ImageUnsupported(file=file, feature=_INCOMPATIBLE.get(bit, f"unknown incompatible feature {bit}"))


def _compression(additional: bytes, incompatible: int, file: str) -> Compression:
    """The type of compression, the first byte behind the fields that every header of version 3 has."""
    kind = additional[0] if additional else 0
    if kind not in [int(known) for known in Compression]:
        raise ImageUnsupported(file=file, feature=f"unknown compression {kind}")
    if (kind != Compression.ZLIB) != bool(incompatible & _COMPRESSION):
        raise ImageDamaged(file=file, reason="its compression type and its feature bits contradict one another")
    return Compression(kind)


def _extensions(area: bytes, features: _Features, file: str) -> _Extensions:
    backing_format, bitmaps = None, (0, 0, 0)
    for kind, content in _each_extension(area, file):
        if kind == BACKING_FORMAT:
            backing_format = content
        elif kind == _BITMAPS and features.bitmaps:  # without the bit another program has changed the image since
            if len(content) != _BITMAPS_FIELDS.size or content[:4] > _MOST_BITMAPS.to_bytes(4, "big"):
                raise ImageDamaged(file=file, reason="its header extension about bitmaps is broken")
            number, _, length, offset = _BITMAPS_FIELDS.unpack(content)
            bitmaps = (number, length, offset)
    return _Extensions(backing_format, bitmaps)


def _each_extension(area: bytes, file: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the extensions in the room between header and backing name."""
    start = 0
    while start + EXTENSION.size <= len(area):
        kind, length = EXTENSION.unpack_from(area, start)
        start += EXTENSION.size
        if kind == 0:
            return
        if start + length > len(area):
            raise ImageDamaged(file=file, reason="its header extensions are cut off")
        yield kind, area[start : start + length]
        start += align_up(length, 8)


def _backing(data: bytes, place: slice, file: str, folders: Sequence[str]) -> str:
    length = place.stop - place.start
    if not 0 < length <= _MOST_BACKING_NAME or place.stop > len(data):
        raise ImageDamaged(file=file, reason="its backing file name does not lie in the first cluster")
    try:
        name = data[place].decode()
    except UnicodeDecodeError as error:
        raise UnsafeImage(file=file, reason=f"its backing file is {bytes(data[place])!r}") from error
    bare = name.rpartition("/")[2]
    if not is_bare_name(bare) or not (bare == name or _leads_to(folders, name)):
        raise UnsafeImage(file=file, reason=f"its backing file is {name!r}")
    return bare


def _leads_to(folders: Sequence[str], name: str) -> bool:
    """Whether `name`, relative or absolute, names a file in the folder itself, by the text alone.

    The file system is not asked: looking up a path from a hostile image may mount something, or hang.
    """
    if "\0" in name or _PROTOCOL.match(name):
        return False
    places = (os.path.dirname(os.path.normpath(os.path.join(folder, name))) for folder in folders)  # noqa: PTH118,PTH120
    return any(place in folders for place in places)


def _is_raw(backing_format: bytes | None, file: str) -> bool:
    """Whether the backing file is raw: only if the header says so, never by looking at it."""
    if backing_format not in (None, b"qcow2", b"raw"):
        name = backing_format.decode(errors="backslashreplace")
        raise ImageUnsupported(file=file, feature=f"a backing file of the format {name!r}")
    return backing_format == b"raw"


def _check_bounds(header: Header, file_size: int, file: str) -> None:
    if header.subclusters and header.cluster_bits < _SMALLEST_SUBCLUSTERED_BITS:
        raise ImageDamaged(file=file, reason=f"clusters of {header.cluster} bytes have no subclusters")
    if header.size > MOST_SIZE:
        raise ImageTooLarge(file=file, size=header.size, most=MOST_SIZE)
    if header.l1_entries < header.l1_needed or header.l1_entries * 8 > _MOST_L1_BYTES:
        reason = f"its L1 table has {header.l1_entries} entries where {header.l1_needed} are needed"
        raise ImageDamaged(file=file, reason=reason)
    if header.refcount_clusters * header.cluster > _MOST_REFCOUNT_TABLE_BYTES:
        raise ImageDamaged(file=file, reason=f"its refcount table has {header.refcount_clusters} clusters")
    tables = (
        ("L1", header.l1_offset, header.l1_entries * 8),
        ("refcount", header.refcount_offset, header.refcount_clusters * header.cluster),
    )
    for name, offset, length in tables:
        if length and (offset % header.cluster or not header.cluster <= offset <= file_size - length):
            reason = f"its {name} table ({length} bytes at {offset}) does not lie in the file of {file_size} bytes"
            raise ImageDamaged(file=file, reason=reason)
