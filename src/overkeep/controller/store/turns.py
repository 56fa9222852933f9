# SPDX-License-Identifier: GPL-3.0-or-later
"""What the job engine is to be given next: written down with the decision, so that no crash in between loses it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from overkeep.controller.records import JobKind, JobState, Stage
from overkeep.controller.store import schema as t
from overkeep.controller.store.database import reading


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A VM of a job that has its slots; `agreed` is what was settled when a backup was opened."""

    job_id: str
    vm_id: str
    kind: JobKind
    request: Mapping[str, Any]
    agreed: Mapping[str, Any]


class Turns:
    """Reads what is to be given, and marks what was. Giving something twice must do no harm."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reader = reading(engine)

    def agree(self, job_id: str, agreed: Mapping[str, Any]) -> None:
        """Write down what was settled when a backup was opened."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.job).where(t.job.c.id == job_id).values(agreed=json.dumps(dict(agreed))))

    def unopened(self, *, limit: int) -> tuple[str, ...]:
        """Backups that were not given to be opened, the oldest first."""
        with self._reader.connect() as connection:
            return tuple(connection.scalars(_UNOPENED, {"most": limit}))

    def opened(self, job_ids: Iterable[str]) -> None:
        """Mark backups as given to be opened."""
        rows = [{"job": job_id} for job_id in job_ids]
        self._mark(_OPENED, rows)

    def admitted(self, *, limit: int) -> tuple[Turn, ...]:
        """VMs that have their slots and were not given yet."""
        with self._reader.connect() as connection:
            return tuple(_turn(row) for row in connection.execute(_ADMITTED, {"most": limit}))

    def given(self, turns: Iterable[Turn]) -> None:
        """Mark VMs as given; one that went back into its line meanwhile stays there."""
        rows = [{"job": turn.job_id, "vm": turn.vm_id} for turn in turns]
        self._mark(_GIVEN, rows)

    def working(self) -> tuple[Turn, ...]:
        """VMs that were given and have not ended."""
        with self._reader.connect() as connection:
            rows = connection.execute(_TURNS.where(t.job_vm_lives, t.job_vm.c.stage == Stage.GIVEN))
            return tuple(_turn(row) for row in rows)

    def opening(self) -> tuple[str, ...]:
        """Backups that were given to be opened and have VMs that do not wait yet."""
        vms = sa.exists().where(t.job_vm.c.job_id == t.job.c.id, t.job_vm_lives, t.job_vm.c.stage == Stage.UNOPENED)
        query = sa.select(t.job.c.id).where(t.job_lives, t.job.c.kind == JobKind.BACKUP, t.job.c.given, vms)
        with self._reader.connect() as connection:
            return tuple(connection.scalars(query))

    def done(self) -> tuple[str, ...]:
        """Backups that run although all their VMs have ended."""
        with self._reader.connect() as connection:
            return tuple(connection.scalars(_DONE))

    def untold(self, *, limit: int) -> dict[str, int]:
        """Jobs with VMs that wait, which nobody was told yet, and how many VMs these are."""
        with self._reader.connect() as connection:
            return {row.id: row.vms for row in connection.execute(_UNTOLD, {"most": limit})}

    def told(self, job_ids: Iterable[str]) -> None:
        """Mark jobs whose waiting was told."""
        rows = [{"job": job_id} for job_id in job_ids]
        self._mark(_TOLD, rows)

    def _mark(self, update: sa.Update, rows: Sequence[Mapping[str, str]]) -> None:
        if rows:
            with self._engine.begin() as connection:
                connection.execute(update, list(rows))


# Statements that each round makes are put together once: that costs more than to run them.
_MOST = sa.bindparam("most", type_=sa.Integer)
_UNOPENED = (
    sa.select(t.job.c.id)
    .where(t.job_lives, t.job.c.state == JobState.QUEUED, t.job.c.kind == JobKind.BACKUP, ~t.job.c.given)
    .order_by(t.job.c.created, t.job.c.id)
    .limit(_MOST)
)
_THE_JOB = sa.update(t.job).where(t.job.c.id == sa.bindparam("job"))
_OPENED, _TOLD = _THE_JOB.values(given=True), _THE_JOB.values(wait_told=True)
_TURNS = sa.select(t.job_vm.c.job_id, t.job_vm.c.vm_id, t.job.c.kind, t.job.c.request, t.job.c.agreed).join(
    t.job, t.job.c.id == t.job_vm.c.job_id
)
_ADMITTED = _TURNS.where(sa.text("job_vm.stage = 'admitted'")).order_by(t.job_vm.c.rank).limit(_MOST)
_GIVEN = (
    sa.update(t.job_vm)
    .where(t.job_vm.c.job_id == sa.bindparam("job"), t.job_vm.c.vm_id == sa.bindparam("vm"))
    .where(t.job_vm.c.stage == Stage.ADMITTED)
    .values(stage=Stage.GIVEN)
)
_DONE = sa.select(t.job.c.id).where(
    t.job_lives,
    t.job.c.state == JobState.RUNNING,
    t.job.c.kind == JobKind.BACKUP,
    ~sa.exists().where(t.job_vm.c.job_id == t.job.c.id, t.job_vm_lives),
)
_UNTOLD = (
    sa.select(t.job.c.id, sa.func.count().label("vms"))
    .join(t.job_vm, t.job_vm.c.job_id == t.job.c.id)
    .where(t.job_lives, ~t.job.c.wait_told, sa.text("job_vm.stage = 'waiting'"))
    .group_by(t.job.c.id)
    .limit(_MOST)
)


def _turn(row: Any) -> Turn:
    return Turn(
        job_id=row.job_id,
        vm_id=row.vm_id,
        kind=JobKind(row.kind),
        request=json.loads(row.request),
        agreed=json.loads(row.agreed or "{}"),
    )
