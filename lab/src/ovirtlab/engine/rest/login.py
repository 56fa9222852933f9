# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSO services that clients log in and out with."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ovirtlab.engine.clock import Clock
from ovirtlab.engine.sso import Session, Sessions
from ovirtlab.engine.state import State

API_SCOPE = "ovirt-app-api"
VALIDATE_SCOPE = "ovirt-ext=token-info:validate"
NO_MATCH = (
    "Cannot authenticate user '{login}': The username or password is incorrect or the user account is locked. "
    "Unable to log in."
)


class Login:
    """`/ovirt-engine/sso/oauth/*` and `/ovirt-engine/services/sso-logout`."""

    def __init__(self, sessions: Sessions, state: State, clock: Clock) -> None:
        self._sessions = sessions
        self._state = state
        self._clock = clock

    def routes(self) -> list[Route]:
        base = "/ovirt-engine/sso/oauth"
        return [
            Route(f"{base}/token", self.token, methods=["GET", "POST"]),
            Route(f"{base}/token-http-auth", self.token_http_auth, methods=["GET", "POST"]),
            Route(f"{base}/token-info", self.token_info, methods=["GET", "POST"]),
            Route(f"{base}/revoke", self.revoke, methods=["POST"]),
            Route("/ovirt-engine/services/sso-logout", self.revoke, methods=["GET", "POST"]),
        ]

    async def token(self, request: Request) -> Response:
        """Give a token for a user name and a password."""
        form = await _form(request)
        scope = form.get("scope", "")
        if "application/json" not in request.headers.get("accept", ""):
            return _refuse(scope, "invalid_request", "Missing or invalid Accept header, application/json is expected.")
        if form.get("grant_type") != "password":
            return _refuse(scope, "unsupported_grant_type", "Unsupported grant type.")
        for name in ("username", "password"):
            if not form.get(name):
                return _refuse(scope, "invalid_request", f"Missing parameter: '{name}'")
        user = self._sessions.check(form["username"], form["password"])
        if user is None:
            return _refuse(scope, "access_denied", NO_MATCH.format(login=form["username"]))
        return JSONResponse(self._granted(self._sessions.begin(user, scope)))

    async def token_http_auth(self, request: Request) -> Response:
        """Kerberos is not configured here."""
        headers = {"WWW-Authenticate": "Negotiate"}
        return Response("<html><head><title>Error</title></head><body>Unauthorized</body></html>", 401, headers)

    async def token_info(self, request: Request) -> Response:
        """Tell whether a token is valid, and to a registered client whose it is."""
        form = await _form(request)
        session = self._sessions.find(form.get("token", ""))
        if session is None:
            return _refuse(form.get("scope", ""), "invalid_grant", "The provided authorization grant is not valid.")
        if form.get("scope") == VALIDATE_SCOPE and "client_id" not in form:
            return JSONResponse({})
        return JSONResponse(self._description(session))

    async def revoke(self, request: Request) -> Response:
        """Log out; a token that has ended is success."""
        form = await _form(request)
        self._sessions.end(form.get("token", ""))
        return JSONResponse({})

    def _granted(self, session: Session) -> dict[str, str]:
        return {
            "access_token": session.token,
            "scope": session.scope,
            "exp": str(self._expiry(session)),
            "token_type": "bearer",
        }

    def _description(self, session: Session) -> dict[str, object]:
        user = self._state.users[session.user_id]
        return {
            "active": True,
            "token_type": "bearer",
            "client_id": "ovirt-engine-core",
            "user_id": user.login,
            "user_authz": f"{user.domain}-authz",
            "scope": session.scope,
            "exp": str(self._expiry(session)),
            "ovirt": {
                "version": "0",
                "principal_id": user.id,
                "email": user.email,
                "namespace": "*",
                "first_name": user.first_name,
                "last_name": user.last_name,
                "group_ids": [],
                "capability_credentials_change": False,
            },
        }

    def _expiry(self, session: Session) -> int:
        remaining = session.expires - self._clock.seconds()
        return int((self._clock.now().timestamp() + remaining) * 1000)


def _refuse(scope: str, code: str, text: str) -> JSONResponse:
    """The engine words its refusals in one way for its own API, and as OAuth has it for everybody else."""
    if API_SCOPE in scope.split():
        return JSONResponse({"error_code": code, "error": text}, status_code=400)
    return JSONResponse({"error": code, "error_description": text}, status_code=400)


async def _form(request: Request) -> dict[str, str]:
    values = dict(request.query_params)
    if request.method == "POST":
        async with request.form() as form:
            values.update({name: value for name, value in form.items() if isinstance(value, str)})
    return values
