# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs: what the engine shows of an act that takes time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ovirtlab.engine.entities.people import User
from ovirtlab.engine.records import Job, Origin, Step
from ovirtlab.engine.state import State

_KEPT = 1000


@dataclass(frozen=True)
class Cause:
    """Who asked for an act, and under which correlation id; jobs and events carry both."""

    user: User
    correlation_id: str

    @property
    def name(self) -> str:
        """The user as event texts name them, e.g. `admin@internal-authz`."""
        return f"{self.user.login}-authz"


def cause_of(state: State, origin: Origin) -> Cause:
    """The cause of what somebody asked for earlier, who may have been removed since."""
    user = state.person(origin.user_id)
    return Cause(user or User(id="", name="", domain="", password=""), origin.correlation_id)


def begin(state: State, description: str, *, cause: Cause, listed: bool = True) -> Job:
    """Write a job that is running, with its first steps as the engine has them; parts of other acts are not listed."""
    job = _new(state, description, cause)
    if listed:
        _kept(state, job)
    job.steps = [Step(id=state.new_id(), description="Executing", type="executing", start_time=job.start_time)]
    return job


def begin_external(state: State, description: str, *, cause: Cause, auto_cleared: bool) -> Job:
    """Write a job that another program has begun and will end; it has no steps yet."""
    job = _kept(state, _new(state, description, cause))
    job.external, job.auto_cleared = True, auto_cleared
    return job


def add_step(state: State, job: Job, description: str, *, kind: str) -> Step:
    """Begin a step of another program's job."""
    step = Step(id=state.new_id(), description=description, type=kind, start_time=state.clock.now(), external=True)
    job.steps.append(step)
    return step


def end_step(state: State, step: Step, *, succeeded: bool) -> None:
    step.status = "finished" if succeeded else "failed"
    step.end_time = state.clock.now()


def _new(state: State, description: str, cause: Cause) -> Job:
    return Job(
        id=state.new_id(),
        description=description,
        correlation_id=cause.correlation_id,
        owner_id=cause.user.id,
        start_time=state.clock.now(),
    )


def _kept(state: State, job: Job) -> Job:
    state.jobs[job.id] = job
    for old in list(state.jobs)[: max(0, len(state.jobs) - _KEPT)]:
        del state.jobs[old]
    return job


def end(state: State, job: Job, *, succeeded: bool) -> None:
    """Close a job and those of its steps that are open."""
    job.status = "finished" if succeeded else "failed"
    job.end_time = state.clock.now()
    for step in job.steps:
        if step.end_time is None:
            step.status = job.status
            step.end_time = job.end_time


@contextmanager
def job(state: State, description: str, *, cause: Cause) -> Iterator[Job]:
    """A job around a piece of work: failed when the work raises, finished otherwise."""
    running = begin(state, description, cause=cause)
    try:
        yield running
    except BaseException:
        end(state, running, succeeded=False)
        raise
    end(state, running, succeeded=True)
