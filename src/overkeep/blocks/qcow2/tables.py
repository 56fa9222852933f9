# SPDX-License-Identifier: GPL-3.0-or-later
"""L2 tables of an image that is being written: few in memory, the others in the file."""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol

from overkeep.blocks.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, ZERO
from overkeep.units import MIB

_RESIDENT_BYTES = 4 * MIB  # with clusters of 64 KiB they cover 32 GiB of scattered writes


class Store(Protocol):
    """Where tables go: the file."""

    def store(self, offset: int, data: bytes) -> None:
        """Write one cluster."""

    def load(self, offset: int) -> bytes:
        """Read one cluster."""


def big_endian(numbers: array[int]) -> bytes:
    """The bytes of numbers as QCOW2 has them."""
    if sys.byteorder == "little":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()


def from_big_endian(data: bytes) -> array[int]:
    """The 64-bit numbers in bytes as QCOW2 has them."""
    numbers = array("Q", data)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


class Tables:
    """The map from clusters of the disk to clusters of the file; the caller holds the lock.

    `allocate` gives the offset of the next free clusters of the file, for data and for tables alike; `release` is told
    the entry of a cluster that loses its place.
    """

    def __init__(
        self,
        size: int,
        store: Store,
        *,
        cluster: int,
        allocate: Callable[[int], int],
        release: Callable[[int], None],
    ) -> None:
        self._cluster = cluster
        self._entries = cluster // 8
        self.l1 = array("Q", bytes(8 * -(-size // (cluster * self._entries))))
        self._store = store
        self._allocate = allocate
        self._release = release
        self._resident: OrderedDict[int, array[int]] = OrderedDict()

    def place(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield `(offset in the file, clusters)` where data for `count` clusters from `first` on belong, in order.

        A cluster that has a place keeps it.
        """
        for index, begin, end in self._split(first, count):
            table = self._table(index)
            while begin < end:
                stop = _run(table, begin, end, self._cluster)
                entry = table[begin]
                if _has_place(entry):
                    offset = entry & OFFSET_MASK
                else:
                    self._release_packed(table, begin, stop)
                    offset = self._allocate(stop - begin)
                _map(table, begin, stop, offset, self._cluster)
                yield offset, stop - begin
                begin = stop

    def pack(self, cluster: int, entry: int) -> None:
        """Let a cluster lie where the `entry` of a compressed cluster says."""
        index, position = divmod(cluster, self._entries)
        table = self._table(index)
        if table[position] & (COMPRESSED | OFFSET_MASK):
            self._release(table[position])
        table[position] = entry

    def _release_packed(self, table: array[int], begin: int, end: int) -> None:
        for position in range(begin, end) if any(table[begin:end]) else ():
            if table[position] & COMPRESSED:
                self._release(table[position])

    def mark_zero(self, first: int, count: int, *, hide: bool) -> None:
        """Let clusters read as zeroes; those without a place are left out unless they must `hide` a backing image."""
        for index, begin, end in self._split(first, count):
            if not hide and not self._exists(index):
                continue
            table = self._table(index)
            if not any(table[begin:end]):  # by far the most frequent
                if hide:
                    table[begin:end] = array("Q", (ZERO,)) * (end - begin)
                continue
            for position in range(begin, end):
                table[position] = self._zeroed(table[position], hide=hide)

    def _zeroed(self, entry: int, *, hide: bool) -> int:
        if _has_place(entry):
            return entry | ZERO
        if entry & COMPRESSED:
            self._release(entry)
        return ZERO if hide else 0

    def flush(self) -> None:
        """Put every table into the file; `l1` is complete after this."""
        while self._resident:
            self._evict()

    def _exists(self, index: int) -> bool:
        return index in self._resident or self.l1[index] != 0

    def _table(self, index: int) -> array[int]:
        table = self._resident.get(index)
        if table is not None:
            self._resident.move_to_end(index)
            return table
        while (len(self._resident) + 1) * self._cluster > max(_RESIDENT_BYTES, self._cluster):
            self._evict()
        if self.l1[index]:
            table = from_big_endian(self._store.load(self.l1[index] & OFFSET_MASK))
        else:
            table = array("Q", bytes(self._cluster))
        self._resident[index] = table
        return table

    def _evict(self) -> None:
        index, table = self._resident.popitem(last=False)
        if not self.l1[index]:
            self.l1[index] = self._allocate(1) | COPIED
        self._store.store(self.l1[index] & OFFSET_MASK, big_endian(table))

    def _split(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Yield `(table, first entry, entry after the last)` for a run of clusters."""
        end = first + count
        while first < end:
            index, begin = divmod(first, self._entries)
            stop = min(self._entries, begin + end - first)
            yield index, begin, stop
            first += stop - begin


def _has_place(entry: int) -> bool:
    return not entry & COMPRESSED and entry & OFFSET_MASK != 0


def _run(table: array[int], begin: int, end: int, cluster: int) -> int:
    """End of the run of entries that have no place, or that have places one after the other."""
    if not _has_place(table[begin]):
        if not any(table[begin:end]):  # by far the most frequent
            return end
        return next((at for at in range(begin, end) if _has_place(table[at])), end)
    offset = table[begin] & OFFSET_MASK
    at = begin + 1
    while at < end and _has_place(table[at]) and table[at] & OFFSET_MASK == offset + (at - begin) * cluster:
        at += 1
    return at


def _map(table: array[int], begin: int, end: int, offset: int, cluster: int) -> None:
    stop = offset + (end - begin) * cluster
    table[begin:end] = array("Q", range(offset | COPIED, stop | COPIED, cluster))
