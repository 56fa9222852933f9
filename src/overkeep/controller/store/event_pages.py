# SPDX-License-Identifier: GPL-3.0-or-later
"""The queries of lists of events: each filter is served by an index, however rare what it wants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from overkeep.controller.events import Filter, Kind, Level
from overkeep.controller.store import schema as t
from overkeep.controller.store.among import has_among, is_among, texts, unindexed
from overkeep.controller.store.event_spans import EVERYWHERE
from overkeep.controller.store.few_vms import are_few, found_first
from overkeep.controller.store.listed_events import LISTED

_C = t.event.c
_RATE = 11  # both ways take as long for 33 of 10,000 VMs with a hundred jobs each and a page of 100, on PostgreSQL
_ANY_SEQ = _C.seq + 0  # not for an index: SQLite would go through all numbers rather than find the few rows
_Condition = sa.ColumnElement[bool] | sa.TextClause


def page(wanted: Filter, *, among: range, newest: bool, limit: int) -> sa.Select[Any]:
    """The first events that are wanted among some numbers, by falling or rising ones."""
    order = _C.seq.desc() if newest else _C.seq.asc()
    kinds = _kinds(wanted.kind)
    few = [*_few(wanted)]
    if wanted.vm_ids is not None and are_few(wanted.vm_ids, limit, rate=_RATE) and not few:
        return _of_few_vms(wanted, kinds, among).order_by(sa.desc("seq") if newest else "seq").limit(limit)
    found = [*few, *_others(wanted), *_of_vms(wanted), *_numbered(among)]
    if few or not kinds:
        return sa.select(*LISTED).where(*found, *_of_kinds(kinds)).order_by(order).limit(limit)
    # the first of each kind, which its index gives in their order, and then the first of these
    each = [_of_kind(kind, found, newest=newest).limit(limit).subquery() for kind in kinds]
    numbers = sa.union_all(*(sa.select(one.c.seq) for one in each)).subquery()
    return sa.select(*LISTED).where(_C.seq.in_(sa.select(numbers.c.seq))).order_by(order).limit(limit)


def _of_kind(kind: str, found: list[_Condition], *, newest: bool) -> sa.Select[Any]:
    """The numbers of the events of a kind in their order.

    A kind and a level, or a target, go together: servers expect one that is not there everywhere, and would walk over
    all events. Asked for a range of kinds in the order of kinds they use the index that has this order.
    """
    order = (_C.kind.desc(), _C.seq.desc()) if newest else (_C.kind, _C.seq)
    return sa.select(_C.seq).where(_C.kind.between(kind, kind), *found).order_by(*order)


def _numbered(among: range, seq: sa.ColumnElement[int] = _C.seq) -> Iterator[_Condition]:
    if among.start > EVERYWHERE.start:
        yield seq >= among.start
    if among.stop < EVERYWHERE.stop:
        yield seq < among.stop


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


def _of_kinds(kinds: list[str]) -> Iterator[_Condition]:
    if kinds:
        yield _C.kind.in_(kinds) if len(kinds) > 1 else _C.kind == kinds[0]


def _others(wanted: Filter) -> Iterator[_Condition]:
    for name in ("point_id", "target", "host", "caller"):
        if value := getattr(wanted, name):
            yield t.EVENT_SAYS[name]  # for the index
            if name != "point_id":
                yield _C[name] == value
    if wanted.level is not Level.INFO:
        yield t.EVENT_BAD  # for the index
        yield _C.level.in_(wanted.level.and_worse)
    yield from _in_time(wanted, t.event)


def _in_time(wanted: Filter, rows: sa.FromClause) -> Iterator[_Condition]:
    if wanted.since:
        yield rows.c.time >= wanted.since
    if wanted.until:
        yield rows.c.time < wanted.until


def _of_vms(wanted: Filter) -> Iterator[_Condition]:
    """Events of VMs, and what is told of no VM by itself: of jobs and of workloads with one of them."""
    if wanted.vm_ids is None:
        return
    # Asked of each event that is met, in the order of the list: PostgreSQL would rather put together all events of the
    # VMs and all of whole jobs, and look at these. The jobs of the VMs it reads once when they fit into its memory, and
    # else it asks each event for its job.
    job, workload, vm_ids = t.job_vm.c, t.workload_vm.c, texts(sorted(wanted.vm_ids))
    of_job = sa.exists().where(job.job_id == _C.job_id, has_among(job.vm_id, vm_ids))
    of_workload = sa.exists().where(workload.workload_id == _C.workload_id, has_among(workload.vm_id, vm_ids))
    of_vm = is_among(unindexed(_C.vm_id), vm_ids)
    yield of_vm | sa.and_(t.EVENT_OF_JOB, of_job) | sa.and_(t.EVENT_OF_WORKLOAD, of_workload)


def _of_few_vms(wanted: Filter, kinds: list[str], among: range) -> sa.Select[Any]:
    """The same, and of all these what is wanted: all that is wanted of all VMs would be more to look through."""
    ways = _ways(sorted(wanted.vm_ids or ()))
    rows = found_first(sa.union_all(*(sa.select(*LISTED).where(*way, *_numbered(among, _ANY_SEQ)) for way in ways)))
    return sa.select(rows).where(*_of_found(wanted, kinds, rows))


def _of_found(wanted: Filter, kinds: list[str], rows: sa.CTE) -> Iterator[_Condition]:
    """What is wanted of rows that are found: SQLite would look for these with its index of what is wanted instead."""
    if kinds:
        yield unindexed(rows.c.kind).in_(kinds)
    for name in ("target", "host", "caller"):
        if value := getattr(wanted, name):
            yield unindexed(rows.c[name]) == value
    if wanted.level is not Level.INFO:
        yield unindexed(rows.c.level).in_(wanted.level.and_worse)
    yield from _in_time(wanted, rows)


def _ways(vm_ids: list[str]) -> Iterator[tuple[_Condition, ...]]:
    """How events are about VMs: each is so in one way, for which there is an index."""
    jobs = sa.select(t.job_vm.c.job_id).where(t.job_vm.c.vm_id.in_(vm_ids))
    workloads = sa.select(t.workload_vm.c.workload_id).where(t.workload_vm.c.vm_id.in_(vm_ids))
    yield (_C.vm_id.in_(vm_ids),)
    yield t.EVENT_OF_JOB, _C.job_id.in_(jobs)
    yield t.EVENT_OF_WORKLOAD, _C.workload_id.in_(workloads)
