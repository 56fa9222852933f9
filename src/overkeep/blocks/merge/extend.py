# SPDX-License-Identifier: GPL-3.0-or-later
"""The pass over a run: what each stretch of the carrier becomes, and what is moved for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.merge.packing import Packing
from overkeep.blocks.merge.transfer import CHAIN, Transfer
from overkeep.blocks.qcow2.carrier import Carrier
from overkeep.blocks.qcow2.held import MIXED, PACKED, PLACE, STRETCH, ZEROES, Values, entries
from overkeep.blocks.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, ZERO
from overkeep.blocks.qcow2.tables import PER_TABLE
from overkeep.blocks.qcow2.view import Shown, View
from overkeep.units import MIB

BATCH = 512 * MIB
"""Bytes that are moved and made durable together: at most so much is copied again after a crash."""

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """What is moved until the stretches before number `done` are complete."""

    transfer: Transfer
    done: int


class Extension:
    """Makes the image number `index` of `view` (newest first), opened as `carrier`, hold what the view shows.

    Which places it gives to what depends on nothing but the images as they were when the merge began (`METHOD`), so
    that the pass can be repeated from its beginning, and what is durable already need not be moved again.
    """

    def __init__(self, view: View, carrier: Carrier, *, index: int) -> None:
        self._view = view
        self._carrier = carrier
        self._index = index

    def batches(self, done: int, check: Callable[[], None]) -> Iterator[Batch]:
        """Go through the disk; move each transfer before asking for the next.

        The first `done` stretches, with which an earlier batch ended, are durable already: the batches until there need
        not be moved. Tables are written here. `check` is called for each stretch, and may raise.
        """
        transfer, packing = Transfer(), Packing(self._carrier.space)
        for stretch in range(self._view.stretches):
            check()
            self._plan(stretch, transfer, packing, write=stretch >= done)
            last = stretch + 1 == self._view.stretches
            if last or transfer.size + packing.size >= BATCH:
                packing.add_to(transfer)
                transfer.seal()
                yield Batch(transfer, stretch + 1)
                transfer, packing = Transfer(), Packing(self._carrier.space)

    def _plan(self, stretch: int, transfer: Transfer, packing: Packing, *, write: bool) -> None:
        shown = self._view.shown(stretch)
        foreign = (shown.providers != self._index) | (shown.kinds == MIXED)
        small = shown.kinds == PACKED
        table = np.zeros(PER_TABLE, np.uint64)
        table[shown.kinds == ZEROES] = ZERO
        kept = ~foreign & (shown.kinds == PLACE)
        table[kept] = shown.values[kept] | np.uint64(COPIED)
        table[small & ~foreign] = shown.values[small & ~foreign]
        table[small & foreign] = packing.add(shown.providers[small & foreign], shown.values[small & foreign])
        self._move(stretch, shown, foreign & ((shown.kinds == PLACE) | (shown.kinds == MIXED)), table, transfer)
        self._carrier.set_table(stretch, table, write=write)

    def _move(self, stretch: int, shown: Shown, chosen: Mask, table: Values, transfer: Transfer) -> None:
        """Move clusters as they are, those that only the chain can tell read through it."""
        places = self._places(stretch, shown, chosen)
        table[chosen] = places.astype(np.uint64) | np.uint64(COPIED)
        direct = shown.kinds[chosen] == PLACE
        on_disk = stretch * STRETCH + np.flatnonzero(chosen) * CLUSTER
        files = np.where(direct, shown.providers[chosen], CHAIN).astype(np.int64)
        offsets = np.where(direct, shown.values[chosen].astype(np.int64), on_disk)
        transfer.add_clusters(files, offsets, places)

    def _places(self, stretch: int, shown: Shown, chosen: Mask) -> Numbers:
        """Where in the carrier: in place of data that an image above the carrier hides, else where there is room."""
        old = entries(self._carrier.image, stretch)
        owned = (old & np.uint64(COMPRESSED | ZERO) == 0) & (old & np.uint64(OFFSET_MASK) != 0)
        hidden = owned & (shown.kinds == PLACE) & (shown.providers < self._index)
        places = np.zeros(PER_TABLE, np.int64)
        places[hidden] = (old[hidden] & np.uint64(OFFSET_MASK)).astype(np.int64)
        elsewhere = chosen & ~hidden
        places[elsewhere] = self._carrier.space.take(int(np.count_nonzero(elsewhere))) * CLUSTER
        found: Numbers = places[chosen]
        return found
