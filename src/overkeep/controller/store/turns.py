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
        wanted = (t.job_lives, t.job.c.state == JobState.QUEUED, t.job.c.kind == JobKind.BACKUP, ~t.job.c.given)
        query = sa.select(t.job.c.id).where(*wanted).order_by(t.job.c.created, t.job.c.id).limit(limit)
        with self._reader.connect() as connection:
            return tuple(connection.scalars(query))

    def opened(self, job_ids: Iterable[str]) -> None:
        """Mark backups as given to be opened."""
        rows = [{"job": job_id} for job_id in job_ids]
        self._mark(sa.update(t.job).where(t.job.c.id == sa.bindparam("job")).values(given=True), rows)

    def admitted(self, *, limit: int) -> tuple[Turn, ...]:
        """VMs that have their slots and were not given yet."""
        columns = (t.job_vm.c.job_id, t.job_vm.c.vm_id, t.job.c.kind, t.job.c.request, t.job.c.agreed)
        query = (
            sa.select(*columns)
            .join(t.job, t.job.c.id == t.job_vm.c.job_id)
            .where(sa.text("job_vm.stage = 'admitted'"))
            .order_by(t.job_vm.c.rank)
            .limit(limit)
        )
        with self._reader.connect() as connection:
            return tuple(_turn(row) for row in connection.execute(query))

    def given(self, turns: Iterable[Turn]) -> None:
        """Mark VMs as given; one that went back into its line meanwhile stays there."""
        rows = [{"job": turn.job_id, "vm": turn.vm_id} for turn in turns]
        mine = (t.job_vm.c.job_id == sa.bindparam("job"), t.job_vm.c.vm_id == sa.bindparam("vm"))
        update = sa.update(t.job_vm).where(*mine, t.job_vm.c.stage == Stage.ADMITTED)
        self._mark(update.values(stage=Stage.GIVEN), rows)

    def working(self) -> tuple[Turn, ...]:
        """VMs that were given and have not ended."""
        columns = (t.job_vm.c.job_id, t.job_vm.c.vm_id, t.job.c.kind, t.job.c.request, t.job.c.agreed)
        joined = sa.select(*columns).join(t.job, t.job.c.id == t.job_vm.c.job_id)
        with self._reader.connect() as connection:
            rows = connection.execute(joined.where(t.job_vm_lives, t.job_vm.c.stage == Stage.GIVEN))
            return tuple(_turn(row) for row in rows)

    def opening(self) -> tuple[str, ...]:
        """Backups that were given to be opened and have VMs that do not wait yet."""
        vms = sa.exists().where(t.job_vm.c.job_id == t.job.c.id, t.job_vm_lives, t.job_vm.c.stage == Stage.UNOPENED)
        query = sa.select(t.job.c.id).where(t.job_lives, t.job.c.kind == JobKind.BACKUP, t.job.c.given, vms)
        with self._reader.connect() as connection:
            return tuple(connection.scalars(query))

    def done(self) -> tuple[str, ...]:
        """Backups that run although all their VMs have ended."""
        vms = sa.exists().where(t.job_vm.c.job_id == t.job.c.id, t.job_vm_lives)
        running = (t.job_lives, t.job.c.state == JobState.RUNNING, t.job.c.kind == JobKind.BACKUP)
        with self._reader.connect() as connection:
            return tuple(connection.scalars(sa.select(t.job.c.id).where(*running, ~vms)))

    def untold(self, *, limit: int) -> dict[str, int]:
        """Jobs with VMs that wait, which nobody was told yet, and how many VMs these are."""
        vms = sa.func.count().label("vms")
        query = (
            sa.select(t.job.c.id, vms)
            .join(t.job_vm, t.job_vm.c.job_id == t.job.c.id)
            .where(t.job_lives, ~t.job.c.wait_told, sa.text("job_vm.stage = 'waiting'"))
            .group_by(t.job.c.id)
            .limit(limit)
        )
        with self._reader.connect() as connection:
            return {row.id: row.vms for row in connection.execute(query)}

    def told(self, job_ids: Iterable[str]) -> None:
        """Mark jobs whose waiting was told."""
        rows = [{"job": job_id} for job_id in job_ids]
        self._mark(sa.update(t.job).where(t.job.c.id == sa.bindparam("job")).values(wait_told=True), rows)

    def _mark(self, update: sa.Update, rows: Sequence[Mapping[str, str]]) -> None:
        if rows:
            with self._engine.begin() as connection:
                connection.execute(update, list(rows))


def _turn(row: Any) -> Turn:
    return Turn(
        job_id=row.job_id,
        vm_id=row.vm_id,
        kind=JobKind(row.kind),
        request=json.loads(row.request),
        agreed=json.loads(row.agreed or "{}"),
    )
