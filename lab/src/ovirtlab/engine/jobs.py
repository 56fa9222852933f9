# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs: what the engine shows of an act that takes time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ovirtlab.engine.entities import Job, Step, User
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


def begin(state: State, description: str, *, cause: Cause) -> Job:
    """Write a job that is running, with its first steps as the engine has them."""
    now = state.clock.now()
    job = Job(
        id=state.new_id(),
        description=description,
        correlation_id=cause.correlation_id,
        owner_id=cause.user.id,
        start_time=now,
    )
    job.steps = [Step(id=state.new_id(), description="Executing", type="executing", start_time=now)]
    state.jobs[job.id] = job
    for old in list(state.jobs)[: max(0, len(state.jobs) - _KEPT)]:
        del state.jobs[old]
    return job


def end(state: State, job: Job, *, succeeded: bool) -> None:
    """Close a job and its steps."""
    job.status = "finished" if succeeded else "failed"
    job.end_time = state.clock.now()
    for step in job.steps:
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
