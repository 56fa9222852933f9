# SPDX-License-Identifier: GPL-3.0-or-later
"""Compression of single clusters as QCOW2 has it: raw deflate with a window of 4 KiB, or one frame of zstd."""

from __future__ import annotations

import threading
import zlib
from enum import IntEnum

import zstandard

from overkeep.units import MIB

Bytes = bytes | bytearray | memoryview

_WINDOW_BITS = 12  # QEMU inflates with this window, so a deflated cluster may not look further back
_DEFLATE_MEMORY = 9
_MOST_WINDOW = 8 * MIB  # what RFC 8878 asks every reader of zstd to have; a cluster has at most 2 MiB


class Compression(IntEnum):
    """How the compressed clusters of an image are packed; the number is that of the image's header."""

    ZLIB = 0
    ZSTD = 1


class NotInflatable(ValueError):
    """Bytes that should be a compressed cluster are not one of the right size."""


def inflate(kind: Compression, data: Bytes, size: int) -> bytes:
    """Return the `size` bytes that `data` was compressed from; what follows them in `data` has no meaning.

    Raises `NotInflatable`. No more than `size` bytes come out, whatever `data` says of itself.
    """
    content = _unpack_zstd(data, size) if kind is Compression.ZSTD else _unpack_zlib(data, size)
    if len(content) != size:
        raise NotInflatable(f"{len(content)} bytes instead of {size}")
    return content


class Compressor:
    """Compresses clusters, one at a time: each thread needs its own. Without `level` the library's usual one."""

    def __init__(self, kind: Compression, level: int | None = None) -> None:
        self.kind = kind
        self._level = zlib.Z_DEFAULT_COMPRESSION if level is None else level
        self._zstd = None
        if kind is Compression.ZSTD:
            self._zstd = zstandard.ZstdCompressor(level=3 if level is None else level)

    def deflate(self, cluster: Bytes) -> bytes | None:
        """Return `cluster` compressed, or None when it does not get smaller."""
        packed = self._pack_zlib(cluster) if self._zstd is None else self._zstd.compress(cluster)
        return packed if len(packed) < memoryview(cluster).nbytes else None

    def _pack_zlib(self, cluster: Bytes) -> bytes:
        packer = zlib.compressobj(self._level, zlib.DEFLATED, -_WINDOW_BITS, _DEFLATE_MEMORY)
        return packer.compress(cluster) + packer.flush()


def _unpack_zlib(data: Bytes, size: int) -> bytes:
    try:
        # The greatest window takes what any packer may have made.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
    except zlib.error as error:
        raise NotInflatable(str(error)) from error


class _Unpackers(threading.local):
    """One unpacker a thread: making one takes longer than unpacking a cluster, and it serves one thread at a time."""

    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)


_unpackers = _Unpackers()


def _unpack_zstd(data: Bytes, size: int) -> bytes:
    try:
        # Asking for one byte more lets the reader see the frame's end, and this function a frame that is too long.
        return _unpackers.zstd.stream_reader(data, read_across_frames=False).read(size + 1)
    except zstandard.ZstdError as error:
        raise NotInflatable(str(error)) from error
