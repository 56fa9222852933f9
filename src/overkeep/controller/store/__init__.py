# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own data base: workloads, policies, jobs, slots, events, and what is open in the Manager."""

from __future__ import annotations

from collections.abc import Mapping

from overkeep.controller.events import Draft
from overkeep.controller.store.admission import Admission
from overkeep.controller.store.answers import Answers
from overkeep.controller.store.assignments import Assignments
from overkeep.controller.store.capacity import CapacityRows
from overkeep.controller.store.controllers import Controllers
from overkeep.controller.store.database import open_database
from overkeep.controller.store.events import Events
from overkeep.controller.store.gatherings import Gatherings
from overkeep.controller.store.held import Holdings
from overkeep.controller.store.jobs import Jobs
from overkeep.controller.store.limits import ResourceSettings
from overkeep.controller.store.listings import ListingRows
from overkeep.controller.store.points import PointRows
from overkeep.controller.store.policies import Policies
from overkeep.controller.store.probes import ProbeRows
from overkeep.controller.store.relays import Relays
from overkeep.controller.store.targets import TargetRows
from overkeep.controller.store.turns import Turns
from overkeep.controller.store.workloads import Workloads
from overkeep.model.admission import ResourceKind
from overkeep.model.points import RestorePoint

# How many VMs are worked on at once when nobody said otherwise. Movers copy four disks at a time; a target or a storage
# domain serves several hosts; the total is what a controller of two cores follows with ease.
SLOTS = {ResourceKind.TOTAL: 32, ResourceKind.HOST: 4, ResourceKind.TARGET: 16, ResourceKind.DOMAIN: 8}


class Store:
    """The tables behind one SQLAlchemy URL, SQLite or PostgreSQL; safe to use from several threads."""

    def __init__(self, url: str, *, slots: Mapping[ResourceKind, int] = SLOTS) -> None:
        self._engine = open_database(url)
        self.events = Events(self._engine)
        self.answers = Answers(self._engine)
        self.relays = Relays(self._engine)
        self.workloads = Workloads(self._engine, self.events)
        self.targets = TargetRows(self._engine)
        self.capacity = CapacityRows(self._engine)
        self.points = PointRows(self._engine)
        self.listings = ListingRows(self._engine)
        self.probes = ProbeRows(self._engine)
        self.policies = Policies(self._engine, self.events)
        self.assignments = Assignments(self._engine, self.events)
        self.resources = ResourceSettings(self._engine, self.events)
        self.admission = Admission(self._engine, defaults=slots)
        self.controllers = Controllers(self._engine)
        self.turns = Turns(self._engine)
        self.jobs = Jobs(self._engine, self.events, freed=self.admission.news.set)
        self.held = Holdings(self._engine)
        self.gatherings = Gatherings(self._engine)

    def keep_point(self, target: str, point: RestorePoint, told: Draft) -> None:
        """Write down that a job made a point, and tell it. All of it is one transaction, and may be repeated."""
        with self._engine.begin() as connection:
            self.points.put_in(connection, target, point)
            self.jobs.note_point(connection, point)
            self.events.insert(connection, told)
        self.events.tell()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


__all__ = ["SLOTS", "Store"]
