# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds how much of what a run shows, and so which image is the cheapest to extend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from overkeep.blocks.qcow2.held import MIXED, PACKED, PLACE
from overkeep.blocks.qcow2.packed import PackedEntries
from overkeep.blocks.qcow2.view import View


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Bytes that a run shows: `held` by each image, newest first, and `mixed`, which any carrier has to be given.

    `packed` says whether some of it are compressed clusters.
    """

    held: tuple[int, ...]
    mixed: int
    packed: bool

    def cost(self, carrier: int | None) -> int:
        """Bytes that must be moved when that image is extended; when a new file is written, if None."""
        return self.mixed + sum(self.held) - (0 if carrier is None else self.held[carrier])


def survey(view: View, check: Callable[[], None]) -> Shares:
    """Go through all tables of the run; `check` is called now and then, and may raise to end it."""
    held = np.zeros(len(view.images), np.int64)
    mixed, any_packed = 0, False
    packed = PackedEntries(view.grain)
    for stretch in range(view.stretches):
        check()
        shown = view.shown(stretch)
        data = shown.kinds == PLACE
        held += view.grain * np.bincount(shown.providers[data], minlength=len(held))
        small = shown.kinds == PACKED
        any_packed = any_packed or bool(small.any())
        sizes = packed.lengths(shown.values[small])
        held += np.bincount(shown.providers[small], sizes, minlength=len(held)).astype(np.int64)
        mixed += view.grain * int(np.count_nonzero(shown.kinds == MIXED))
    return Shares(held=tuple(int(size) for size in held), mixed=mixed, packed=any_packed)
