# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for all calls: bodies that are too large or not JSON are refused, and no cache keeps an answer."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overkeep.api.problems import BodyTooLarge, UnsupportedMediaType, answer
from overkeep.errors import BadRequest, OverkeepError

LONGEST_BODY = 1 << 20  # bytes; a workload of 10,000 VMs has about 400 kB


class Bodies:
    """An ASGI application in front of another one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_head(Request(scope))
        except OverkeepError as error:
            await answer(error)(scope, receive, _uncached(send))
            return
        counted = _Counted(receive, _uncached(send))
        await self._app(scope, counted.receive, counted.send)
        if counted.refused:
            await answer(BodyTooLarge(limit=LONGEST_BODY))(scope, receive, _uncached(send))


class _Counted:
    """The body of one call, which ends with an error where it becomes too long; what is answered then is left out."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._length = 0
        self._begun = False
        self._too_long = False

    @property
    def refused(self) -> bool:
        """Whether the body was too long, and nothing was answered before that was seen."""
        return self._too_long and not self._begun

    async def receive(self) -> Message:
        message = await self._receive()
        self._length += len(message.get("body", b""))
        if self._length > LONGEST_BODY:
            self._too_long = True
            raise BodyTooLarge(limit=LONGEST_BODY)
        return message

    async def send(self, message: Message) -> None:
        if not self.refused:
            self._begun = True
            await self._send(message)


def _uncached(send: Send) -> Send:
    """What is answered is for this caller and this moment."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Cache-Control"] = "no-store"
            headers["X-Content-Type-Options"] = "nosniff"
        await send(message)

    return sending


def _check_head(request: Request) -> None:
    address = request.scope["path"] + request.scope["query_string"].decode("latin-1")
    if "\0" in address or "%00" in address:  # no name has one, and PostgreSQL takes none
        raise BadRequest(what="The address holds a zero byte", todo="correct it")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > LONGEST_BODY:
        raise BodyTooLarge(limit=LONGEST_BODY)
    has_body = length not in ("", "0") or "transfer-encoding" in request.headers
    media_type = request.headers.get("content-type", "")
    if has_body and media_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(found=media_type or "unknown")
