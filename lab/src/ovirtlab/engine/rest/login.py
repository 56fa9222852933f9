# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSO services that clients log in and out with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ovirtlab.engine.clock import Clock
from ovirtlab.engine.rest.login_forms import NO_MATCH, Refused, needed, needed_client, read_client, read_form, refusal
from ovirtlab.engine.sso import API_SCOPE as API_SCOPE
from ovirtlab.engine.sso import Session, Sessions
from ovirtlab.engine.state import State

VALIDATE_SCOPE = "ovirt-ext=token-info:validate"
REVOKE_ALL_SCOPE = "ovirt-ext=revoke:revoke-all"
_SCOPES = ("ovirt-app-", "ovirt-ext=")
_OPENID_SCOPES = ("openid", "profile", "email", "address", "phone", "offline_access")

Form = dict[str, str]


class Login:
    """`/ovirt-engine/sso/oauth/*` and `/ovirt-engine/services/sso-logout`."""

    def __init__(self, sessions: Sessions, state: State, clock: Clock) -> None:
        self._sessions = sessions
        self._state = state
        self._clock = clock

    def routes(self) -> list[Route]:
        base = "/ovirt-engine/sso/oauth"
        return [
            Route(f"{base}/token", _told(self.token), methods=["GET", "POST"]),
            Route(f"{base}/token-http-auth", self.token_http_auth, methods=["GET", "POST"]),
            Route(f"{base}/token-info", _told(self.token_info), methods=["GET", "POST"]),
            Route(f"{base}/revoke", _told(self.revoke), methods=["POST"]),
            Route("/ovirt-engine/services/sso-logout", _told(self.log_out), methods=["GET", "POST"]),
        ]

    async def token(self, request: Request, form: Form) -> Response:
        """Give a token for a user name and a password."""
        if "application/json" not in request.headers.get("accept", ""):
            raise Refused("invalid_request", "Missing or invalid Accept header, application/json is expected.")
        if form.get("grant_type") != "password":
            raise Refused("unsupported_grant_type", "Unsupported grant type.")
        login, password = needed(form, "username"), needed(form, "password")
        scope = check_scope(form.get("scope", ""))
        client = read_client(request, form, self._sessions)
        user = self._sessions.check(login, password)
        if user is None:
            raise Refused("access_denied", NO_MATCH.format(login=login))
        session = self._sessions.begin(user, scope)
        if client is not None:
            session.clients.add(client.client_id)
        return JSONResponse(granted(session, self._clock))

    async def token_http_auth(self, request: Request) -> Response:
        """Kerberos is not configured here."""
        headers = {"WWW-Authenticate": "Negotiate"}
        return Response("<html><head><title>Error</title></head><body>Unauthorized</body></html>", 401, headers)

    async def token_info(self, request: Request, form: Form) -> Response:
        """Tell whether a token is valid, and to a registered client whose it is."""
        client = read_client(request, form, self._sessions)
        session = self._sessions.find(form.get("token", ""))
        if session is None:
            raise Refused("invalid_grant", "The provided authorization grant is not valid.")
        if client is None:
            if VALIDATE_SCOPE not in form.get("scope", "").split():
                raise Refused("invalid_request", "Missing parameter: 'client_id'")
            return JSONResponse({})
        return JSONResponse(self._description(session, client.client_id))

    async def revoke(self, request: Request, form: Form) -> Response:
        """End a token, or one client's part in it; one that has ended is success."""
        token = form.get("token", "")
        if REVOKE_ALL_SCOPE in form.get("scope", "").split():
            needed_client(request, form, self._sessions)
            self._sessions.end(token)
            return JSONResponse({})
        client = read_client(request, form, self._sessions)
        if client is None:
            self._sessions.end(token)
        else:
            self._sessions.give_back(token, client.client_id)
        return JSONResponse({})

    async def log_out(self, request: Request, form: Form) -> Response:
        """End a token for everybody; one that has ended is success."""
        self._sessions.end(form.get("token", ""))
        return JSONResponse({})

    def _description(self, session: Session, client_id: str) -> dict[str, object]:
        user = self._state.person(session.user_id)
        assert user is not None  # or there were no session
        return {
            "active": True,
            "token_type": "bearer",
            "client_id": client_id,
            "user_id": user.login,
            "user_authz": f"{user.domain}-authz",
            "scope": session.scope,
            "exp": expiry(session, self._clock),
            "ovirt": {
                "version": "0",
                "principal_id": user.id,
                "email": user.email,
                "namespace": "*",
                "first_name": user.first_name,
                "last_name": user.last_name,
                "group_ids": list(user.group_ids),
                "capability_credentials_change": False,
            },
        }


def granted(session: Session, clock: Clock) -> dict[str, str]:
    """The answer to a client that gets a token."""
    return {
        "access_token": session.token,
        "scope": session.scope,
        "exp": expiry(session, clock),
        "token_type": "bearer",
    }


def expiry(session: Session, clock: Clock) -> str:
    """When a login ends, in milliseconds since 1970 as text, as the engine gives it."""
    return str(int(clock.real_time(session.expires - clock.seconds()) * 1000))


def check_scope(scope: str) -> str:
    """The scope; raise `Refused` for a word in it that means nothing here."""
    for word in scope.split():
        if not word.startswith(_SCOPES) and word not in _OPENID_SCOPES:
            raise Refused("invalid_scope", "The requested scope is invalid, unknown, or malformed.")
    return scope


def _told(handler: Callable[[Request, Form], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Hand the parameters to a handler, and its refusal to the client."""

    async def respond(request: Request) -> Response:
        form = await read_form(request)
        try:
            return await handler(request, form)
        except Refused as refused:
            return refusal(form.get("scope", ""), refused)

    return respond
