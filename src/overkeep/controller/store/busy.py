# SPDX-License-Identifier: GPL-3.0-or-later
"""One job works on a VM at a time: what a new job finds its VMs busy with, and what it does then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from overkeep.controller.records import Job, JobState, Member, Stage
from overkeep.controller.store import schema as t
from overkeep.errors import Conflict, OverkeepError


class VmBusy(OverkeepError):
    """A VM of a run is left alone, because the run of another workload works on it."""

    code = "vm-busy"
    template = (
        "VM {vm!r} was left alone, because job {job} of another workload works on it; "
        "back it up with `overkeep job retry` when that has ended, or let its next run do it."
    )
    retry = True
    status = 409


def busy_elsewhere(connection: sa.Connection, job: Job, members: Sequence[Member]) -> dict[str, str]:
    """The jobs of other workloads that work on VMs, by VM.

    Raises `Conflict` when a job of the same workload works on one of them, or others work on all.
    """
    ids = [member.vm_id for member in members]
    columns = (t.job_vm.c.vm_id, t.job_vm.c.vm_name, t.job_vm.c.job_id, t.job.c.workload_id)
    joined = sa.select(*columns).join(t.job, t.job.c.id == t.job_vm.c.job_id)
    rows = connection.execute(joined.where(t.job_vm.c.busy, t.job_vm.c.vm_id.in_(ids))).all()
    own = [row for row in rows if row.workload_id == job.workload_id]
    if own or (rows and len(rows) == len(ids)):
        row = (own or rows)[0]
        raise Conflict(
            what=f"Job {row.job_id} works on VM {row.vm_name!r}",
            todo=f"wait until it has ended or cancel it with `overkeep job cancel {row.job_id}`",
            job_id=row.job_id,
        )
    return {row.vm_id: row.job_id for row in rows}


def busy_with(connection: sa.Connection, member: Member) -> str | None:
    """The job that works on a VM."""
    return connection.scalar(sa.select(t.job_vm.c.job_id).where(t.job_vm.c.busy, t.job_vm.c.vm_id == member.vm_id))


def left_alone(member: Member, job_id: str | None) -> dict[str, Any]:
    """What is written of a VM that a job of another workload works on: this one does nothing with it."""
    if job_id is None:
        return {}
    error = VmBusy(vm=member.vm_name, job=job_id)
    told = {"error_code": error.code, "error": error.message}
    return {"state": JobState.FAILED, "busy": False, "stage": Stage.GIVEN, **told}
