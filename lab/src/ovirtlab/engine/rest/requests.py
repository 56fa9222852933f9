# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request says besides its body: path, query and matrix parameters, correlation id, who sends it."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.requests import Request

from ovirtlab.engine.access import is_admin, may_log_in
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.people import User
from ovirtlab.engine.faults import BadRequest, Bare, Forbidden, Unauthorized
from ovirtlab.engine.rest import persistence
from ovirtlab.engine.rest.bodies import Unreadable, boolean_parameter, parse_body
from ovirtlab.engine.rest.documents import API, COLLECTIONS
from ovirtlab.engine.rest.negotiation import is_readable, split_version
from ovirtlab.engine.rest.routing import Call
from ovirtlab.engine.sso import Sessions

_NOT_IN_CORRELATION_ID = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True)
class Address:
    """A request's path below the API and its parameters, matrix and query together."""

    path: str
    parameters: dict[str, str]
    version: str | None = None


def read_address(request: Request) -> Address:
    """Split matrix parameters from the path; the query wins over them, `all-content` and `filter` may be headers."""
    raw = request.scope.get("raw_path") or request.url.path.encode()
    parameters: dict[str, str] = {}
    segments: list[str] = []
    for part in raw.decode("ascii", "replace").removeprefix(API).strip("/").split("/"):
        name, *matrix = part.split(";")
        segments.append(unquote(name))
        for pair in matrix:
            key, _, value = pair.partition("=")
            if key:
                parameters[unquote(key)] = unquote(value)
    for key, value in reversed(request.query_params.multi_items()):  # the first of several counts
        parameters[key] = value
    for name, header in (("all_content", "all-content"), ("filter", "filter")):
        if header in request.headers:
            parameters.setdefault(name, request.headers[header])
    version, path = split_version("/".join(segments))
    return Address(path, parameters, version or request.headers.get("version") or None)


def read_correlation_id(request: Request, parameters: dict[str, str]) -> str:
    """The client's correlation id without characters that the engine drops, or a new one."""
    given = request.headers.get("correlation-id") or parameters.get("correlation_id", "")
    return _NOT_IN_CORRELATION_ID.sub("", given)[:36] or str(uuid.uuid4())


def authenticate(request: Request, sessions: Sessions, context: Context) -> User:
    """The user of a bearer token, of a name and password, or of a kept login; raise `Unauthorized` without one."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        session = sessions.enter(credentials.strip())
        if session is not None:
            return _admitted(context.state.person(session.user_id), context)
    elif scheme.lower() == "basic":
        user = sessions.check(*_decode(credentials))
        if user is not None:
            return _admitted(user, context)
    elif not scheme:
        kept = persistence.find(request, sessions)
        if kept is not None:
            return _admitted(context.state.person(kept.user_id), context)
    raise Unauthorized("Unauthorized")


def _admitted(user: User | None, context: Context) -> User:
    """The engine begins no session for a user without any role, whom the SSO has let in nevertheless.

    One whom only the directory knew has a role by a group, and is the engine's own from now on.
    """
    if user is None or not may_log_in(context.state, user):
        raise Unauthorized("The user is not authorized to perform login")
    context.state.users.setdefault(user.id, user)
    return user


def _decode(credentials: str) -> tuple[str, str]:
    try:
        login, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise Unauthorized("Unauthorized") from None
    return login, password


def _method(request: Request, address: Address) -> str:
    """The method of the API's documentation that a request was for, e.g. `vms/methods/add`."""
    parts = address.path.split("/")
    collection = parts[-1] if len(parts) % 2 else parts[-2]
    singular = next((name for name, known in COLLECTIONS.items() if known == collection), collection.removesuffix("s"))
    if len(parts) % 2:
        is_action = request.method == "POST" and len(parts) > 2 and not collection.endswith("s")
        return f"{parts[-3].removesuffix('s')}/methods/{collection}" if is_action else f"{singular}s/methods/add"
    return f"{singular}/methods/{'update' if request.method == 'PUT' else 'remove'}"


async def read_call(request: Request, address: Address, user: User, *, context: Context, correlation_id: str) -> Call:
    """The call a handler gets, still without the segments of its route."""
    parameters = address.parameters
    raw = await request.body()
    if not is_readable(request, raw):
        raise Bare(415)
    try:
        body = parse_body(raw, request.headers.get("content-type", ""))
    except Unreadable:
        usage = f"For correct usage, see: {context.base_url}/ovirt-engine/apidoc#services/{_method(request, address)}"
        raise BadRequest(usage, reason="Request syntactically incorrect.") from None
    expect = ",".join((request.headers.get("expect", ""), request.headers.get("x-ovirt-expect", ""))).lower()
    admin = is_admin(context.state, user)
    wanted_filter = boolean_parameter(parameters, "filter")
    if wanted_filter is False and not admin and request.method == "GET" and address.path:
        raise Forbidden("Query execution failed due to insufficient permissions.")
    return Call(
        context=context,
        user=user,
        method=request.method,
        path=address.path,
        parameters=parameters,
        body=body,
        correlation_id=correlation_id,
        filtered=not admin or bool(wanted_filter),
        expects_created="201-created" in expect,
        runs_async=bool(body.flag("async")),
        does_not_wait="202-accepted" in expect or bool(boolean_parameter(parameters, "async")),
    )
