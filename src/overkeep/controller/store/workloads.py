# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads and their members in the data base."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.records import Member, Workload
from overkeep.controller.store import listed_workloads
from overkeep.controller.store import schema as t
from overkeep.controller.store.among import is_among, texts_named
from overkeep.controller.store.consistency import consistency_document, consistency_value
from overkeep.controller.store.database import listing, reading
from overkeep.controller.store.events import Events
from overkeep.controller.store.listed_workloads import ListedWorkload
from overkeep.controller.store.selections import rules_text, rules_value
from overkeep.errors import ChangedMeanwhile, Conflict, NotFound
from overkeep.model.conduct import Conduct
from overkeep.model.selection import Rules
from overkeep.units import utc_now

_NO_RULES = Rules()
_NO_CONDUCT = Conduct()


_TARGETS = (  # asked for by each backup
    sa.select(t.workload_target.c.target)
    .where(t.workload_target.c.workload_id == sa.bindparam("workload"))
    .order_by(t.workload_target.c.target)
)

_OF_VMS = sa.select(t.workload_vm.c.workload_id, t.workload_vm.c.vm_id).where(
    is_among(t.workload_vm.c.vm_id, texts_named("vms"))
)


class Workloads:
    """The table of workloads. A VM may be a member of several."""

    def __init__(self, engine: sa.Engine, events: Events) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._events = events

    def create(
        self,
        name: str,
        members: Sequence[Member],
        *,
        target: str,
        description: str = "",
        rules: Rules = _NO_RULES,
        conduct: Conduct = _NO_CONDUCT,
        caller: str = "",
    ) -> Workload:
        """Add a workload that is backed up to a target; raise `Conflict` when the name is taken."""
        made = Workload(
            id=str(uuid.uuid4()),
            name=name,
            description=description,
            created=utc_now().isoformat(timespec="seconds"),
            target=target,
            members=tuple(members),
            rules=rules,
            conduct=conduct,
        )
        with self._engine.begin() as connection:
            _check_name(connection, name, but="")
            row = {"id": made.id, "created": made.created, **_columns(made)}
            connection.execute(sa.insert(t.workload).values(row))
            _note_target(connection, made.id, target)
            _set_members(connection, made)
            self._events.insert(connection, _told(Kind.WORKLOAD_MADE, made, caller))
        self._events.tell()
        return made

    def update(self, workload: Workload, *, caller: str = "") -> None:
        """Write all but its id in place of its version; raise `ChangedMeanwhile` when that is gone."""
        with self._engine.begin() as connection:
            _check_name(connection, workload.name, but=workload.id)
            where = (t.workload.c.id == workload.id, t.workload.c.version == workload.version)
            values = {**_columns(workload), "version": workload.version + 1}
            if connection.execute(sa.update(t.workload).where(*where).values(values)).rowcount == 0:
                raise ChangedMeanwhile(kind="workload", name=workload.name)
            _note_target(connection, workload.id, workload.target)
            _set_members(connection, workload)
            self._events.insert(connection, _told(Kind.WORKLOAD_CHANGED, workload, caller))
        self._events.tell()

    def targets(self, workload_id: str) -> tuple[str, ...]:
        """All targets that a workload was ever given, by name."""
        with self._reader.connect() as connection:
            return tuple(connection.scalars(_TARGETS, {"workload": workload_id}))

    def settle_targets(self, target: str) -> None:
        """Give a target to the workloads that have none: they were made when there was only one."""
        with self._engine.begin() as connection:
            homeless = sa.select(t.workload.c.id).where(t.workload.c.target == "")
            for workload_id in connection.scalars(homeless).all():
                connection.execute(sa.update(t.workload).where(t.workload.c.id == workload_id).values(target=target))
                _note_target(connection, workload_id, target)

    def settle(self, workload: Workload) -> None:
        """Write what its rules found now; a workload that is gone or was changed meanwhile stays as it is."""
        with self._engine.begin() as connection:
            row = connection.execute(sa.select(t.workload).where(t.workload.c.id == workload.id)).first()
            if row is None or row.version != workload.version:
                return
            before = _workload(connection, row)
            if before.members != workload.members:
                _set_members(connection, workload)
                self._events.insert(connection, _members_told(before, workload))
        self._events.tell()

    def delete(self, workload: Workload, *, caller: str = "") -> None:
        """Forget a workload; its restore points stay on the target."""
        with self._engine.begin() as connection:
            for table in (t.workload_vm, t.workload_target, t.assignment):
                connection.execute(sa.delete(table).where(table.c.workload_id == workload.id))
            if connection.execute(sa.delete(t.workload).where(t.workload.c.id == workload.id)).rowcount:
                self._events.insert(connection, _told(Kind.WORKLOAD_REMOVED, workload, caller))
        self._events.tell()

    def all(self) -> tuple[Workload, ...]:
        """All workloads, by name."""
        with self._reader.connect() as connection:
            rows = connection.execute(sa.select(t.workload).order_by(t.workload.c.name)).all()
            members: dict[str, list[Member]] = {row.id: [] for row in rows}
            for m in connection.execute(sa.select(t.workload_vm).order_by(t.workload_vm.c.position)):
                members[m.workload_id].append(_member(m))
        return tuple(_value(row, members[row.id]) for row in rows)

    def page(
        self, after: tuple[str, str] | None, *, limit: int, ids: Collection[str] | None = None
    ) -> tuple[ListedWorkload, ...]:
        """The first workloads by name and id, or those after one; with their members. `ids`: only these."""
        with listing(self._reader) as connection:
            return listed_workloads.page(connection, after, limit=limit, ids=ids)

    def of_vms(self, vm_ids: Collection[str]) -> Mapping[str, frozenset[str]]:
        """The workloads that have some of these VMs, by id, with those that they have."""
        found: dict[str, set[str]] = {}
        with listing(self._reader) as connection:
            for workload_id, vm_id in connection.execute(_OF_VMS, {"vms": list(vm_ids)}).all():
                found.setdefault(workload_id, set()).add(vm_id)
        return {workload_id: frozenset(mine) for workload_id, mine in found.items()}

    def get(self, name_or_id: str) -> Workload:
        """One workload; raise `NotFound` when there is none of this id or name."""
        named = (t.workload.c.id == name_or_id) | (t.workload.c.name == name_or_id)
        with self._reader.connect() as connection:
            row = connection.execute(sa.select(t.workload).where(named)).first()
            if row is None:
                raise NotFound(kind="workload", name=name_or_id, how="overkeep workload list")
            return _workload(connection, row)


