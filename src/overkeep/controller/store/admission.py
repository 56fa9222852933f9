# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits and what has slots in the data base: VMs of jobs get all that they need in one transaction."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from overkeep.controller.records import JobKind, JobState, Stage
from overkeep.controller.store import schema as t
from overkeep.controller.store.database import alone, reading
from overkeep.controller.store.limits import settings_in
from overkeep.model.admission import Limits, ResourceKind, Setting, Waiting, admit, in_order, is_group, room, workload
from overkeep.units import utc_now

WAITING = sa.text("job_vm.stage = 'waiting'")  # spelt out, as SQLite uses a partial index only for its own words
_CHUNK = 500  # values in one IN


@dataclass(frozen=True, kw_only=True)
class Line:
    """All VMs that wait for the same: what they need, the rank of the first, and how many they are."""

    needs: tuple[str, ...]
    first: str
    length: int


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A VM of a job that has a slot."""

    job_id: str
    vm_id: str
    vm_name: str


Overdue = Callable[[Sequence[Line], Limits], frozenset[str]]
"""Of the lines that wait, the ranks of those first ones that others passed by for too long."""


# Statements that each step makes are put together once: that costs more than to run them.
_MINE = (t.job_vm.c.job_id == sa.bindparam("job"), t.job_vm.c.vm_id == sa.bindparam("vm"))
_STAGE = sa.select(t.job_vm.c.stage).where(*_MINE)
_SLOTS = sa.select(t.slot.c.resource).where(
    t.slot.c.job_id == sa.bindparam("job"), t.slot.c.vm_id == sa.bindparam("vm")
)


_MOVE = sa.update(t.job_vm).where(*_MINE).values(stage=sa.bindparam("to"))
_GIVE_SLOTS = sa.insert(t.slot)
_LINES = (
    sa.select(t.job_vm.c.needs, sa.func.min(t.job_vm.c.rank), sa.func.count()).where(WAITING).group_by(t.job_vm.c.needs)
)
_USED = sa.select(t.slot.c.resource, sa.func.count()).group_by(t.slot.c.resource)
_LIMITED = sa.select(t.workload.c.id, t.workload.c.parallel).where(t.workload.c.parallel.is_not(None))
_ENDING = sa.select(t.job.c.id).where(t.job.c.cancel_requested, t.job_lives)


class Admission:
    """The tables of slots and of what waits for them. `news` is set when a round may find something to admit.

    A slot is given back in the transaction that writes that the VM's work has ended (`Jobs.set_vm`, `Jobs.end`).
    """

    def __init__(self, engine: sa.Engine, *, defaults: Mapping[ResourceKind, int]) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._defaults = dict(defaults)
        self.news = threading.Event()

    def limits(self) -> Limits:
        """What is in force now."""
        with self._reader.connect() as connection:
            return self._limits(connection)

    def wait(self, job_id: str, needs: Mapping[str, Sequence[str]], *, ranks: Mapping[str, str]) -> None:
        """Let VMs of a job wait for what they need, both by VM; those that do or did already stay as they are."""
        line_up = (
            sa.update(t.job_vm)
            .where(t.job_vm.c.job_id == job_id, t.job_vm.c.vm_id == sa.bindparam("vm"))
            .where(t.job_vm.c.stage == Stage.UNOPENED)
            .values(stage=Stage.WAITING, needs=sa.bindparam("all_needs"), rank=sa.bindparam("place"))
        )
        rows = [
            {"vm": vm_id, "all_needs": needs_text(needed), "place": ranks[vm_id]} for vm_id, needed in needs.items()
        ]
        with self._engine.begin() as connection:
            connection.execute(line_up, rows)
        self.news.set()

    def wait_again(self, job_id: str, vm_id: str, needs: Sequence[str]) -> None:
        """Give the slots of a VM back and let it wait for others, at its place in line."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(t.slot).where(*_slot_of(job_id, vm_id)))
            connection.execute(
                sa.update(t.job_vm)
                .where(*_vm(job_id, vm_id))
                .values(stage=Stage.WAITING, state=JobState.QUEUED, phase="", needs=needs_text(needs))
            )
        self.news.set()

    def stage(self, job_id: str, vm_id: str) -> Stage:
        """How far a VM is on the way to its turn."""
        with self._reader.connect() as connection:
            return Stage(connection.scalar(_STAGE, {"job": job_id, "vm": vm_id}) or "")

    def slots(self, job_id: str, vm_id: str) -> frozenset[str]:
        """The resources of which a VM has a slot."""
        with self._reader.connect() as connection:
            found = connection.scalars(_SLOTS, {"job": job_id, "vm": vm_id})
            return frozenset(found)

    def round(self, overdue: Overdue) -> tuple[Waiting, ...]:
        """Let those begin whose turn it is: they get their slots, and `Turns` has them to be given to the job engine.

        What waits is looked at line by line, not VM by VM: there may be ten thousand.
        """
        with self._engine.begin() as connection:
            alone(connection, "admission")
            lines = _lines(connection)
            if not lines:
                return ()
            limits = self._limits(connection)
            free = room(limits, _used(connection), {need for line in lines for need in line.needs})
            late = overdue(lines, limits)
            begun = admit(_candidates(connection, lines, free, late), free, ordered=in_order(limits, free))
            _give_slots(connection, begun)
        return begun

    def lines(self) -> tuple[Line, ...]:
        """What waits, by what it waits for."""
        with self._reader.connect() as connection:
            return _lines(connection)

    def used(self) -> dict[str, int]:
        """How many slots of each resource are taken."""
        with self._reader.connect() as connection:
            return _used(connection)

    def needs_of(self, job_ids: Sequence[str]) -> dict[tuple[str, str], tuple[str, ...]]:
        """What waiting VMs of jobs need, by job and VM."""
        columns = (t.job_vm.c.job_id, t.job_vm.c.vm_id, t.job_vm.c.needs)
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        with self._reader.connect() as connection:
            for start in range(0, len(job_ids), _CHUNK):
                some = t.job_vm.c.job_id.in_(job_ids[start : start + _CHUNK])
                rows = connection.execute(sa.select(*columns).where(WAITING, some))
                found |= {(row.job_id, row.vm_id): needs_value(row.needs) for row in rows}
        return found

    def holders(self, resources: Sequence[str]) -> dict[str, tuple[Holder, ...]]:
        """Who has slots of some resources, by resource; in the order of the names."""
        both = (t.job_vm.c.job_id == t.slot.c.job_id) & (t.job_vm.c.vm_id == t.slot.c.vm_id)
        query = (
            sa.select(t.slot.c.resource, t.job_vm.c.job_id, t.job_vm.c.vm_id, t.job_vm.c.vm_name)
            .join(t.job_vm, both)
            .where(t.slot.c.resource.in_(resources))
            .order_by(t.job_vm.c.vm_name, t.job_vm.c.job_id)
        )
        found: dict[str, list[Holder]] = {resource: [] for resource in resources}
        with self._reader.connect() as connection:
            for row in connection.execute(query):
                found[row.resource].append(Holder(job_id=row.job_id, vm_id=row.vm_id, vm_name=row.vm_name))
        return {resource: tuple(holders) for resource, holders in found.items()}

    def is_any_cancelled(self) -> bool:
        """Whether a job that lives is to end: only then `Jobs.end_waiting` and `free_cancelled` find anything."""
        with self._reader.connect() as connection:
            return connection.scalar(_ENDING.limit(1)) is not None

    def free_cancelled(self) -> int:
        """Let waiting restores and removals that are to end begin without slots: they end at their first look."""
        asked = sa.select(t.job.c.id).where(t.job.c.cancel_requested, t.job.c.kind != JobKind.BACKUP, t.job_lives)
        with self._engine.begin() as connection:
            update = sa.update(t.job_vm).where(WAITING, t.job_vm.c.job_id.in_(asked)).values(stage=Stage.ADMITTED)
            return connection.execute(update).rowcount

    def sweep(self) -> int:
        """Give back slots of what does not live; there are none unless a data base was restored. Return how many."""
        lives = sa.exists().where(
            t.job_vm.c.job_id == t.slot.c.job_id, t.job_vm.c.vm_id == t.slot.c.vm_id, t.job_vm_lives
        )
        with self._engine.begin() as connection:
            return connection.execute(sa.delete(t.slot).where(~lives)).rowcount

    def _limits(self, connection: sa.Connection) -> Limits:
        return Limits(defaults=self._defaults, settings=settings_in(connection) | _workloads(connection), at=utc_now())


