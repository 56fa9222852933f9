# SPDX-License-Identifier: GPL-3.0-or-later
"""`Prefer: persistent-auth`: a login that goes on with the cookie JSESSIONID, as long as every request asks for it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ovirtlab.engine.entities.people import User
from ovirtlab.engine.rest.documents import API
from ovirtlab.engine.sso import API_SCOPE, Session, Sessions
from ovirtlab.engine.timers import MINUTE

COOKIE = "JSESSIONID"


def find(request: Request, sessions: Sessions) -> Session | None:
    """The login that the request's cookie stands for."""
    return sessions.kept(request.cookies.get(COOKIE, ""))


def settle(request: Request, response: Response, user: User, *, sessions: Sessions) -> None:
    """Begin to keep the login, or end one that the client does not ask to keep any more."""
    cookie = request.cookies.get(COOKIE, "")
    wanted = "persistent-auth" in request.headers.get("prefer", "").lower()
    if not wanted:
        if cookie and "authorization" not in request.headers:
            sessions.drop(cookie)
        return
    if cookie and sessions.kept(cookie) is not None:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    session = sessions.find(token.strip()) if scheme.lower() == "bearer" else None
    fresh = sessions.keep(session or sessions.begin(user, API_SCOPE), idle_limit=_limit(request))
    response.set_cookie(COOKIE, fresh, path=API, httponly=True)


def _limit(request: Request) -> float | None:
    """The client's own idle limit, which the header gives in minutes, at least one; else it is the engine's."""
    minutes = request.headers.get("session-ttl", "")
    given = float(minutes) if minutes.isascii() and minutes.isdigit() else 0.0
    return given * MINUTE if given >= 1 else None
