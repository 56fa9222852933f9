# SPDX-License-Identifier: GPL-3.0-or-later
"""Which workload has which policy, how far its runs were planned, and whether anything is planned at all."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.records import Assignment
from overkeep.controller.store import schema as t
from overkeep.controller.store.events import Events

_PAUSED = "scheduler-paused"


class Assignments:
    """The tables of the scheduler. What was to run while it was paused is not made up for."""

    def __init__(self, engine: sa.Engine, events: Events) -> None:
        self._engine = engine
        self._events = events

    def set_policy(self, workload_id: str, policy_id: str | None, *, now: dt.datetime, caller: str = "") -> None:
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
            self._events.insert(connection, _given(connection, workload_id, policy_id, caller))
        self._events.tell()

    def pause(self, workload_id: str, *, caller: str = "") -> None:
        """Plan no runs of a workload; one that is paused stays so."""
        running = (_is(workload_id), t.assignment.c.paused.is_(False))
        statement = sa.update(t.assignment).where(*running).values(paused=True)
        self._switch(statement, Kind.WORKLOAD_PAUSED, workload_id, caller=caller)

    def resume(self, workload_id: str, *, now: dt.datetime, caller: str = "") -> None:
        """Plan its runs again, from now on; one that was not paused stays as it is."""
        paused = (_is(workload_id), t.assignment.c.paused)
        statement = sa.update(t.assignment).where(*paused).values(paused=False, planned_up_to=_stamp(now))
        self._switch(statement, Kind.WORKLOAD_RESUMED, workload_id, caller=caller)

    def mark(self, workload_id: str, planned_up_to: dt.datetime, *, told: str | None = None) -> None:
        """Write down how far the runs of a workload were looked at, and what became of the last."""
        values = {"planned_up_to": _stamp(planned_up_to), **({} if told is None else {"told": told})}
        self._update(sa.update(t.assignment).where(_is(workload_id)).values(values))

    def mark_all(self, told: Mapping[str, tuple[dt.datetime, str]]) -> None:
        """As `mark`, of many workloads at once."""
        rows = [{"id": key, "until": _stamp(until), "word": word} for key, (until, word) in told.items()]
        update = sa.update(t.assignment).where(t.assignment.c.workload_id == sa.bindparam("id"))
        if rows:
            with self._engine.begin() as connection:
                marked = update.values(planned_up_to=sa.bindparam("until"), told=sa.bindparam("word"))
                connection.execute(marked, rows)

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

    def pause_all(self, *, caller: str = "") -> None:
        """Switch the scheduler off."""
        with self._engine.begin() as connection:
            if connection.scalar(sa.select(t.switch.c.name).where(t.switch.c.name == _PAUSED)) is None:
                connection.execute(sa.insert(t.switch).values(name=_PAUSED))
                told = Draft(kind=Kind.SCHEDULER_PAUSED, text="No runs are planned at all", caller=caller)
                self._events.insert(connection, told)
        self._events.tell()

    def resume_all(self, *, now: dt.datetime, caller: str = "") -> None:
        """Switch it on; runs count from now on. When it was on nothing changes."""
        with self._engine.begin() as connection:
            if connection.execute(sa.delete(t.switch).where(t.switch.c.name == _PAUSED)).rowcount:
                connection.execute(sa.update(t.assignment).values(planned_up_to=_stamp(now)))
                told = Draft(kind=Kind.SCHEDULER_RESUMED, text="Runs are planned again", caller=caller)
                self._events.insert(connection, told)
        self._events.tell()

    def _update(self, statement: sa.Update) -> None:
        with self._engine.begin() as connection:
            connection.execute(statement)

    def _switch(self, statement: sa.Update, kind: Kind, workload_id: str, *, caller: str) -> None:
        """Pause or resume a workload, and tell of it if it was not so before."""
        with self._engine.begin() as connection:
            if connection.execute(statement).rowcount:
                name = _name(connection, workload_id)
                paused = kind is Kind.WORKLOAD_PAUSED
                text = f"No runs of workload {name!r} are planned" if paused else f"Workload {name!r} is planned again"
                about = About(workload_id=workload_id)
                self._events.insert(connection, Draft(kind=kind, text=text, about=about, caller=caller))
        self._events.tell()


def _name(connection: sa.Connection, workload_id: str) -> str:
    return connection.scalar(sa.select(t.workload.c.name).where(t.workload.c.id == workload_id)) or workload_id


def _given(connection: sa.Connection, workload_id: str, policy_id: str | None, caller: str) -> Draft:
    policy = connection.scalar(sa.select(t.policy.c.name).where(t.policy.c.id == policy_id))
    has = f"has policy {policy!r}" if policy_id else "has no policy"
    return Draft(
        kind=Kind.WORKLOAD_POLICY,
        text=f"Workload {_name(connection, workload_id)!r} {has} now",
        about=About(workload_id=workload_id),
        caller=caller,
        fields={"policy_id": policy_id},
    )


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