def needs_text(needs: Sequence[str]) -> str:
    """What a VM needs as it is kept: the same text for the same resources."""
    return json.dumps(sorted(set(needs)))


def needs_value(text: str) -> tuple[str, ...]:
    """The reverse."""
    return tuple(json.loads(text))


def _workloads(connection: sa.Connection) -> dict[str, Setting]:
    """Of how many VMs at once workloads are backed up, those of all left out."""
    found = (Setting(resource=workload(row.id), capacity=row.parallel) for row in connection.execute(_LIMITED))
    return {setting.resource: setting for setting in found}


def _vm(job_id: str, vm_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (t.job_vm.c.job_id == job_id, t.job_vm.c.vm_id == vm_id)


def _slot_of(job_id: str, vm_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (t.slot.c.job_id == job_id, t.slot.c.vm_id == vm_id)


def _lines(connection: sa.Connection) -> tuple[Line, ...]:
    rows = connection.execute(_LINES).all()
    return tuple(Line(needs=needs_value(needs), first=first, length=length) for needs, first, length in rows)


def _used(connection: sa.Connection) -> dict[str, int]:
    rows = connection.execute(_USED).all()
    return {row[0]: row[1] for row in rows}


def _candidates(
    connection: sa.Connection, lines: Sequence[Line], free: Mapping[str, int], late: frozenset[str]
) -> list[Waiting]:
    """The first of each line that may move, as many as may begin at all; the first alone of one that may not.

    Of groups all: they begin together or not at all.
    """
    alone = [line for line in lines if not any(map(is_group, line.needs))]
    moving = {needs_text(line.needs): n for line in alone if (n := min(free[need] for need in line.needs)) > 0}
    stuck = [line for line in alone if needs_text(line.needs) not in moving]
    found = [Waiting(job_id="", vm_id="", rank=x.first, needs=x.needs, overdue=x.first in late) for x in stuck]
    moving |= {needs_text(line.needs): line.length for line in lines if any(map(is_group, line.needs))}
    keys = list(moving)
    for start in range(0, len(keys), _CHUNK):
        some = keys[start : start + _CHUNK]
        found += _firsts(connection, some, most=max(moving[key] for key in some), late=late)
    return found


def _the_firsts() -> sa.Select[Any]:
    place = sa.func.row_number().over(partition_by=t.job_vm.c.needs, order_by=t.job_vm.c.rank).label("place")
    columns = (t.job_vm.c.job_id, t.job_vm.c.vm_id, t.job_vm.c.rank, t.job_vm.c.needs, place)
    among = t.job_vm.c.needs.in_(sa.bindparam("keys", expanding=True))
    inner = sa.select(*columns).where(WAITING, among).subquery()
    return sa.select(inner).where(inner.c.place <= sa.bindparam("most"))


_FIRSTS = _the_firsts()


def _firsts(connection: sa.Connection, keys: Sequence[str], *, most: int, late: frozenset[str]) -> list[Waiting]:
    rows = connection.execute(_FIRSTS, {"keys": keys, "most": most}).all()
    return [
        Waiting(
            job_id=row.job_id,
            vm_id=row.vm_id,
            rank=row.rank,
            needs=needs_value(row.needs),
            overdue=row.place == 1 and row.rank in late,
        )
        for row in rows
    ]


def _give_slots(connection: sa.Connection, begun: Sequence[Waiting]) -> None:
    if not begun:
        return
    slots = [{"job_id": one.job_id, "vm_id": one.vm_id, "resource": need} for one in begun for need in one.needs]
    connection.execute(_GIVE_SLOTS, slots)
    _move(connection, [(one.job_id, one.vm_id) for one in begun], Stage.ADMITTED)


def _move(connection: sa.Connection, vms: Sequence[tuple[str, str]], stage: Stage) -> None:
    if vms:
        connection.execute(_MOVE, [{"job": job_id, "vm": vm_id, "to": stage} for job_id, vm_id in vms])
