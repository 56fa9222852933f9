# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers to what takes time: whether the client waits for it, and where it learns how it went."""

from __future__ import annotations

import asyncio
from typing import Any

from ovirtlab.engine.records import Job
from ovirtlab.engine.rest.documents import API, Entity, Value, link_to
from ovirtlab.engine.rest.routing import Call, Created, Done

CREATION_STATUS = "creation_status"
_WORDS = {"started": "in_progress", "finished": "complete", "failed": "failed", "aborted": "failed"}


async def finish_created(answer: Created, call: Call) -> tuple[Entity, int]:
    """The object as it is then, with 201, or with 202 while it is still being made."""
    pending = await _pending(answer.work, wait=call.expects_created)
    entity = answer.show()
    if not pending:
        return entity, 201
    entity.fields = {**entity.fields, CREATION_STATUS: "pending"}
    entity.links = [*entity.links, f"{CREATION_STATUS}={entity.href}/{CREATION_STATUS}/{call.correlation_id}"]
    return entity, 202


async def finish_done(answer: Done, call: Call, *, known: frozenset[str]) -> tuple[Entity, int]:
    """The action with 200, or with 202 for a client that does not wait; `known` are the jobs there were before."""
    await asyncio.sleep(0)  # what the action has spawned begins now, and so does its job
    job = _begun(call, known)
    detached = call.does_not_wait and call.method == "POST"
    pending = call.runs_async and answer.work is not None
    await _pending(answer.work, wait=not (pending or detached))
    status = "in_progress" if detached else "pending" if pending else "complete"
    fields: dict[str, Value] = {**answer.fields, "job": link_to("job", job.id) if job else None, "status": status}
    return Entity("action", fields), 202 if call.method == "POST" and status != "complete" else 200


def is_creation(path: str) -> bool:
    """Whether a path is that of a `creation_status` link."""
    parts = path.split("/")
    return len(parts) >= 4 and parts[-2] == CREATION_STATUS


def show_creation(call: Call) -> Entity:
    """How the making of an object goes on, by the address in its `creation_status` link."""
    key = call.path.rpartition("/")[2]
    words = [_WORDS[job.status] for job in call.context.state.jobs.values() if job.correlation_id == key]
    status = next((word for word in ("in_progress", "failed") if word in words), "complete")
    return Entity("creation", {"status": status}, id=key, href=f"{API}/{call.path}")


async def _pending(work: asyncio.Task[Any] | None, *, wait: bool) -> bool:
    """Whether work goes on; after it, when it is waited for."""
    if work is not None and wait:
        await asyncio.shield(work)
    return work is not None and not work.done()


def _begun(call: Call, known: frozenset[str]) -> Job | None:
    """The job that an action has begun."""
    jobs = call.context.state.jobs.values()
    return next((job for job in jobs if job.id not in known and job.correlation_id == call.correlation_id), None)
