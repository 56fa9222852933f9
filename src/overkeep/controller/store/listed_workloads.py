# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads in lists: what their rows say, without a value for each member."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from overkeep.controller.store import schema as t
from overkeep.controller.store.among import is_among, texts, texts_named
from overkeep.controller.store.consistency import consistency_value
from overkeep.controller.store.selections import rules_value
from overkeep.model.consistency import Consistency
from overkeep.model.selection import Rules

_C, _M = t.workload.c, t.workload_vm.c
_LISTED = (_C.id, _C.name, _C.description, _C.created, _C.target, _C.rules, _C.parallel, _C.consistency, _C.version)
_MEMBERS = (
    sa.select(_M.workload_id, _M.vm_id, _M.vm_name, _M.by_rule)
    .where(is_among(_M.workload_id, texts_named("ids")))
    .order_by(_M.position)
)


class ListedWorkload(NamedTuple):
    """A workload of a list: its row, and of its members id, name and whether its rules found them, in their order."""

    id: str
    name: str
    description: str
    created: str
    target: str
    rules_text: str
    parallel: int | None
    consistency_text: str
    version: int
    members: Sequence[Sequence[Any]]

    @property
    def rules(self) -> Rules:
        """Its rules."""
        return rules_value(self.rules_text)

    @property
    def consistency(self) -> Consistency:
        """How consistent its points are to be."""
        return consistency_value(json.loads(self.consistency_text))


def page(
    connection: sa.Connection, after: tuple[str, str] | None, *, limit: int, ids: Collection[str] | None
) -> tuple[ListedWorkload, ...]:
    """The first workloads by name and id, or those after one. `ids`: only these."""
    query = sa.select(*_LISTED).order_by(_C.name, _C.id).limit(limit)
    if after is not None:
        query = query.where(sa.tuple_(_C.name, _C.id) > sa.tuple_(*map(sa.literal, after)))
    if ids is not None:
        query = query.where(is_among(_C.id, texts(sorted(ids))))
    rows = connection.execute(query).all()
    members: dict[str, list[Sequence[Any]]] = {row[0]: [] for row in rows}
    if rows:
        for workload_id, *member in map(tuple, connection.execute(_MEMBERS, {"ids": list(members)}).all()):
            members[workload_id].append(member)
    return tuple(ListedWorkload(*row, members[row[0]]) for row in rows)
