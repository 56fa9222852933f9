# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own data base: workloads, policies, jobs, events, and what is open in the Manager."""

from __future__ import annotations

from overkeep.controller.store.answers import Answers
from overkeep.controller.store.assignments import Assignments
from overkeep.controller.store.events import Events
from overkeep.controller.store.held import Holdings
from overkeep.controller.store.jobs import Jobs
from overkeep.controller.store.policies import Policies
from overkeep.controller.store.relays import Relays
from overkeep.controller.store.schema import open_database
from overkeep.controller.store.workloads import Workloads


class Store:
    """The tables behind one SQLAlchemy URL, SQLite or PostgreSQL; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)
        self.events = Events(self._engine)
        self.answers = Answers(self._engine)
        self.relays = Relays(self._engine)
        self.workloads = Workloads(self._engine, self.events)
        self.policies = Policies(self._engine, self.events)
        self.assignments = Assignments(self._engine, self.events)
        self.jobs = Jobs(self._engine, self.events)
        self.held = Holdings(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


__all__ = ["Store"]
