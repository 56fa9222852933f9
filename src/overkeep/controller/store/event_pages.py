# SPDX-License-Identifier: GPL-3.0-or-later
"""The queries of lists of events: each filter is served by an index, however rare what it wants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from overkeep.controller.events import Filter, Kind, Level
from overkeep.controller.store import schema as t
from overkeep.controller.store.event_spans import EVERYWHERE

_C = t.event.c
_Condition = sa.ColumnElement[bool] | sa.TextClause


def page(wanted: Filter, *, among: range, newest: bool, limit: int) -> sa.Select[Any]:
    """The first events that are wanted among some numbers, by falling or rising ones."""
    order = _C.seq.desc() if newest else _C.seq.asc()
    found = [*_conditions(wanted), *_numbered(among)]
    kinds = _kinds(wanted.kind)
    if len(kinds) < 2 or any(True for _ in _few(wanted)):
        if kinds:
            found.append(_C.kind.in_(kinds) if len(kinds) > 1 else _C.kind == kinds[0])
        return sa.select(t.event).where(*found).order_by(order).limit(limit)
    # the first of each kind, which its index gives in their order, and then the first of these
    each = [sa.select(_C.seq).where(_C.kind == kind, *found).order_by(order).limit(limit).subquery() for kind in kinds]
    numbers = sa.union_all(*(sa.select(one.c.seq) for one in each)).subquery()
    return sa.select(t.event).where(_C.seq.in_(sa.select(numbers.c.seq))).order_by(order).limit(limit)


def _numbered(among: range) -> Iterator[_Condition]:
    if among.start > EVERYWHERE.start:
        yield _C.seq >= among.start
    if among.stop < EVERYWHERE.stop:
        yield _C.seq < among.stop


def _kinds(wanted: str) -> list[str]:
    """The kinds that are meant; a word that means none stands for itself: a later version may know it."""
    meant = [str(kind) for kind in Kind if kind == wanted or kind.startswith(f"{wanted}.")]
    return meant or ([wanted] if wanted else [])


def _few(wanted: Filter) -> Iterator[_Condition]:
    """Conditions that leave few events."""
    if wanted.job_id:
        yield _C.job_id == wanted.job_id
    if wanted.workload_id:
        yield _C.workload_id == wanted.workload_id
    if wanted.vm:
        yield (_C.vm_id == wanted.vm) | (_C.vm_name == wanted.vm)
    if wanted.point_id:
        yield _C.point_id == wanted.point_id


def _conditions(wanted: Filter) -> Iterator[_Condition]:
    yield from _few(wanted)
    for name in ("point_id", "target", "host", "caller"):
        if value := getattr(wanted, name):
            yield t.EVENT_SAYS[name]  # for the index
            if name != "point_id":
                yield _C[name] == value
    if wanted.level is not Level.INFO:
        yield t.EVENT_BAD  # for the index
        yield _C.level.in_(wanted.level.and_worse)
    if wanted.vm_ids is not None:
        yield _of_vms(sorted(wanted.vm_ids))
    if wanted.since:
        yield _C.time >= wanted.since
    if wanted.until:
        yield _C.time < wanted.until


def _of_vms(vm_ids: list[str]) -> _Condition:
    """Events of VMs, and what is told of no VM by itself: of jobs and of workloads with one of them."""
    jobs = sa.select(t.job_vm.c.job_id).where(t.job_vm.c.vm_id.in_(vm_ids))
    workloads = sa.select(t.workload_vm.c.workload_id).where(t.workload_vm.c.vm_id.in_(vm_ids))
    no_job = (_C.job_id == "") & _C.workload_id.in_(workloads)
    return _C.vm_id.in_(vm_ids) | ((_C.vm_id == "") & (_C.job_id.in_(jobs) | no_job))
