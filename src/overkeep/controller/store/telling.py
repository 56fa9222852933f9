# SPDX-License-Identifier: GPL-3.0-or-later
"""What events say about the states of jobs and of the VMs in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.records import Job, JobState

_JOB_ENDS = {
    JobState.SUCCEEDED: Kind.JOB_SUCCEEDED,
    JobState.PARTIAL: Kind.JOB_PARTIAL,
    JobState.FAILED: Kind.JOB_FAILED,
    JobState.CANCELLED: Kind.JOB_CANCELLED,
    JobState.NEEDS_ATTENTION: Kind.JOB_NEEDS_ATTENTION,
}
_VM_ENDS = {
    JobState.SUCCEEDED: Kind.VM_SUCCEEDED,
    JobState.FAILED: Kind.VM_FAILED,
    JobState.CANCELLED: Kind.VM_CANCELLED,
    JobState.NEEDS_ATTENTION: Kind.VM_NEEDS_ATTENTION,
}


def queued(job: Job, *, vms: int) -> Draft:
    """A job was written down."""
    return Draft(
        kind=Kind.JOB_QUEUED,
        text=f"{_work(job)} is queued",
        about=About(job_id=job.id, workload_id=job.workload_id),
        caller=job.caller,
        fields={"job_kind": job.kind, "vms": vms},
    )


def started(row: Any) -> Draft:
    """A job began."""
    return Draft(kind=Kind.JOB_STARTED, text=f"{_work(row)} began", about=_about(row))


def cancel_asked(row: Any, *, caller: str) -> Draft:
    """Somebody asked for the end of a job."""
    text = f"{_work(row)} is to end: its cancel was asked for"
    return Draft(kind=Kind.JOB_CANCEL_ASKED, text=text, about=_about(row), caller=caller)


def ended(job: Job) -> Draft:
    """A job is over. Why VMs failed is told by their own events: not all who see the job may see all its VMs."""
    good = sum(vm.state is JobState.SUCCEEDED for vm in job.vms)
    told = f": {good} of {len(job.vms)} VMs succeeded" if len(job.vms) > 1 else ""
    return Draft(
        kind=_JOB_ENDS[job.state],
        text=f"{_work(job)} {_word(job.state)}{told}",
        about=About(job_id=job.id, workload_id=job.workload_id),
        fields={"job_kind": job.kind, "vms": len(job.vms), "succeeded": good, "code": job.failure.code},
    )


def went_on(before: Any, after: Mapping[str, Any]) -> Iterator[Draft]:
    """What a change of the row of a VM in a job means: it began, reached another phase, or is over.

    Both have the columns of the VM, and `kind`, `workload_id` and `caller` of its job.
    """
    about, work = _about_vm(before), _work_on(before)
    was, state = JobState(before.state), JobState(after["state"])

    def told(kind: Kind, text: str, **fields: Any) -> Draft:
        return Draft(kind=kind, text=f"{work}{text}", about=about, caller=before.caller, fields=fields)

    if was is JobState.QUEUED and state is JobState.RUNNING:
        yield told(Kind.VM_STARTED, " began")
    if after["phase"] and after["phase"] != before.phase:
        yield phase(before, after["phase"])
    if state.over and state is not was:
        why = f": {after['error']}" if after["error"] else ""
        yield told(_VM_ENDS[state], f" {_word(state)}{why}", code=after["error_code"], job_kind=before.kind)


def phase(row: Any, phase: str) -> Draft:
    """The work on a VM, whose row is as that of `went_on`, is in a phase that it was not in."""
    text, about = f"{_work_on(row)}: {phase}", _about_vm(row)
    return Draft(kind=Kind.VM_PHASE, text=text, about=about, caller=row.caller, fields={"phase": phase})


def left_alone(job: Job, row: Mapping[str, Any]) -> Draft:
    """A VM is not worked on at all, because another job does."""
    about = About(job_id=job.id, workload_id=job.workload_id, vm_id=row["vm_id"], vm_name=row["vm_name"])
    return Draft(kind=Kind.VM_FAILED, text=row["error"], about=about, fields={"code": row["error_code"]})


def _about(row: Any) -> About:
    return About(job_id=row.id, workload_id=row.workload_id)


def _about_vm(row: Any) -> About:
    return About(job_id=row.job_id, workload_id=row.workload_id, vm_id=row.vm_id, vm_name=row.vm_name)


def _work_on(row: Any) -> str:
    return f"{row.kind.capitalize()} of VM {row.vm_name!r}"


def _work(job: Any) -> str:
    """`Backup of 'shop'`, of a job or of its row."""
    return f"{job.kind.capitalize()} of {job.subject!r}"


def _word(state: JobState) -> str:
    return {
        JobState.PARTIAL: "is partial",
        JobState.CANCELLED: "was cancelled",
        JobState.NEEDS_ATTENTION: "needs attention",
    }.get(state, str(state))
