# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the rows of the tables of jobs and values."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from overkeep.controller.records import DiskProgress, Failure, Job, JobKind, JobState, Member, Spent, VmProgress
from overkeep.controller.store import schema as t

_CHUNK = 500  # values in one IN


def job_row(job: Job) -> dict[str, Any]:
    """The columns of a job."""
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "workload_id": job.workload_id,
        "subject": job.subject,
        "caller": job.caller,
        "request": json.dumps(dict(job.request)),
        "created": job.created,
        "started": job.started,
        "ended": job.ended,
        "error_code": job.failure.code,
        "error": job.failure.text,
        "result": json.dumps(dict(job.result)),
        "cancel_requested": job.cancel_requested,
    }


def job_value(row: Any, vms: tuple[VmProgress, ...]) -> Job:
    """The job of a row."""
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        state=JobState(row.state),
        workload_id=row.workload_id,
        subject=row.subject,
        caller=row.caller,
        request=json.loads(row.request),
        created=row.created,
        started=row.started,
        ended=row.ended,
        failure=Failure(code=row.error_code, text=row.error),
        result=json.loads(row.result),
        cancel_requested=row.cancel_requested,
        vms=vms,
    )


def vms_of(connection: sa.Connection, job_id: str) -> tuple[VmProgress, ...]:
    """The VMs of a job with their disks, by name."""
    return vms_of_all(connection, [job_id])[job_id]


def vms_of_all(connection: sa.Connection, job_ids: Sequence[str]) -> dict[str, tuple[VmProgress, ...]]:
    """The VMs of jobs with their disks, by job and in the order of their names."""
    disks: defaultdict[tuple[str, str], list[DiskProgress]] = defaultdict(list)
    vms: dict[str, list[VmProgress]] = {job_id: [] for job_id in job_ids}
    for start in range(0, len(job_ids), _CHUNK):
        some = job_ids[start : start + _CHUNK]
        for row in connection.execute(
            sa.select(t.job_disk).where(t.job_disk.c.job_id.in_(some)).order_by(t.job_disk.c.name)
        ):
            disks[row.job_id, row.vm_id].append(_disk(row))
        for row in connection.execute(
            sa.select(t.job_vm).where(t.job_vm.c.job_id.in_(some)).order_by(t.job_vm.c.vm_name)
        ):
            vms[row.job_id].append(_vm(row, tuple(disks[row.job_id, row.vm_id])))
    return {job_id: tuple(found) for job_id, found in vms.items()}


def _vm(row: Any, disks: tuple[DiskProgress, ...]) -> VmProgress:
    return VmProgress(
        vm_id=row.vm_id,
        vm_name=row.vm_name,
        state=JobState(row.state),
        phase=row.phase,
        point_id=row.point_id,
        failure=Failure(code=row.error_code, text=row.error),
        disks=disks,
        spent=Spent(**json.loads(row.spent)) if row.spent else None,
    )


def _disk(row: Any) -> DiskProgress:
    return DiskProgress(
        disk_id=row.disk_id,
        name=row.name,
        mode=row.mode,
        reason=row.reason,
        state=row.state,
        done=row.done,
        total=row.total,
        moved=row.moved,
    )


def vm_row(job_id: str, member: Member, *, busy: bool) -> dict[str, Any]:
    """The columns of a VM in a job that is queued."""
    return {
        "job_id": job_id,
        "vm_id": member.vm_id,
        "vm_name": member.vm_name,
        "state": JobState.QUEUED,
        "phase": "",
        "point_id": "",
        "error_code": "",
        "error": "",
        "busy": busy,
    }


def disk_row(disk: DiskProgress) -> dict[str, Any]:
    """The columns of a disk in a job, without its key."""
    return {
        "name": disk.name,
        "mode": disk.mode,
        "reason": disk.reason,
        "state": disk.state,
        "done": disk.done,
        "total": disk.total,
        "moved": disk.moved,
    }
