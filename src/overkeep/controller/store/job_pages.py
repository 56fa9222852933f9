# SPDX-License-Identifier: GPL-3.0-or-later
"""The queries of lists of jobs: each filter is served by an index, however rare what it wants."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import sqlalchemy as sa

from overkeep.controller.records import JobFilter, JobKind, JobState
from overkeep.controller.store import schema as t
from overkeep.controller.store.among import is_among, texts
from overkeep.controller.store.few_vms import are_few, found_first
from overkeep.controller.store.listed_jobs import LISTED

_C = t.job.c
_RATE = 40  # both ways take as long for 60 of 10,000 VMs with a hundred jobs each and a page of 100, on PostgreSQL
_ORDER = (_C.created.desc(), _C.id.desc())
_Condition = sa.ColumnElement[bool]


def page(wanted: JobFilter, *, before: tuple[str, str] | None, limit: int) -> sa.Select[Any]:
    """The newest jobs that are wanted, or those before the one of this time and id; the columns `LISTED` of them."""
    few = [*_few(wanted, limit)]
    found = [*few, *_others(wanted, limit)]
    if before is not None:
        found.append(sa.tuple_(_C.created, _C.id) < sa.tuple_(*map(sa.literal, before)))
    kinds, states = wanted.kinds or tuple(JobKind), wanted.states or tuple(JobState)
    if few or wanted.workload_id or not (wanted.kinds or wanted.states):
        found += [_C.kind.in_(kinds)] if wanted.kinds else []
        found += [_C.state.in_(states)] if wanted.states else []
        if few and not wanted.workload_id:
            first = found_first(sa.select(_C.id, _C.created).where(*found))
            ids = sa.select(first.c.id).order_by(first.c.created.desc(), first.c.id.desc()).limit(limit)
            return _of_ids(ids, limit)
        return sa.select(*LISTED).where(*found).order_by(*_ORDER).limit(limit)
    # the first of each kind and state, which the index gives in their order, and then the first of these
    each = [
        sa.select(_C.id).where(_C.kind == kind, _C.state == state, *found).order_by(*_ORDER).limit(limit).subquery()
        for kind, state in product(kinds, states)
    ]
    return _of_ids(sa.union_all(*(sa.select(one.c.id) for one in each)), limit)


def _of_ids(ids: sa.Select[Any] | sa.CompoundSelect[Any], limit: int) -> sa.Select[Any]:
    return sa.select(*LISTED).where(_C.id.in_(sa.select(ids.subquery().c.id))).order_by(*_ORDER).limit(limit)


def _few(wanted: JobFilter, limit: int) -> Iterator[_Condition]:
    """Conditions on VMs that leave few jobs."""
    if wanted.vm:
        named = (t.job_vm.c.vm_id == wanted.vm) | (t.job_vm.c.vm_name == wanted.vm)
        yield _C.id.in_(sa.select(t.job_vm.c.job_id).where(named))
    if wanted.vm_ids is not None and are_few(wanted.vm_ids, limit, rate=_RATE):
        yield _C.id.in_(sa.select(t.job_vm.c.job_id).where(t.job_vm.c.vm_id.in_(sorted(wanted.vm_ids))))


def _others(wanted: JobFilter, limit: int) -> Iterator[_Condition]:
    if wanted.workload_id:
        yield _C.workload_id == wanted.workload_id
    if wanted.vm_ids is not None and not are_few(wanted.vm_ids, limit, rate=_RATE):
        of_job = t.job_vm.c.job_id == _C.id
        # of a job all VMs are looked at: SQLite would ask its index for each of the wanted ones
        yield sa.exists().where(of_job, is_among(sa.func.coalesce(t.job_vm.c.vm_id, ""), texts(sorted(wanted.vm_ids))))
    if wanted.since:
        yield _C.created >= wanted.since
    if wanted.until:
        yield _C.created < wanted.until
