# SPDX-License-Identifier: GPL-3.0-or-later
"""From a request to a handler and back: login, route, answer or fault, in XML or JSON."""

from __future__ import annotations

import asyncio
import dataclasses
import logging

from starlette.requests import Request
from starlette.responses import Response

from ovirtlab.engine.context import Context
from ovirtlab.engine.faults import Fault, InternalError, NotFound, Unauthorized
from ovirtlab.engine.rest import json_form, persistence, xml_form
from ovirtlab.engine.rest.actions import name_actions
from ovirtlab.engine.rest.documents import Collection, Entity
from ovirtlab.engine.rest.follow import follow
from ovirtlab.engine.rest.requests import authenticate, read_address, read_call, read_correlation_id
from ovirtlab.engine.rest.routing import Answer, Call, Created, Done, Match, Router
from ovirtlab.engine.sso import Sessions

log = logging.getLogger(__name__)

_UNAUTHORIZED = "<html><head><title>Error</title></head><body>Unauthorized</body></html>"


class Api:
    """The REST interface below `/ovirt-engine/api`."""

    def __init__(self, context: Context, sessions: Sessions, router: Router) -> None:
        self._context = context
        self._sessions = sessions
        self._router = router

    async def answer(self, request: Request) -> Response:
        """Answer one request; refusals become faults, and failures of the engine a fault 500 and a log entry."""
        address = read_address(request)
        correlation_id = read_correlation_id(request, address.parameters)
        form = _Form(self._router, wants_json=_wants_json(request))
        match = self._router.find(request.method, address.path)
        form.is_action = match is not None and match.route is not None and match.route.is_action
        user = None
        try:
            await self._context.faults.before_call(request.method, address.path)
            user = authenticate(request, self._sessions, self._context)
            call = await read_call(request, address, user, context=self._context, correlation_id=correlation_id)
            response = await self._answer(call, match, form)
        except Fault as fault:
            response = form.fault(fault)
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            response = form.fault(InternalError("Internal Engine Error"))
        if user is not None:
            persistence.settle(request, response, user, sessions=self._sessions)
        response.headers["Correlation-Id"] = correlation_id
        return response

    async def _answer(self, call: Call, match: Match | None, form: _Form) -> Response:
        answer = await self._invoke(call, match)
        if isinstance(answer, Created):
            return await _created(answer, call, form)
        if isinstance(answer, Done):
            return await _done(answer, call, form)
        wanted = call.text("follow")
        if wanted:
            await follow(answer, wanted, get=lambda path: self._get(call, path))
        return form.response(answer)

    async def _invoke(self, call: Call, match: Match | None) -> Answer:
        if match is None:
            raise NotFound(call.path)
        if match.route is None:
            raise MethodNotAllowed(call.method)
        return await match.route.handler(dataclasses.replace(call, segments=match.segments))

    async def _get(self, call: Call, path: str) -> Entity | Collection:
        """A GET of the same user from inside, for `follow`; it drops the parameters, `max` among them."""
        path, _, query = path.partition("?")
        inner = dataclasses.replace(call, method="GET", path=path, parameters=dict(_pairs(query)))
        answer = await self._invoke(inner, self._router.find("GET", path))
        if isinstance(answer, (Entity, Collection)):
            return answer
        raise NotFound(path)


class MethodNotAllowed(Fault):
    """405: the path is known, the method is not."""

    status = 405


class _Form:
    """Renders documents the way the client asked for."""

    def __init__(self, router: Router, *, wants_json: bool) -> None:
        self._router = router
        self._form = json_form if wants_json else xml_form
        self.is_action = False

    def response(
        self, document: Entity | Collection, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        name_actions(document, self._router)
        return Response(self._form.render(document), status, headers, media_type=self._form.CONTENT_TYPE)

    def fault(self, fault: Fault) -> Response:
        if isinstance(fault, Unauthorized):
            headers = {"WWW-Authenticate": 'Basic realm="RESTAPI"'}
            return Response(_UNAUTHORIZED, 401, headers, media_type="text/html;charset=UTF-8")
        if isinstance(fault, (NotFound, MethodNotAllowed)):
            return Response(status_code=fault.status)
        document = Entity("fault", {"detail": fault.detail, "reason": fault.reason})
        if self.is_action:
            document = Entity("action", {"fault": document, "status": "failed"})
        return self.response(document, status=fault.status)


async def _created(answer: Created, call: Call, form: _Form) -> Response:
    pending = answer.work is not None and not answer.work.done()
    if pending and call.expects_created:
        assert answer.work is not None
        await asyncio.shield(answer.work)
        pending = False
    entity = answer.show()
    if not pending:
        headers = {"Location": f"{call.context.base_url}{entity.href}"} if entity.href else None
        return form.response(entity, status=201, headers=headers)
    entity.fields = {**entity.fields, "creation_status": "pending"}
    entity.links = [*entity.links, f"creation_status={entity.href}/creation_status/{call.correlation_id}"]
    return form.response(entity, status=202)


async def _done(answer: Done, call: Call, form: _Form) -> Response:
    pending = answer.work is not None and not answer.work.done()
    if pending and not call.runs_async:
        assert answer.work is not None
        await asyncio.shield(answer.work)
        pending = False
    fields = {**answer.fields, "status": "pending" if pending else "complete"}
    return form.response(Entity("action", fields), status=202 if pending and call.method == "POST" else 200)


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    xml, plain = accept.find("xml"), accept.find("json")
    return plain >= 0 and (xml < 0 or plain < xml)


def _pairs(query: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&")) if name]
