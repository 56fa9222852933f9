# SPDX-License-Identifier: GPL-3.0-or-later
"""The mover's HTTP interface: signatures and sizes first, then the queue (docs/protocol/orders-1.md)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import anyio.to_thread
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from overkeep import __version__
from overkeep.errors import BadRequest, NotFound, OverkeepError
from overkeep.logs import fields
from overkeep.model.findings import Finding
from overkeep.model.probes import Probe
from overkeep.mover.admission import admit
from overkeep.mover.api import LONGEST_WAIT
from overkeep.mover.errors import BodyTooLarge, MoverBusy, OrderMalformed
from overkeep.mover.orders import ORDER, OrderId, OrderStatus
from overkeep.mover.probing import ProbeAsked
from overkeep.mover.problems import MEDIA_TYPE, problem_of
from overkeep.mover.queue import OrderQueue
from overkeep.mover.signing import Call, Verifier

BODY_LIMIT = 64 * 1024
THREADS = 128  # calls at once, most of them long polls; more wait for a thread

_ORDER_ID: TypeAdapter[str] = TypeAdapter(OrderId)
_ID_LIMIT = 256

log = logging.getLogger(__name__)

_Answer = Callable[[Request], Awaitable[Response]]


class MethodNotAllowed(BadRequest):
    """The path exists and does not take the method."""

    code = "method-not-allowed"
    status = 405


@dataclass(frozen=True, kw_only=True)
class LooksAtHost:
    """What a mover can be asked to look at, besides its orders."""

    check: Callable[[], tuple[Finding, ...]]
    probe: Callable[[str, ProbeAsked], Probe]


class OrderServer:
    """The ASGI application of one mover, `app`."""

    def __init__(
        self,
        queue: OrderQueue,
        verifier: Verifier,
        *,
        host: str,
        targets: frozenset[str],
        looks: LooksAtHost,
    ) -> None:
        self._queue = queue
        self._verifier = verifier
        self._host = host
        self._targets = targets
        self._looks = looks
        self._threads: anyio.CapacityLimiter | None = None
        routes = [
            Route("/v1/health", self._answering(self._health), methods=["GET"]),
            Route("/v1/check", self._answering(self._checked), methods=["GET"]),
            Route("/v1/targets/{target}/probe", self._answering(self._probe), methods=["POST"]),
            Route("/v1/orders", self._answering(self._orders), methods=["GET"]),
            Route("/v1/orders/{id}", self._answering(self._put), methods=["PUT"]),
            Route("/v1/orders/{id}", self._answering(self._wait), methods=["GET"]),
            Route("/v1/orders/{id}", self._answering(self._cancel), methods=["DELETE"]),
        ]
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: _http_problem})

    async def _health(self, _: Request) -> Response:
        load = asdict(self._queue.load())
        return _json(200, {"version": __version__, "host": self._host, "time": time.time(), "load": load})

    async def _checked(self, request: Request) -> Response:
        await self._signed(request)
        found = await self._in_thread(self._looks.check)
        return _json(200, {"findings": [asdict(finding) for finding in found]})

    async def _probe(self, request: Request) -> Response:
        body = await self._signed(request)
        target = str(request.path_params["target"])
        if target not in self._targets:
            raise NotFound(kind="target", name=target[:_ID_LIMIT], how=f"the settings of the mover on {self._host}")
        try:
            asked = ProbeAsked.model_validate_json(body)
        except ValidationError as error:
            raise BadRequest(
                what=f"the body is no request for a probe: {_faults(error)}", todo="see orders-1.md"
            ) from error
        found = await self._in_thread(lambda: self._looks.probe(target, asked))
        return _json(200, {"probe": asdict(found)})

    async def _orders(self, request: Request) -> Response:
        await self._signed(request)
        statuses = await self._in_thread(self._queue.orders)
        return _json(200, {"orders": [status.model_dump(mode="json") for status in statuses]})

    async def _put(self, request: Request) -> Response:
        body = await self._signed(request)
        order_id = _order_id(request)
        try:
            order = ORDER.validate_json(body)
        except ValidationError as error:
            raise OrderMalformed(order=order_id, reason=_faults(error)) from error
        admit(order_id, order, host=self._host, targets=self._targets)
        accepted = await self._in_thread(lambda: self._queue.put(order_id, order))
        return _status(201 if accepted.new else 200, accepted.status)

    async def _wait(self, request: Request) -> Response:
        await self._signed(request)
        order_id = _order_id(request)
        after = int(_number(request, "after", most=2**53))
        timeout = _number(request, "wait", most=LONGEST_WAIT)
        status = await self._in_thread(lambda: self._queue.wait(order_id, after=after, timeout=timeout))
        return _status(200, status)

    async def _cancel(self, request: Request) -> Response:
        await self._signed(request)
        order_id = _order_id(request)
        status = await self._in_thread(lambda: self._queue.cancel(order_id))
        return _status(200 if status.state.terminal else 202, status)

    async def _signed(self, request: Request) -> bytes:
        """Return the body once the signature over the whole call has been checked."""
        body = await _body(request)
        path = cast(bytes, request.scope["raw_path"]).decode("latin-1")
        query = cast(bytes, request.scope["query_string"]).decode("latin-1")
        call = Call(method=request.method, target=f"{path}?{query}" if query else path, body=body)
        await self._in_thread(lambda: self._verifier.check(call, request.headers))
        return body

    async def _in_thread(self, act: Callable[[], Any]) -> Any:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(THREADS)
        return await anyio.to_thread.run_sync(act, limiter=self._threads)

    def _answering(self, answer: _Answer) -> _Answer:
        async def answering(request: Request) -> Response:
            try:
                return await answer(request)
            except OverkeepError as error:
                log.info("call refused %s", fields(method=request.method, path=request.url.path, code=error.code))
                return _problem(error)
            except Exception as error:  # the outermost worker: the caller gets a problem document, the log all of it
                log.exception("call broke %s", fields(method=request.method, path=request.url.path))
                return _problem(OverkeepError(reason=type(error).__name__))

        return answering


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise BodyTooLarge(limit=BODY_LIMIT)
    return body


def _order_id(request: Request) -> str:
    text = str(request.path_params["id"])
    try:
        if len(text) > _ID_LIMIT:
            raise ValueError("too long")
        return _ORDER_ID.validate_python(text)
    except ValueError as error:
        raise BadRequest(what=f"{text[:_ID_LIMIT]!r} is not the id of an order", todo="use job:disk:attempt") from error


def _number(request: Request, name: str, *, most: float) -> float:
    text = request.query_params.get(name, "0")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise BadRequest(what=f"`{name}` is {text[:40]!r}", todo=f"use a number from 0 to {most:g}")
    return value


def _faults(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in found[:5])


def _status(code: int, status: OrderStatus) -> Response:
    return Response(status.model_dump_json(), status_code=code, media_type="application/json")


def _json(code: int, content: object) -> Response:
    return Response(json.dumps(content), status_code=code, media_type="application/json")


def _problem(error: OverkeepError) -> Response:
    headers = {"Retry-After": str(error.fields["seconds"])} if isinstance(error, MoverBusy) else None
    text = problem_of(error).model_dump_json()
    return Response(text, status_code=error.status, media_type=MEDIA_TYPE, headers=headers)


async def _http_problem(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: unknown paths and methods."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        return _problem(MethodNotAllowed(what=f"{request.method} is not possible here", todo="see orders-1.md"))
    return _problem(NotFound(kind="path", name=request.url.path, how="see orders-1.md"))
