# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds how much of what a run shows, and so which image is the cheapest to extend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.qcow2 import packed
from overkeep.blocks.qcow2.held import MIXED, PACKED, PLACE
from overkeep.blocks.qcow2.layout import SECTOR
from overkeep.blocks.qcow2.view import View


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Bytes that a run shows: `held` by each image, newest first, and `mixed`, which any carrier has to be given."""

    held: tuple[int, ...]
    mixed: int

    def cost(self, carrier: int | None) -> int:
        """Bytes that must be moved when that image is extended; when a new file is written, if None."""
        return self.mixed + sum(self.held) - (0 if carrier is None else self.held[carrier])


def survey(view: View, check: Callable[[], None]) -> Shares:
    """Go through all tables of the run; `check` is called now and then, and may raise to end it."""
    held = np.zeros(len(view.images), np.int64)
    mixed = 0
    for stretch in range(view.stretches):
        check()
        shown = view.shown(stretch)
        data = shown.kinds == PLACE
        held += CLUSTER * np.bincount(shown.providers[data], minlength=len(held))
        small = shown.kinds == PACKED
        sizes = packed.sectors(shown.values[small]) * SECTOR
        held += np.bincount(shown.providers[small], sizes, minlength=len(held)).astype(np.int64)
        mixed += CLUSTER * int(np.count_nonzero(shown.kinds == MIXED))
    return Shares(held=tuple(int(size) for size in held), mixed=mixed)


def by_cost(shares: Shares) -> list[int]:
    """The images of the run, cheapest carrier first; of equal ones the newest, which need not be renamed."""
    return sorted(range(len(shares.held)), key=shares.cost)
