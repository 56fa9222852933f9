# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs of a run that are backed up in one moment: who is ready for it, who leads, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from overkeep.controller.store import schema as t
from overkeep.controller.store.database import alone


class Stage(StrEnum):
    """How far a gathering is; `over` it is whatever came of it."""

    GATHERING = "gathering"
    GOING = "going"
    OVER = "over"


@dataclass(frozen=True, kw_only=True)
class Gathering:
    """A gathering: the request of each VM, empty while it is not ready, and the outcome, empty where nothing began.

    `why` says why not all could begin in one moment, empty when they did.
    """

    stage: Stage
    leader: str
    why: str
    requests: Mapping[str, str]
    outcomes: Mapping[str, str]


class Gatherings:
    """The tables of gatherings. All acts may be repeated."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def open(self, job_id: str, vm_ids: Collection[str], *, why: str) -> None:
        """Let these VMs gather; with `why` it is over before it begins. One that is there stays as it is."""
        with self._engine.begin() as connection:
            alone(connection, "gathering")
            if _row(connection, job_id) is not None:
                return
            stage = Stage.OVER if why else Stage.GATHERING
            connection.execute(sa.insert(t.gathering).values(job_id=job_id, stage=stage, why=why))
            if vm_ids:
                rows = [{"job_id": job_id, "vm_id": vm_id} for vm_id in vm_ids]
                connection.execute(sa.insert(t.gathered), rows)

    def get(self, job_id: str) -> Gathering:
        """How far it is."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(t.gathering).where(t.gathering.c.job_id == job_id)).one()
            mine = connection.execute(sa.select(t.gathered).where(t.gathered.c.job_id == job_id)).all()
        return Gathering(
            stage=Stage(row.stage),
            leader=row.leader,
            why=row.why,
            requests={one.vm_id: one.request for one in mine},
            outcomes={one.vm_id: one.outcome for one in mine},
        )

    def arrive(self, job_id: str, vm_id: str, request: str) -> None:
        """Write down that a VM is ready, and what its backup is to be."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.gathered).where(*_vm(job_id, vm_id)).values(request=request))

    def lead(self, job_id: str, vm_id: str) -> bool:
        """Begin, led by a VM, if all are ready and none leads; whether it is so."""
        missing = sa.select(t.gathered.c.vm_id).where(t.gathered.c.job_id == job_id, t.gathered.c.request == "")
        with self._engine.begin() as connection:
            alone(connection, "gathering")
            if connection.scalar(missing.limit(1)) is not None:
                return False
            here = (t.gathering.c.job_id == job_id, t.gathering.c.stage == Stage.GATHERING)
            update = sa.update(t.gathering).where(*here).values(stage=Stage.GOING, leader=vm_id)
            return connection.execute(update).rowcount > 0

    def end(self, job_id: str, *, why: str, outcomes: Mapping[str, str], stage: Stage) -> None:
        """Write down what came of it; one that is not at `stage` any more stays as it is."""
        with self._engine.begin() as connection:
            here = (t.gathering.c.job_id == job_id, t.gathering.c.stage == stage)
            if connection.execute(sa.update(t.gathering).where(*here).values(stage=Stage.OVER, why=why)).rowcount == 0:
                return
            for vm_id, outcome in outcomes.items():
                connection.execute(sa.update(t.gathered).where(*_vm(job_id, vm_id)).values(outcome=outcome))

    def forget(self, before: str) -> None:
        """Drop those of jobs that ended before a time (ISO 8601, UTC)."""
        old = sa.select(t.job.c.id).where(t.job.c.ended < before)
        with self._engine.begin() as connection:
            for table in (t.gathered, t.gathering):
                connection.execute(sa.delete(table).where(table.c.job_id.in_(old)))


def _row(connection: sa.Connection, job_id: str) -> str | None:
    return connection.scalar(sa.select(t.gathering.c.job_id).where(t.gathering.c.job_id == job_id))


def _vm(job_id: str, vm_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (t.gathered.c.job_id == job_id, t.gathered.c.vm_id == vm_id)
