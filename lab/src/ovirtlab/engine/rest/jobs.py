# SPDX-License-Identifier: GPL-3.0-or-later
"""`/jobs` and their steps, the engine's own and those of other programs; a search knows only the correlation id."""

from __future__ import annotations

from ovirtlab.engine import jobs
from ovirtlab.engine.faults import NotFound, conflict, incomplete
from ovirtlab.engine.records import Job, Step
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of
from ovirtlab.engine.state import SYSTEM

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
    job = _job(call)
    step = _step(call, job)
    return _show_step(job, step, job.steps.index(step))


@routes.post("jobs")
async def add_job(call: Call) -> Created:
    """A job of another program, which adds its steps and ends it."""
    description = call.body.text("description")
    if not description:
        raise incomplete("Job", "description", "add")
    _may_inject(call)
    job = jobs.begin_external(
        call.context.state,
        description,
        cause=cause_of(call),
        auto_cleared=call.body.flag("auto_cleared") is not False,
    )
    return Created(lambda: show(call, job))


@routes.action("jobs/{job}/end")
async def end_job(call: Call) -> Done:
    job = _external(call, "end Job")
    jobs.end(call.context.state, job, succeeded=call.body.flag("succeeded") is not False)
    return Done()


@routes.action("jobs/{job}/clear")
async def clear_job(call: Call) -> Done:
    """Forget a job of another program."""
    del call.context.state.jobs[_external(call, "clear Job").id]
    return Done()


@routes.post("jobs/{job}/steps")
async def add_step(call: Call) -> Created:
    description, kind = call.body.text("description"), call.body.text("type")
    if not description or not kind:
        raise incomplete("Step", "description, type", "add")
    job = _external(call, "add Step")
    step = jobs.add_step(call.context.state, job, description, kind=kind)
    return Created(lambda: _show_step(job, step, job.steps.index(step)))


@routes.action("jobs/{job}/steps/{step}/end")
async def end_step(call: Call) -> Done:
    job = _external(call, "end Step")
    succeeded = call.body.flag("succeeded") is not False
    jobs.end_step(call.context.state, _step(call, job), succeeded=succeeded)
    return Done()


def show(call: Call, job: Job) -> Entity:
    fields: dict[str, Value] = {
        "description": job.description,
        "auto_cleared": job.auto_cleared,
        "end_time": job.end_time,
        "external": job.external,
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
        "external": step.external,
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


def _step(call: Call, job: Job) -> Step:
    step_id = call.id("step")
    for step in job.steps:
        if step.id == step_id:
            return step
    raise NotFound(call.path)


def _external(call: Call, act: str) -> Job:
    """A job of another program; the engine's own are not for others to change."""
    job = _job(call)
    _may_inject(call)
    if not job.external:
        raise conflict(f"Cannot {act}. The Job is not an external Job.")
    return job


def _may_inject(call: Call) -> None:
    call.require("inject_external_tasks", ("system", SYSTEM))
