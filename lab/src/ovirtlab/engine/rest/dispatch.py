# SPDX-License-Identifier: GPL-3.0-or-later
"""From a request to a handler and back: login, route, answer or fault, in XML or JSON."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from ovirtlab.engine.context import Context
from ovirtlab.engine.faults import Bare, Fault, InternalError, NotFound, Unauthorized
from ovirtlab.engine.rest import json_form, negotiation, persistence, xml_form
from ovirtlab.engine.rest.actions import name_actions
from ovirtlab.engine.rest.aliases import find_by_lists
from ovirtlab.engine.rest.asynchrony import finish_created, finish_done, is_creation, show_creation
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
        form = _Form(self._router, negotiation.accepted(request))
        method = "GET" if request.method == "HEAD" else request.method
        match = self._router.find(method, address.path)
        form.is_action = match is not None and match.route is not None and match.route.is_action
        user = None
        try:
            await self._context.faults.before_call(method, address.path)
            user = authenticate(request, self._sessions, self._context)
            if not negotiation.is_supported(address.version):
                raise Bare(400)
            self._check(request.method, address.path, match)
            call = await read_call(request, address, user, context=self._context, correlation_id=correlation_id)
            response = await self._answer(dataclasses.replace(call, segments=_segments(match)), match, form)
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
        if call.method == "OPTIONS":
            methods = ", ".join(self._router.methods(call.path))
            return Response(methods, headers={"Allow": methods}, media_type="text/plain")
        known = frozenset(self._context.state.jobs)
        form.check()
        answer = await self._invoke(call, match)
        if isinstance(answer, Created):
            entity, status = await finish_created(answer, call)
            located = status == 201 and entity.href is not None
            headers = {"Location": f"{call.context.base_url}{entity.href}"} if located else None
            return form.response(entity, status=status, headers=headers)
        if isinstance(answer, Done):
            entity, status = await finish_done(answer, call, known=known)
            return form.response(entity, status=status)
        wanted = call.text("follow")
        if wanted:
            await follow(answer, wanted, get=lambda path: self._get(call, path))
        return form.response(answer)

    def _check(self, method: str, path: str, match: Match | None) -> None:
        """Raise 404 for an unknown path, and 405 for a method that is not for it."""
        if is_creation(path) or (match is None and method in ("GET", "HEAD")):
            return
        if match is None:
            raise NotFound(path)
        if match.route is None and method != "OPTIONS":
            raise Bare(405, allow=self._router.methods(path))

    async def _invoke(self, call: Call, match: Match | None) -> Answer:
        if match is not None and match.route is not None:
            return await match.route.handler(call)
        if is_creation(call.path):
            return show_creation(call)
        return await find_by_lists(call, self._router)

    async def _get(self, call: Call, path: str) -> Entity | Collection:
        """A GET of the same user from inside, for `follow`; it drops the parameters, `max` among them."""
        path, _, query = path.partition("?")
        match = self._router.find("GET", path)
        parameters, segments = dict(_pairs(query)), _segments(match)
        inner = dataclasses.replace(call, method="GET", path=path, parameters=parameters, segments=segments)
        answer = await self._invoke(inner, match)
        if isinstance(answer, (Entity, Collection)):
            return answer
        raise NotFound(path)


class _Form:
    """Renders documents the way the client asked for; faults as XML for one that takes neither form."""

    def __init__(self, router: Router, accepted: str | None) -> None:
        self._router = router
        self._accepted = accepted
        self._form = json_form if accepted == negotiation.JSON else xml_form
        self.is_action = False

    def check(self) -> None:
        """Raise 406 when the client takes none of the forms there are."""
        if self._accepted is None:
            raise Bare(406)

    def response(
        self, document: Entity | Collection, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        name_actions(document, self._router)
        return Response(self._form.render(document), status, headers, media_type=self._form.CONTENT_TYPE)

    def fault(self, fault: Fault) -> Response:
        if isinstance(fault, Unauthorized):
            headers = {"WWW-Authenticate": 'Basic realm="RESTAPI"'}
            return Response(_UNAUTHORIZED, 401, headers, media_type="text/html;charset=UTF-8")
        if isinstance(fault, NotFound):
            return Response(status_code=404)
        if isinstance(fault, Bare):
            allow = {"Allow": ", ".join(fault.allow)} if fault.allow else None
            return Response(status_code=fault.status, headers=allow)
        document = Entity("fault", {"detail": fault.detail, "reason": fault.reason})
        if self.is_action:
            document = Entity("action", {"fault": document, "status": "failed"})
        return self.response(document, status=fault.status)


def _segments(match: Match | None) -> Mapping[str, str]:
    return match.segments if match is not None else {}


def _pairs(query: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&")) if name]
