# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about jobs: their state, the stream of their events, cancel and retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic_core import to_json

from overkeep.api import streams
from overkeep.api.asked import TheCaller, TheController
from overkeep.api.documents import EventOut, event_out
from overkeep.api.job_documents import JobOut, job_out
from overkeep.api.paging import LARGEST, Listing, Since, ThePaging, Until, stamp, written_out
from overkeep.api.repeatable import Repeatable
from overkeep.api.seen_jobs import as_seen, listed_as_seen
from overkeep.api.sight import Shown, Sight, few
from overkeep.api.streams import LARGEST_NUMBER, JobSource, LastEventId
from overkeep.api.workloads import find_workload
from overkeep.controller.records import Job, JobFilter, JobKind, JobState
from overkeep.controller.rights import BACKUP, Caller
from overkeep.controller.service import Controller
from overkeep.controller.store.listed_jobs import ListedJob
from overkeep.errors import NotFound

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"], route_class=Repeatable)

_LONGEST_WAIT = 25.0


@router.get("", response_model=list[JobOut])
def list_jobs(  # noqa: PLR0913 - the filters of a list
    controller: TheController,
    caller: TheCaller,
    asked: ThePaging,
    state: Annotated[tuple[JobState, ...], Query(description="Several are any of them")] = (),
    kind: Annotated[tuple[JobKind, ...], Query(description="Several are any of them")] = (),
    workload: Annotated[str, Query(max_length=255, description="Name or id")] = "",
    vm: Annotated[str, Query(max_length=255, description="Name or id")] = "",
    since: Since = None,
    until: Until = None,
) -> Response:
    """The newest jobs first, those about VMs that the caller may back up; times are those of their creation.

    A page ends before its jobs have more than 1,500 VMs; `Link` goes on.
    """
    seen = Shown(caller)
    wanted = JobFilter(
        states=tuple(state),
        kinds=tuple(kind),
        workload_id=find_workload(workload, controller, caller).id if workload else "",
        vm=vm,
        since=stamp(since),
        until=stamp(until),
        vm_ids=few(seen.vm_ids),
    )

    def read(after: Sequence[Any] | None, count: int) -> Sequence[ListedJob]:
        before = None if after is None else (str(after[0]), str(after[1]))
        return controller.ports.store.jobs.page(wanted, before=before, limit=count)

    def key(job: ListedJob) -> tuple[str, str]:
        return job.created, job.id

    def sees(job: ListedJob) -> bool:
        return seen.vm_ids is None or seen.any_of(job.vm_ids)

    all_are_his = seen.vm_ids is None or wanted.vm_ids is not None
    at_once = controller.ports.store.jobs.at_once(wanted) if all_are_his else LARGEST + 1
    listing = Listing(read=read, key=key, sees=sees, load=lambda job: len(job.vms), at_once=at_once)
    documents = listed_as_seen(listing.page(asked), controller, caller)
    return written_out(asked.response, to_json(documents, inf_nan_mode="null"))


@router.get("/{job_id}")
def show_job(job_id: str, controller: TheController, caller: TheCaller) -> JobOut:
    """One job, with each VM and disk."""
    return as_seen([_find(job_id, controller, caller)], controller, caller)[0]


@router.get("/{job_id}/events")
def job_events(
    job_id: str,
    controller: TheController,
    caller: TheCaller,
    after: Annotated[int, Query(ge=0, le=LARGEST_NUMBER)] = 0,
    wait: Annotated[float, Query(ge=0, le=_LONGEST_WAIT)] = 0,
) -> list[EventOut]:
    """Events after `after`; waits up to `wait` seconds for one, not beyond the end of the job."""
    _find(job_id, controller, caller)
    sight = Sight(controller, caller)
    found = controller.events(job_id, after=after, seconds=wait)
    return [event_out(event) for event in found if sight.sees(event.about)]


@router.get(
    "/{job_id}/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}}
)
def stream_job(
    job_id: str,
    request: Request,
    controller: TheController,
    caller: TheCaller,
    after: Annotated[int, Query(ge=0, le=LARGEST_NUMBER, description="Leave out events up to this number")] = 0,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """A job as it goes on (server-sent events), until it is over: `event` has an event, `job` the job as it is now."""
    _find(job_id, controller, caller)
    begun = int(last_event_id) if last_event_id is not None else after
    return streams.serve(request, caller, JobSource(request, caller, job_id=job_id, after=begun))


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(job_id: str, controller: TheController, caller: TheCaller) -> JobOut:
    """Ask a job to end; it ends once it has closed in the Manager what it holds."""
    job = _find(job_id, controller, caller)
    for vm in job.vms:
        caller.require(BACKUP, vm.vm_id, act="cancel the job of", vm_name=vm.vm_name)
    return job_out(controller.cancel(job, caller=caller.name))


@router.post("/{job_id}/retry", status_code=202)
def retry_job(job_id: str, response: Response, controller: TheController, caller: TheCaller) -> JobOut:
    """Back up once more the VMs of an ended backup that did not succeed."""
    job = _find(job_id, controller, caller)
    for vm in job.vms:
        if vm.state is not JobState.SUCCEEDED:
            caller.require(BACKUP, vm.vm_id, act="back up", vm_name=vm.vm_name)
    again = controller.retry_backup(job, caller=caller.name)
    response.headers["Location"] = f"/api/v1/jobs/{again.id}"
    return job_out(again)


def _find(job_id: str, controller: Controller, caller: Caller) -> Job:
    job = controller.job(job_id)
    if not _visible(job, caller):
        raise NotFound(kind="job", name=job_id, how="overkeep job list")
    return job


def _visible(job: Job, caller: Caller) -> bool:
    return caller.may_see(vm.vm_id for vm in job.vms)
