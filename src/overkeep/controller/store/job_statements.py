# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements about jobs that each step makes, put together once: that costs more than to run them."""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from overkeep.controller.records import JobState
from overkeep.controller.store import schema as t

# What a change of a VM's row is told with: the row as it was, and what there is to say of its job.
AS_TOLD = sa.select(
    *(t.job_vm.c[name] for name in ("job_id", "vm_id", "vm_name", "state", "phase", "error_code", "error")),
    t.job.c.kind,
    t.job.c.workload_id,
    t.job.c.caller,
).where(
    t.job.c.id == t.job_vm.c.job_id,
    t.job_vm.c.job_id == sa.bindparam("job"),
    t.job_vm.c.vm_id == sa.bindparam("vm"),
)


def _put_disk(insert: postgresql.Insert | sqlite.Insert) -> sa.Insert:
    key = [column.name for column in t.job_disk.primary_key]
    new = {column.name: insert.excluded[column.name] for column in t.job_disk.c if column.name not in key}
    return insert.on_conflict_do_update(index_elements=key, set_=new)


PUT_DISK = {"postgresql": _put_disk(postgresql.insert(t.job_disk)), "sqlite": _put_disk(sqlite.insert(t.job_disk))}
FREE = sa.delete(t.slot).where(t.slot.c.job_id == sa.bindparam("job"), t.slot.c.vm_id == sa.bindparam("vm"))


@cache
def written(names: tuple[str, ...], *further: sa.TextClause) -> sa.Update:
    """Write these columns of the row of a VM in a job."""
    mine = (t.job_vm.c.job_id == sa.bindparam("job"), t.job_vm.c.vm_id == sa.bindparam("vm"))
    new: dict[str, sa.BindParameter[Any]] = {name: sa.bindparam(f"new_{name}") for name in names}
    return sa.update(t.job_vm).where(*mine, *further).values(new)


SET_PHASE = written(("phase",)).where(
    t.job_vm.c.state == JobState.RUNNING, t.job_vm.c.phase != sa.bindparam("new_phase")
)
CANCEL_REQUESTED = sa.select(t.job.c.cancel_requested).where(t.job.c.id == sa.bindparam("job"))
