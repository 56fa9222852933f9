# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies in the data base; each change has a version, and a change of what was changed meanwhile is refused."""

from __future__ import annotations

import json
import uuid
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from overkeep.controller.events import Draft, Kind
from overkeep.controller.records import StoredPolicy
from overkeep.controller.store import schema as t
from overkeep.controller.store.database import reading
from overkeep.controller.store.events import Events
from overkeep.errors import ChangedMeanwhile, Conflict, NotFound
from overkeep.model.policy import Policy, Terms

_POLICY = TypeAdapter(Policy)
_TERMS = TypeAdapter(Terms)


class Policies:
    """The table of policies."""

    def __init__(self, engine: sa.Engine, events: Events) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._events = events

    def create(self, policy: Policy, *, caller: str = "") -> StoredPolicy:
        """Add a policy; raise `Conflict` when the name is taken."""
        made = StoredPolicy(id=str(uuid.uuid4()), version=1, policy=policy)
        with self._engine.begin() as connection:
            _check_name(connection, policy.name, but="")
            connection.execute(sa.insert(t.policy).values(id=made.id, version=1, **_columns(policy)))
            self._events.insert(connection, _told(Kind.POLICY_MADE, made, caller))
        self._events.tell()
        return made

    def update(self, known: StoredPolicy, policy: Policy, *, caller: str = "") -> StoredPolicy:
        """Write a policy in place of the version that is `known`; raise `ChangedMeanwhile` when that is gone."""
        where = (t.policy.c.id == known.id, t.policy.c.version == known.version)
        with self._engine.begin() as connection:
            _check_name(connection, policy.name, but=known.id)
            values = {"version": known.version + 1, **_columns(policy)}
            if connection.execute(sa.update(t.policy).where(*where).values(values)).rowcount == 0:
                raise ChangedMeanwhile(kind="policy", name=known.policy.name)
            changed = StoredPolicy(id=known.id, version=known.version + 1, policy=policy)
            self._events.insert(connection, _told(Kind.POLICY_CHANGED, changed, caller))
        self._events.tell()
        return changed

    def delete(self, policy: StoredPolicy, *, caller: str = "") -> None:
        """Remove a policy; raise `Conflict` while a workload has it."""
        with self._engine.begin() as connection:
            users = connection.scalars(
                sa.select(t.workload.c.name)
                .join(t.assignment, t.assignment.c.workload_id == t.workload.c.id)
                .where(t.assignment.c.policy_id == policy.id)
                .order_by(t.workload.c.name)
            ).all()
            if users:
                what = f"Policy {policy.policy.name!r} is that of workload {', '.join(users)}"
                raise Conflict(what=what, todo="give it another policy first, with `overkeep workload set-policy`")
            if connection.execute(sa.delete(t.policy).where(t.policy.c.id == policy.id)).rowcount:
                self._events.insert(connection, _told(Kind.POLICY_REMOVED, policy, caller))
        self._events.tell()

    def all(self) -> tuple[StoredPolicy, ...]:
        """All policies, by name."""
        with self._reader.connect() as connection:
            return tuple(_value(row) for row in connection.execute(sa.select(t.policy).order_by(t.policy.c.name)))

    def get(self, name_or_id: str) -> StoredPolicy:
        """One policy; raise `NotFound` when there is none of this id or name."""
        named = (t.policy.c.id == name_or_id) | (t.policy.c.name == name_or_id)
        with self._reader.connect() as connection:
            row = connection.execute(sa.select(t.policy).where(named)).first()
        if row is None:
            raise NotFound(kind="policy", name=name_or_id, how="overkeep policy list")
        return _value(row)


def policy_document(policy: Policy) -> dict[str, Any]:
    """A policy as JSON."""
    document: dict[str, Any] = _POLICY.dump_python(policy, mode="json")
    return document


def terms_document(terms: Terms) -> dict[str, Any]:
    """The terms of a backup as JSON, as its workflows carry them."""
    document: dict[str, Any] = _TERMS.dump_python(terms, mode="json")
    return document


def terms_value(document: Any) -> Terms:
    """The terms of such a document; of a workflow that began before there were policies, those without one."""
    return _TERMS.validate_python(document or {})


def policy_value(document: Any) -> Policy:
    """The policy of such a document."""
    return _POLICY.validate_python(document)


def _columns(policy: Policy) -> dict[str, Any]:
    return {"name": policy.name, "document": json.dumps(policy_document(policy))}


def _value(row: Any) -> StoredPolicy:
    return StoredPolicy(id=row.id, version=row.version, policy=policy_value(json.loads(row.document)))


def _told(kind: Kind, policy: StoredPolicy, caller: str) -> Draft:
    what = {Kind.POLICY_MADE: "was made", Kind.POLICY_CHANGED: "was changed", Kind.POLICY_REMOVED: "was removed"}[kind]
    fields = {"policy_id": policy.id, "version": policy.version}
    return Draft(kind=kind, text=f"Policy {policy.policy.name!r} {what}", caller=caller, fields=fields)


def _check_name(connection: sa.Connection, name: str, *, but: str) -> None:
    if connection.scalar(sa.select(t.policy.c.id).where(t.policy.c.name == name, t.policy.c.id != but)):
        raise Conflict(what=f"There is a policy named {name!r} already", todo="choose another name")
