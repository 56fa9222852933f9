# SPDX-License-Identifier: GPL-3.0-or-later
"""`/jobs` and their steps; a search knows nothing but the correlation id."""

from __future__ import annotations

from ovirtlab.engine.entities import Job, Step
from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import address

routes = Routes()


@routes.get("jobs")
async def list_jobs(call: Call) -> Collection:
    return JOBS.listing(call, call.context.state.jobs.values())


@routes.get("jobs/{job}")
async def get_job(call: Call) -> Entity:
    return show(call, _job(call))


@routes.get("jobs/{job}/steps")
async def list_steps(call: Call) -> Collection:
    job = _job(call)
    return Collection("steps", "step", [_show_step(job, step, number) for number, step in enumerate(job.steps)])


@routes.get("jobs/{job}/steps/{step}")
async def get_step(call: Call) -> Entity:
    job, step_id = _job(call), call.id("step")
    for number, step in enumerate(job.steps):
        if step.id == step_id:
            return _show_step(job, step, number)
    raise NotFound(call.path)


def show(call: Call, job: Job) -> Entity:
    fields: dict[str, Value] = {
        "description": job.description,
        "auto_cleared": True,
        "end_time": job.end_time,
        "external": False,
        "last_updated": job.end_time or job.start_time,
        "start_time": job.start_time,
        "status": job.status,
        "owner": Entity("owner", id=job.owner_id, href=address("users", job.owner_id), reference=True),
    }
    return Entity("job", fields, id=job.id, href=address("jobs", job.id), links=("steps",))


def _show_step(job: Job, step: Step, number: int) -> Entity:
    fields: dict[str, Value] = {
        "description": step.description,
        "end_time": step.end_time,
        "external": False,
        "number": number,
        "start_time": step.start_time,
        "status": step.status,
        "type": step.type,
        "job": link_to("job", job.id),
    }
    return Entity("step", fields, id=step.id, href=address("jobs", job.id, "steps", step.id), links=("statistics",))


JOBS: Kind[Job] = Kind(tag="jobs", member="job", show=show, words={"correlation_id": lambda job: job.correlation_id})


def _job(call: Call) -> Job:
    job = call.context.state.jobs.get(call.id("job"))
    if job is None:
        raise NotFound(call.path)
    return job
