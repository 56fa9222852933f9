# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory for disk data: page-aligned buffers, and finding zeroes in them without copying."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator

from overkeep.units import KIB, MIB

CLUSTER = 64 * KIB
"""Unit of everything here: images, digests and changed blocks are counted in it."""

# PyDLL keeps the interpreter's lock: a comparison takes at most a few microseconds, less than handing the lock over.
_memcmp = ctypes.PyDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int

ZEROES = memoryview(mmap.mmap(-1, CLUSTER)).toreadonly()
"""One cluster of zeroes, page-aligned."""

_zeroes = (ctypes.c_char * CLUSTER)()
_ZEROES_ADDRESS = ctypes.addressof(_zeroes)


_HUGE = 2 * MIB
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def aligned_buffer(size: int) -> memoryview:
    """Return a zeroed, page-aligned buffer of `size` bytes, as O_DIRECT needs it.

    A large one lies in huge pages where the system has them: to fill it, and to pin it for O_DIRECT, costs a fraction.
    """
    if size < _HUGE:
        return memoryview(_mapped(size))
    mapping = _mapped(size + _HUGE)
    mapping.madvise(mmap.MADV_HUGEPAGE)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(mapping)) % _HUGE
    return memoryview(mapping)[start : start + size]


def _mapped(size: int) -> mmap.mmap:
    """Map memory that a child does not get: pages that a fork shares while a disk fills them may part from the data."""
    mapping = mmap.mmap(-1, size, flags=_PRIVATE)
    mapping.madvise(mmap.MADV_DONTFORK)
    return mapping


def clear(buffer: memoryview) -> None:
    """Fill `buffer` with zeroes."""
    for at in range(0, len(buffer), len(ZEROES)):
        piece = buffer[at : at + len(ZEROES)]
        piece[:] = ZEROES[: len(piece)]


def zero_runs(data: memoryview, cluster: int = CLUSTER) -> Iterator[tuple[int, int, bool]]:
    """Yield `(start, end, zero)` for the runs of clusters of `data` that are all zeroes, or are not.

    Positions are relative to `data`; the last cluster may be shorter. `cluster` is a multiple of 64 KiB.
    """
    size = len(data)
    flags = _zero_flags(data)
    if cluster != CLUSTER:
        step = cluster // CLUSTER
        flags = [all(flags[at : at + step]) for at in range(0, len(flags), step)]
    begin = 0
    for index in range(1, len(flags) + 1):
        if index == len(flags) or flags[index] != flags[begin]:
            yield begin * cluster, min(index * cluster, size), flags[begin]
            begin = index


def is_zero(data: memoryview) -> bool:
    """Whether all of `data` is zeroes."""
    return all(_zero_flags(data))


def _zero_flags(data: memoryview) -> list[bool]:
    size = len(data)
    if data.readonly:  # ctypes takes the address of writable memory only; tests and small callers pass bytes
        return [not any(data[at : at + CLUSTER].tobytes().strip(b"\0")) for at in range(0, size, CLUSTER)]
    if not size:
        return []
    anchor = ctypes.c_char.from_buffer(data)
    base = ctypes.addressof(anchor)
    return [_memcmp(base + at, _ZEROES_ADDRESS, min(CLUSTER, size - at)) == 0 for at in range(0, size, CLUSTER)]
