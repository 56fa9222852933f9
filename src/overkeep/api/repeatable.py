# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls that may be repeated: with an `Idempotency-Key`, a POST is done once and answered the same each time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from overkeep.api.asked import backend
from overkeep.controller.rights import identify
from overkeep.controller.store.answers import Answer, Answers, Call
from overkeep.errors import BadRequest, OverkeepError, Unauthorized

HEADER = "Idempotency-Key"
LONGEST = 255
_KEPT = ("content-type", "etag", "location")
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Repeatable(APIRoute):
    """A route whose POST takes an idempotency key."""

    def get_route_handler(self) -> _Handler:
        handle: _Handler = super().get_route_handler()
        if "POST" not in (self.methods or ()):
            return handle

        async def repeatable(request: Request) -> Response:
            key = request.headers.get(HEADER)
            return await handle(request) if key is None else await _once(request, key, handle)

        return repeatable


async def _once(request: Request, key: str, handle: _Handler) -> Response:
    answers = backend(request).controller.ports.store.answers
    call = Call(
        user_id=await run_in_threadpool(_user, request),
        key=_checked(key),
        fingerprint=_fingerprint(request, await request.body()),
    )
    before = await run_in_threadpool(answers.begin, call)
    if before is not None:
        headers = {**before.headers, "Idempotency-Replayed": "true"}
        return Response(before.body, status_code=before.status, headers=headers)
    response = await _handled(request, handle, answers, call)
    headers = {name: value for name, value in response.headers.items() if name in _KEPT}
    answer = Answer(status=response.status_code, body=bytes(response.body).decode(), headers=headers)
    await run_in_threadpool(answers.finish, call, answer)
    return response


async def _handled(request: Request, handle: _Handler, answers: Answers, call: Call) -> Response:
    """What the call is answered. One that is refused had no effect, and its key may be used again."""
    try:
        return await handle(request)
    except Exception as error:
        known = isinstance(error, OverkeepError) or not _is_begun(error)
        await run_in_threadpool(answers.drop if known else answers.break_off, call)
        raise


def _is_begun(error: Exception) -> bool:
    """Whether an error may come from the midst of the call; those of the framework come before it."""
    return not type(error).__module__.startswith(("fastapi.", "starlette."))


def _user(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized
    return identify(backend(request).access, token).identity.user_id


def _checked(key: str) -> str:
    """The key without the quotes that it may be in (it is a string of RFC 9651)."""
    bare = key[1:-1] if len(key) > 1 and key.startswith('"') and key.endswith('"') else key
    if not 1 <= len(bare) <= LONGEST or not bare.isascii() or not bare.isprintable():
        what = f"The header {HEADER} is not of 1 to {LONGEST} printable characters"
        raise BadRequest(what=what, todo="send a UUID")
    return bare


def _fingerprint(request: Request, body: bytes) -> str:
    asked = json.dumps([request.method, request.url.path, sorted(request.query_params.multi_items())])
    return hashlib.sha256(asked.encode() + b"\n" + body).hexdigest()
