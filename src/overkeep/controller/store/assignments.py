# SPDX-License-Identifier: GPL-3.0-or-later
"""Which workload has which policy, how far its runs were planned, and whether anything is planned at all."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa

from overkeep.controller.records import Assignment
from overkeep.controller.store import schema as t

_PAUSED = "scheduler-paused"


class Assignments:
    """The tables of the scheduler. What was to run while it was paused is not made up for."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def set_policy(self, workload_id: str, policy_id: str | None, *, now: dt.datetime) -> None:
        """Give a workload a policy whose runs count from now on, or none."""
        with self._engine.begin() as connection:
            found = connection.scalar(sa.select(t.assignment.c.paused).where(_is(workload_id)))
            connection.execute(sa.delete(t.assignment).where(_is(workload_id)))
            if policy_id is not None:
                row = {
                    "workload_id": workload_id,
                    "policy_id": policy_id,
                    "paused": bool(found),
                    "planned_up_to": _stamp(now),
                    "told": "",
                }
                connection.execute(sa.insert(t.assignment).values(row))

    def pause(self, workload_id: str) -> None:
        """Plan no runs of a workload."""
        self._update(sa.update(t.assignment).where(_is(workload_id)).values(paused=True))

    def resume(self, workload_id: str, *, now: dt.datetime) -> None:
        """Plan its runs again, from now on; one that was not paused stays as it is."""
        paused = (_is(workload_id), t.assignment.c.paused)
        self._update(sa.update(t.assignment).where(*paused).values(paused=False, planned_up_to=_stamp(now)))

    def mark(self, workload_id: str, planned_up_to: dt.datetime, *, told: str | None = None) -> None:
        """Write down how far the runs of a workload were looked at, and what became of the last."""
        values = {"planned_up_to": _stamp(planned_up_to), **({} if told is None else {"told": told})}
        self._update(sa.update(t.assignment).where(_is(workload_id)).values(values))

    def plan_anew(self, policy_id: str, *, now: dt.datetime) -> None:
        """Count the runs of all workloads of a policy from now on."""
        mine = t.assignment.c.policy_id == policy_id
        self._update(sa.update(t.assignment).where(mine).values(planned_up_to=_stamp(now)))

    def of(self, workload_id: str) -> Assignment | None:
        """The policy of a workload, if it has one."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(t.assignment).where(_is(workload_id))).first()
        return None if row is None else _value(row)

    def all(self) -> tuple[Assignment, ...]:
        """All workloads that have a policy."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(t.assignment).order_by(t.assignment.c.workload_id)).all()
        return tuple(_value(row) for row in rows)

    @property
    def all_paused(self) -> bool:
        """Whether the scheduler is switched off."""
        with self._engine.connect() as connection:
            return connection.scalar(sa.select(t.switch.c.name).where(t.switch.c.name == _PAUSED)) is not None

    def pause_all(self) -> None:
        """Switch the scheduler off."""
        with self._engine.begin() as connection:
            if connection.scalar(sa.select(t.switch.c.name).where(t.switch.c.name == _PAUSED)) is None:
                connection.execute(sa.insert(t.switch).values(name=_PAUSED))

    def resume_all(self, *, now: dt.datetime) -> None:
        """Switch it on; runs count from now on. When it was on nothing changes."""
        with self._engine.begin() as connection:
            if connection.execute(sa.delete(t.switch).where(t.switch.c.name == _PAUSED)).rowcount:
                connection.execute(sa.update(t.assignment).values(planned_up_to=_stamp(now)))

    def _update(self, statement: sa.Update) -> None:
        with self._engine.begin() as connection:
            connection.execute(statement)


def _is(workload_id: str) -> sa.ColumnElement[bool]:
    return t.assignment.c.workload_id == workload_id


def _stamp(now: dt.datetime) -> str:
    return now.astimezone(dt.UTC).isoformat(timespec="seconds")


def _value(row: Any) -> Assignment:
    return Assignment(
        workload_id=row.workload_id,
        policy_id=row.policy_id,
        paused=row.paused,
        planned_up_to=row.planned_up_to,
        told=row.told,
    )
