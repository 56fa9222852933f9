# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams of server-sent events: resumed by number, kept alive by heartbeats, ended when the controller stops.

No stream holds a thread, and none holds more than one page of events: the next is read once the client took this one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Protocol

from fastapi import Header, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from overkeep.api.asked import backend
from overkeep.api.documents import EventOut, event_out
from overkeep.api.job_documents import JobOut
from overkeep.api.seen_jobs import as_seen
from overkeep.api.sight import Sight
from overkeep.controller.events import Event, Filter
from overkeep.controller.rights import Caller, identify
from overkeep.controller.store.events import Events
from overkeep.errors import OverkeepError, Unauthorized

HEARTBEAT = 15.0  # seconds; proxies close what is silent for longer, often after 60
MOST_STREAMS, MOST_OF_ONE = 256, 16
PAGE = 200
LARGEST_NUMBER = 2**53  # of events; more than that JavaScript does not tell apart
_PAUSE = 0.25  # seconds between two looks
_ELSEWHERE = 2.0  # between two looks for what another controller wrote
_TOKEN_EVERY = 30.0
_RECONNECT = b"retry: 2000\n\n"

LastEventId = Annotated[
    str | None, Header(max_length=15, pattern=r"^[0-9]+$", description="The number of the last event that was received")
]


class TooManyStreams(OverkeepError):
    """No more streams are served."""

    code = "too-many-streams"
    template = "{whose} {count} streams open, which is the most; close one first."
    retry = True
    status = 429


class Source(Protocol):
    """What a stream is made of."""

    def has_news(self) -> bool:
        """Whether `read` may find something; must not block."""

    def read(self) -> tuple[list[bytes], bool]:
        """The next messages, and whether they are the last ones. Raises `Unauthorized` when the token is gone."""


class Streams:
    """The open streams of an application."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    @contextmanager
    def place(self, user_id: str) -> Iterator[None]:
        """Hold a place for one stream; raise `TooManyStreams`."""
        with self._lock:
            if self._open[user_id] >= MOST_OF_ONE:
                raise TooManyStreams(whose="You have", count=MOST_OF_ONE)
            if self._open.total() >= MOST_STREAMS:
                raise TooManyStreams(whose="The controller has", count=MOST_STREAMS)
            self._open[user_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[user_id] -= 1
                self._open += Counter()  # forgets those who have none

    def check(self, user_id: str) -> None:
        """Raise `TooManyStreams` when there is no place."""
        with self.place(user_id):
            return


class EventSource:
    """The events that a caller may see, after a number."""

    def __init__(self, request: Request, caller: Caller, *, wanted: Filter, after: int) -> None:
        self._token = Token(request, caller)
        self._controller = backend(request).controller
        self._events = self._controller.ports.store.events
        self._wanted = wanted
        self._after = after
        self._look = _Look(self._events)
        self._more = True

    def has_news(self) -> bool:
        return self._more or self._look.is_due()

    def read(self) -> tuple[list[bytes], bool]:
        self._look.note()
        sight = Sight(self._controller, self._token.caller())
        page = self._events.after(self._after, self._wanted, limit=PAGE)
        self._more = len(page) == PAGE
        if page:
            self._after = page[-1].seq
        return [message(event) for event in page if sight.sees(event.about)], False


class JobSource:
    """A job until it is over: its events by number, and its document whenever it changed."""

    def __init__(self, request: Request, caller: Caller, *, job_id: str, after: int) -> None:
        self._token = Token(request, caller)
        self._controller = backend(request).controller
        self._events = self._controller.ports.store.events
        self._job_id = job_id
        self._after = after
        self._shown = b""
        self._look = _Look(self._events)

    def has_news(self) -> bool:
        return self._look.is_due()

    def read(self) -> tuple[list[bytes], bool]:
        self._look.note()
        caller = self._token.caller()
        sight = Sight(self._controller, caller)
        job = self._controller.job(self._job_id)  # before its events: of a job that is over all are read
        page = self._events.of_job(self._job_id, after=self._after)
        if page:
            self._after = page[-1].seq
        messages = [message(event, kind="event") for event in page if sight.sees(event.about)]
        shown = _message(as_seen([job], self._controller, caller)[0], kind="job")
        if shown != self._shown:
            messages.append(shown)
            self._shown = shown
        return messages, job.state.over


class Token:
    """The caller behind a stream, who is looked at again and again: his token may be revoked while it runs."""

    def __init__(self, request: Request, caller: Caller) -> None:
        self._access = backend(request).access
        self._caller = caller
        self._checked = time.monotonic()

    def caller(self) -> Caller:
        """Who it is; raises `Unauthorized` when the Manager no longer knows the token."""
        if time.monotonic() - self._checked > _TOKEN_EVERY:
            self._caller = identify(self._access, self._caller.token)
            self._checked = time.monotonic()
        return self._caller


class _Look:
    """When to look: after this process wrote something, and now and then for what others wrote."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._seen = -1
        self._at = 0.0

    def is_due(self) -> bool:
        return self._events.changes != self._seen or time.monotonic() - self._at > _ELSEWHERE

    def note(self) -> None:
        self._seen, self._at = self._events.changes, time.monotonic()


def serve(request: Request, caller: Caller, source: Source) -> StreamingResponse:
    """Answer with a stream; raise `TooManyStreams` when there is no place for it."""
    streams: Streams = request.app.state.streams
    streams.check(caller.identity.user_id)
    stopping = backend(request).controller.ports.stopping
    body = _pump(source, stopping, streams.place, caller.identity.user_id)
    headers = {"X-Accel-Buffering": "no"}  # a proxy is to pass each message on at once
    return StreamingResponse(body, media_type="text/event-stream", headers=headers)


async def _pump(
    source: Source, stopping: threading.Event, place: Callable[[str], AbstractContextManager[None]], user_id: str
) -> AsyncIterator[bytes]:
    with place(user_id):
        yield _RECONNECT
        spoke = time.monotonic()
        while not stopping.is_set():
            if source.has_news():
                try:
                    messages, over = await run_in_threadpool(source.read)
                except Unauthorized:
                    return
                for each in messages:
                    yield each
                    spoke = time.monotonic()
                if over:
                    return
            if time.monotonic() - spoke > HEARTBEAT:
                yield b": still here\n\n"
                spoke = time.monotonic()
            await asyncio.sleep(_PAUSE)


def message(event: Event, *, kind: str = "") -> bytes:
    """An event on the wire, under its number."""
    return _message(event_out(event), kind=kind, number=event.seq)


def _message(document: EventOut | JobOut, *, kind: str, number: int | None = None) -> bytes:
    head = (f"id: {number}\n" if number is not None else "") + (f"event: {kind}\n" if kind else "")
    return f"{head}data: {document.model_dump_json()}\n\n".encode()
