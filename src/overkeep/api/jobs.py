# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about jobs: their state, the stream of their events, cancel and retry."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.documents import JobEventOut, JobOut, event_out, job_out
from overkeep.controller.records import Job, JobState
from overkeep.controller.rights import BACKUP, Caller
from overkeep.controller.service import Controller
from overkeep.errors import NotFound

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_LONGEST_WAIT = 25.0


@router.get("")
def list_jobs(
    controller: TheController, caller: TheCaller, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[JobOut]:
    """The newest jobs first, those about VMs that the caller may back up."""
    return [job_out(job) for job in controller.jobs(limit=limit) if _visible(job, caller)]


@router.get("/{job_id}")
def show_job(job_id: str, controller: TheController, caller: TheCaller) -> JobOut:
    """One job, with each VM and disk."""
    return job_out(_find(job_id, controller, caller))


@router.get("/{job_id}/events")
def job_events(
    job_id: str,
    controller: TheController,
    caller: TheCaller,
    after: Annotated[int, Query(ge=0)] = 0,
    wait: Annotated[float, Query(ge=0, le=_LONGEST_WAIT)] = 0,
) -> list[JobEventOut]:
    """Events after `after`; waits up to `wait` seconds for one, not beyond the end of the job."""
    _find(job_id, controller, caller)
    return [event_out(event) for event in controller.events(job_id, after=after, seconds=wait)]


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(job_id: str, controller: TheController, caller: TheCaller) -> JobOut:
    """Ask a job to end; it ends once it has closed in the Manager what it holds."""
    job = _find(job_id, controller, caller)
    for vm in job.vms:
        caller.require(BACKUP, vm.vm_id, act="cancel the job of", vm_name=vm.vm_name)
    return job_out(controller.cancel(job))


@router.post("/{job_id}/retry", status_code=202)
def retry_job(job_id: str, response: Response, controller: TheController, caller: TheCaller) -> JobOut:
    """Back up once more the VMs of an ended backup that did not succeed."""
    job = _find(job_id, controller, caller)
    for vm in job.vms:
        if vm.state is not JobState.SUCCEEDED:
            caller.require(BACKUP, vm.vm_id, act="back up", vm_name=vm.vm_name)
    again = controller.retry_backup(job, caller=caller.name)
    response.headers["Location"] = f"/v1/jobs/{again.id}"
    return job_out(again)


def _find(job_id: str, controller: Controller, caller: Caller) -> Job:
    job = controller.job(job_id)
    if not _visible(job, caller):
        raise NotFound(kind="job", name=job_id, how="overkeep job list")
    return job


def _visible(job: Job, caller: Caller) -> bool:
    return caller.may_see(vm.vm_id for vm in job.vms)
