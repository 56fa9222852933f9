# SPDX-License-Identifier: GPL-3.0-or-later
"""The pass over a run: what each cluster of the carrier becomes, and what is moved for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from overkeep.blocks.compression import Compression
from overkeep.blocks.merge.packing import Packing
from overkeep.blocks.merge.transfer import CHAIN, Transfer
from overkeep.blocks.qcow2.carrier import Carrier, places_of
from overkeep.blocks.qcow2.held import MIXED, PACKED, PLACE, STRETCH, ZEROES
from overkeep.blocks.qcow2.layout import COPIED, ZERO
from overkeep.blocks.qcow2.runs import Bools, Signed, Unsigned
from overkeep.blocks.qcow2.view import Shown, View
from overkeep.units import MIB

BATCH = 512 * MIB
"""Bytes that are moved and made durable together: at most so much is copied again after a crash."""


@dataclass(frozen=True)
class Batch:
    """What is moved until the stretches before number `done` are complete."""

    transfer: Transfer
    done: int


class Extension:
    """Makes the image number `index` of `view` (newest first), opened as `carrier`, hold what the view shows.

    Which places it gives to what depends on nothing but the images as they were when the merge began (`METHOD`), so
    that the pass can be repeated from its beginning, and what is durable already need not be moved again.
    `compression` is that of the compressed clusters that it will hold.
    """

    def __init__(self, view: View, carrier: Carrier, *, index: int) -> None:
        self._view = view.seen(carrier.cluster)
        self._carrier = carrier
        self._index = index
        self._file_sizes = np.array([image.file_size for image in view.images], np.int64)
        kinds = [image.header.compression for image in view.images]
        any_zstd = Compression.ZSTD in kinds
        self.compression = kinds[index] if carrier.packed or not any_zstd else Compression.ZSTD
        self._as_packed = np.array([kind is self.compression for kind in kinds])
        self._table = np.zeros(0, np.uint64)

    def batches(self, done: int, check: Callable[[], None]) -> Iterator[Batch]:
        """Go through the disk; move each transfer before asking for the next.

        The first `done` stretches, with which an earlier batch ended, are durable already: the batches until there
        need not be moved. Tables are written here. `check` is called for each stretch, and may raise.
        """
        transfer, packing = self._begin()
        for stretch in range(self._view.stretches):
            check()
            self._plan(stretch, transfer, packing, write=stretch >= done)
            last = stretch + 1 == self._view.stretches
            if last or transfer.size + packing.size >= BATCH:
                packing.add_to(transfer)
                transfer.seal()
                yield Batch(transfer, stretch + 1)
                transfer, packing = self._begin()

    def _begin(self) -> tuple[Transfer, Packing]:
        return Transfer(self._carrier.cluster), Packing(self._carrier.space, self._carrier.cluster, self._file_sizes)

    def _plan(self, stretch: int, transfer: Transfer, packing: Packing, *, write: bool) -> None:
        """Plan a stretch, in its part of an L2 table, which is written once it is complete."""
        count = STRETCH // self._carrier.cluster
        tables = self._carrier.image.header.table_entries // count  # stretches of a table
        index, part = divmod(stretch, tables)
        if not part:
            self._table = np.zeros(count * tables, np.uint64)
            self._old = places_of(self._carrier.old_table(index))
        mine = slice(part * count, (part + 1) * count)
        self._table[mine] = self._entries(stretch, self._old[mine], transfer, packing)
        if part + 1 == tables or stretch + 1 == self._view.stretches:
            self._carrier.set_table(index, self._table, write=write)

    def _entries(self, stretch: int, old: Signed, transfer: Transfer, packing: Packing) -> Unsigned:
        """The L2 entries of a stretch; what they need is planned to be moved. `old` are places of data before."""
        shown = self._view.shown(stretch)
        foreign = (shown.providers != self._index) | (shown.kinds == MIXED)
        found = np.zeros(len(shown.kinds), np.uint64)
        found[shown.kinds == ZEROES] = ZERO
        kept = ~foreign & (shown.kinds == PLACE)
        found[kept] = shown.values[kept] | np.uint64(COPIED)
        small = shown.kinds == PACKED
        found[small & ~foreign] = shown.values[small & ~foreign]
        packed = small & foreign & self._as_packed[shown.providers]
        found[packed] = packing.add(self._origin(shown, packed), shown.values[packed])
        moved = foreign & (shown.kinds >= PLACE) & ~packed
        places = self._places(shown, moved, old)
        found[moved] = places.astype(np.uint64) | np.uint64(COPIED)
        self._move(stretch, shown, moved, places, transfer)
        return found

    def _origin(self, shown: Shown, chosen: Bools) -> Signed:
        return shown.providers[chosen].astype(np.int64)

    def _places(self, shown: Shown, moved: Bools, old: Signed) -> Signed:
        """Where in the carrier: in place of data that an image above the carrier hides, else where there is room."""
        above = (shown.providers < self._index) & (shown.kinds != MIXED)
        hidden = moved & above & (old != 0)
        places = np.where(hidden, old, 0)
        elsewhere = moved & ~hidden
        places[elsewhere] = self._carrier.space.take(int(np.count_nonzero(elsewhere))) * self._carrier.cluster
        found: Signed = places[moved]
        return found

    def _move(self, stretch: int, shown: Shown, moved: Bools, places: Signed, transfer: Transfer) -> None:
        """Move clusters as they lie in their files; others are read through the chain."""
        direct = shown.kinds[moved] == PLACE
        on_disk = stretch * STRETCH + np.flatnonzero(moved) * self._carrier.cluster
        files = np.where(direct, self._origin(shown, moved), CHAIN)
        offsets = np.where(direct, shown.values[moved].astype(np.int64), on_disk)
        transfer.add_clusters(files, offsets, places)
