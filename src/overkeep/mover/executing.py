# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives each order to the part that carries its kind out."""

from __future__ import annotations

from overkeep.mover.bookkeeping import Bookkeeper
from overkeep.mover.copying import Copier
from overkeep.mover.orders import CopyOrder, MergeOrder, Result
from overkeep.mover.work import Work


class Executor:
    """Executes orders of all kinds. Safe to use from several threads."""

    def __init__(self, copier: Copier, bookkeeper: Bookkeeper) -> None:
        self._copier = copier
        self._bookkeeper = bookkeeper

    def run(self, work: Work) -> Result:
        """Work until the end, or until `work` is stopped; raises typed errors."""
        order = work.order
        if isinstance(order, CopyOrder):
            return self._copier.run(work, order)
        if isinstance(order, MergeOrder):
            return self._bookkeeper.merge(work, order)
        return self._bookkeeper.verify(work, order)
