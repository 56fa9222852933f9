# SPDX-License-Identifier: GPL-3.0-or-later
"""L2 tables of an image that is being written: few in memory, the others in the file."""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.qcow2.layout import COPIED, OFFSET_MASK, ZERO

PER_TABLE = CLUSTER // 8
"""Entries of an L2 table; one table describes 512 MiB."""

_RESIDENT = 64  # 4 MiB of tables, which cover 32 GiB of scattered writes


class Store(Protocol):
    """Where tables go: the file."""

    def store(self, offset: int, data: bytes) -> None:
        """Write one cluster."""

    def load(self, offset: int) -> bytes:
        """Read one cluster."""


def big_endian(numbers: array[int]) -> bytes:
    """The bytes of 64-bit numbers as QCOW2 has them."""
    if sys.byteorder == "little":
        numbers = array("Q", numbers)
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

    `allocate` gives the offset of the next free clusters of the file, for data and for tables alike.
    """

    def __init__(self, size: int, store: Store, allocate: Callable[[int], int]) -> None:
        self.l1 = array("Q", bytes(8 * -(-size // (CLUSTER * PER_TABLE))))
        self._store = store
        self._allocate = allocate
        self._resident: OrderedDict[int, array[int]] = OrderedDict()

    def place(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield `(offset in the file, clusters)` where data for `count` clusters from `first` on belong, in order.

        A cluster that has a place keeps it.
        """
        for table, begin, end in self._spans(first, count):
            while begin < end:
                stop = _run(table, begin, end)
                entry = table[begin]
                offset = entry & OFFSET_MASK if _has_place(entry) else self._allocate(stop - begin)
                _map(table, begin, stop, offset)
                yield offset, stop - begin
                begin = stop

    def mark_zero(self, first: int, count: int, *, hide: bool) -> None:
        """Let clusters read as zeroes; those without a place are left out unless they must `hide` a backing image."""
        for index, begin, end in _split(first, count):
            if not hide and not self._exists(index):
                continue
            table = self._table(index)
            for position in range(begin, end):
                if _has_place(table[position]):
                    table[position] |= ZERO
                elif hide:
                    table[position] = ZERO

    def flush(self) -> None:
        """Put every table into the file; `l1` is complete after this."""
        while self._resident:
            self._evict()

    def _spans(self, first: int, count: int) -> Iterator[tuple[array[int], int, int]]:
        for index, begin, end in _split(first, count):
            yield self._table(index), begin, end

    def _exists(self, index: int) -> bool:
        return index in self._resident or self.l1[index] != 0

    def _table(self, index: int) -> array[int]:
        table = self._resident.get(index)
        if table is not None:
            self._resident.move_to_end(index)
            return table
        while len(self._resident) >= _RESIDENT:
            self._evict()
        if self.l1[index]:
            table = from_big_endian(self._store.load(self.l1[index] & OFFSET_MASK))
        else:
            table = array("Q", bytes(CLUSTER))
        self._resident[index] = table
        return table

    def _evict(self) -> None:
        index, table = self._resident.popitem(last=False)
        if not self.l1[index]:
            self.l1[index] = self._allocate(1) | COPIED
        self._store.store(self.l1[index] & OFFSET_MASK, big_endian(table))


def _split(first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield `(table, first entry, entry after the last)` for a run of clusters."""
    end = first + count
    while first < end:
        index, begin = divmod(first, PER_TABLE)
        stop = min(PER_TABLE, begin + end - first)
        yield index, begin, stop
        first += stop - begin


def _has_place(entry: int) -> bool:
    return entry & OFFSET_MASK != 0


def _run(table: array[int], begin: int, end: int) -> int:
    """End of the run of entries that have no place, or that have places one after the other."""
    if not _has_place(table[begin]):
        if not any(table[begin:end]):  # by far the most frequent
            return end
        return next((at for at in range(begin, end) if _has_place(table[at])), end)
    offset = table[begin] & OFFSET_MASK
    at = begin + 1
    while at < end and table[at] & OFFSET_MASK == offset + (at - begin) * CLUSTER:
        at += 1
    return at


def _map(table: array[int], begin: int, end: int, offset: int) -> None:
    stop = offset + (end - begin) * CLUSTER
    table[begin:end] = array("Q", range(offset | COPIED, stop | COPIED, CLUSTER))