def _told(kind: Kind, workload: Workload, caller: str) -> Draft:
    what = {
        Kind.WORKLOAD_MADE: "was made",
        Kind.WORKLOAD_CHANGED: "was changed",
        Kind.WORKLOAD_REMOVED: "was removed; its restore points stay",
    }[kind]
    fields = {"name": workload.name, "vms": [member.vm_id for member in workload.members]}
    text = f"Workload {workload.name!r} {what}"
    about = About(workload_id=workload.id, target=workload.target)
    return Draft(kind=kind, text=text, about=about, caller=caller, fields=fields)


def _workload(connection: sa.Connection, row: Any) -> Workload:
    mine = sa.select(t.workload_vm).where(t.workload_vm.c.workload_id == row.id).order_by(t.workload_vm.c.position)
    return _value(row, [_member(each) for each in connection.execute(mine)])


def _member(row: Any) -> Member:
    return Member(vm_id=row.vm_id, vm_name=row.vm_name, by_rule=row.by_rule)


def _value(row: Any, members: Sequence[Member]) -> Workload:
    return Workload(
        id=row.id,
        name=row.name,
        description=row.description,
        created=row.created,
        target=row.target,
        members=tuple(members),
        rules=rules_value(row.rules),
        conduct=Conduct(parallel=row.parallel, consistency=consistency_value(json.loads(row.consistency))),
        version=row.version,
    )


def _columns(workload: Workload) -> dict[str, Any]:
    """What of a workload may be changed, but for its members."""
    return {
        "name": workload.name,
        "description": workload.description,
        "target": workload.target,
        "rules": rules_text(workload.rules),
        "parallel": workload.conduct.parallel,
        "consistency": json.dumps(consistency_document(workload.conduct.consistency)),
    }


def _note_target(connection: sa.Connection, workload_id: str, target: str) -> None:
    mine = (t.workload_target.c.workload_id == workload_id, t.workload_target.c.target == target)
    if connection.scalar(sa.select(t.workload_target.c.target).where(*mine)) is None:
        connection.execute(sa.insert(t.workload_target).values(workload_id=workload_id, target=target))


def _members_told(before: Workload, now: Workload) -> Draft:
    ids, was = ({member.vm_id for member in each.members} for each in (now, before))
    joined = [member.vm_name for member in now.members if member.vm_id not in was]
    left = [member.vm_name for member in before.members if member.vm_id not in ids]
    told = [f"{verb} it: {', '.join(names)}" for verb, names in (("joined", joined), ("left", left)) if names]
    text = f"By the rules of workload {now.name!r}, VMs {'; '.join(told) or 'have other names'}"
    fields = {"joined": joined, "left": left}
    return Draft(kind=Kind.WORKLOAD_MEMBERS, text=text, about=About(workload_id=now.id), fields=fields)


def _check_name(connection: sa.Connection, name: str, *, but: str) -> None:
    taken = connection.scalar(sa.select(t.workload.c.id).where(t.workload.c.name == name, t.workload.c.id != but))
    if taken:
        raise Conflict(what=f"There is a workload named {name!r} already", todo="choose another name")


def _set_members(connection: sa.Connection, workload: Workload) -> None:
    connection.execute(sa.delete(t.workload_vm).where(t.workload_vm.c.workload_id == workload.id))
    rows = [
        {
            "workload_id": workload.id,
            "vm_id": member.vm_id,
            "vm_name": member.vm_name,
            "position": position,
            "by_rule": member.by_rule,
        }
        for position, member in enumerate(workload.members)
    ]
    if rows:
        connection.execute(sa.insert(t.workload_vm), rows)
