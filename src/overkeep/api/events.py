# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about events: what happened, as a list and as a stream."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic_core import to_json

from overkeep.api import streams
from overkeep.api.asked import TheCaller, TheController
from overkeep.api.documents import EventOut
from overkeep.api.paging import Listing, Since, ThePaging, Until, stamp, written_out
from overkeep.api.sight import Sight, few
from overkeep.api.streams import LARGEST_NUMBER, EventSource, LastEventId
from overkeep.api.workloads import find_workload
from overkeep.controller.events import Filter, Level
from overkeep.controller.store.listed_events import ListedEvent, Told, told

router = APIRouter(prefix="/api/v1/events", tags=["events"])

Wanted = Annotated[str, Query(max_length=255)]


class Order(StrEnum):
    """In which order events are listed."""

    NEWEST = "newest"
    OLDEST = "oldest"


def about(  # noqa: PLR0913 - the filters of a list
    controller: TheController,
    caller: TheCaller,
    kind: Annotated[str, Query(max_length=64, description="A kind, or the first word of several: `job`")] = "",
    level: Annotated[Level, Query(description="This level and worse")] = Level.INFO,
    job: Wanted = "",
    workload: Annotated[str, Query(max_length=255, description="Name or id")] = "",
    vm: Annotated[str, Query(max_length=255, description="Name or id")] = "",
    point: Wanted = "",
    target: Wanted = "",
    host: Wanted = "",
    by: Annotated[str, Query(max_length=255, description="Who caused it")] = "",
) -> Filter:
    """Which events are wanted."""
    return Filter(
        kind=kind,
        level=level,
        job_id=job,
        workload_id=find_workload(workload, controller, caller).id if workload else "",
        vm=vm,
        point_id=point,
        target=target,
        host=host,
        caller=by,
    )


TheFilter = Annotated[Filter, Depends(about)]


@router.get("", response_model=list[EventOut])
def list_events(
    controller: TheController,
    caller: TheCaller,
    wanted: TheFilter,
    asked: ThePaging,
    since: Since = None,
    until: Until = None,
    order: Order = Order.NEWEST,
) -> Response:
    """Events of VMs that the caller may back up, and of their jobs and workloads; all of them for administrators."""
    in_time = replace(wanted, since=stamp(since), until=stamp(until), vm_ids=few(caller.shown()))
    events, sight = controller.ports.store.events, Sight(controller, caller)

    def read(after: list[Any] | None, count: int) -> Sequence[ListedEvent]:
        seq = int(after[0]) if after else None
        if seq is not None and not 0 <= seq <= LARGEST_NUMBER:
            raise ValueError(seq)  # no page of ours goes on there
        found = events.listed(seq, in_time, newest=order is Order.NEWEST, limit=count)
        sight.learn(found)
        return found

    listing = Listing(read=read, key=lambda event: (event.seq,), sees=sight.sees)
    return written_out(asked.response, to_json(_documents(listing.page(asked)), inf_nan_mode="null"))


def _documents(events: Sequence[ListedEvent]) -> list[Told]:
    """The documents of many events: what they say is not made into documents that are checked."""
    documents = told(events)
    for document in documents:
        document["time"] = dt.datetime.fromisoformat(document["time"])
    return documents


@router.get("/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
def stream_events(
    request: Request,
    controller: TheController,
    caller: TheCaller,
    wanted: TheFilter,
    after: Annotated[
        int | None, Query(ge=0, le=LARGEST_NUMBER, description="Begin after this number; else with what comes")
    ] = None,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Events as they happen (server-sent events); `Last-Event-ID` goes on after the last one that was received.

    Each message has the event's number as `id` and the event as `data`. A comment comes every 15 s. The stream ends
    when the controller stops or the token expires.
    """
    begun = int(last_event_id) if last_event_id is not None else after
    if begun is None:
        begun = controller.ports.store.events.latest()
    return streams.serve(request, caller, EventSource(request, caller, wanted=wanted, after=begun))
