# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenID Connect services of the SSO: a login by browser for registered programs, and whose login it is."""

from __future__ import annotations

import html
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ovirtlab.engine.clock import Clock
from ovirtlab.engine.rest.login import Login, check_scope, granted
from ovirtlab.engine.rest.login_forms import NO_MATCH, Refused, needed, needed_client, read_form, refusal
from ovirtlab.engine.sso import Session, Sessions
from ovirtlab.engine.state import State
from ovirtlab.engine.tokens import Signer

SSO = "/ovirt-engine/sso"

_FORM = """<!DOCTYPE html>
<html><head><title>oVirt Engine Log In</title></head><body>
<p class="error">{message}</p>
<form method="post" action="{sso}/interactive-login">
<input type="hidden" name="sessionIdToken" value="{key}">
<input type="text" name="username" autofocus> <input type="password" name="password">
<select name="profile">{profiles}</select> <button type="submit">Log In</button>
</form></body></html>
"""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a program has asked for by sending a browser here, and later gets a token for by a code."""

    client_id: str
    redirect_uri: str
    scope: str
    state: str
    nonce: str
    ends: float
    token: str = ""


class OpenId:
    """`/ovirt-engine/sso/openid/*`, `/sso/oauth/authorize` and the login form."""

    def __init__(self, sessions: Sessions, state: State, clock: Clock, *, base_url: str) -> None:
        self._sessions = sessions
        self._state = state
        self._clock = clock
        self._issuer = f"{base_url.rstrip('/')}{SSO}/openid"
        self._base = f"{base_url.rstrip('/')}{SSO}"
        self._signer = Signer()
        self._asked: dict[str, _Asked] = {}  # by the key in the login form
        self._codes: dict[str, _Asked] = {}
        self._login = Login(sessions, state, clock)

    def routes(self) -> list[Route]:
        """These come before those of `Login`, whose token service they extend by codes."""
        both = ["GET", "POST"]
        return [
            Route(f"{SSO}/openid/.well-known/openid-configuration", self.configuration),
            Route(f"{SSO}/openid/jwks", self.jwks),
            Route(f"{SSO}/openid/authorize", self.authorize, methods=both),
            Route(f"{SSO}/oauth/authorize", self.authorize, methods=both),
            Route(f"{SSO}/login.html", self.login_page),
            Route(f"{SSO}/interactive-login", self.interactive_login, methods=["POST"]),
            Route(f"{SSO}/openid/token", self.token, methods=both),
            Route(f"{SSO}/oauth/token", self.token, methods=both),
            Route(f"{SSO}/openid/userinfo", self.userinfo, methods=both),
        ]

    async def configuration(self, request: Request) -> Response:
        """What programs find the other services by."""
        return JSONResponse(
            {
                "issuer": self._issuer,
                "authorization_endpoint": f"{self._issuer}/authorize",
                "token_endpoint": f"{self._issuer}/token",
                "userinfo_endpoint": f"{self._issuer}/userinfo",
                "jwks_uri": f"{self._issuer}/jwks",
                "token_info_endpoint": f"{self._base}/oauth/token-info",
                "revocation_endpoint": f"{self._base}/oauth/revoke",
                "end_session_endpoint": f"{self._base}/oauth/revoke",
                "claim_types_supported": ["normal"],
                "response_modes_supported": ["query"],
                "request_parameter_supported": False,
                "version": "1.0",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "password"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "userinfo_signing_alg_values_supported": ["RS256"],
                "scopes_supported": ["openid", "ovirt-app-api", "ovirt-app-admin", "ovirt-app-portal"],
                "claims_supported": sorted({"iss", "auth_time", *self._claims_of(next(iter(self._state.users)))}),
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            }
        )

    async def jwks(self, request: Request) -> Response:
        """The public key that tokens are signed with."""
        return JSONResponse({"keys": [self._signer.public]})

    async def authorize(self, request: Request) -> Response:
        """Send the browser to the login form; a wrong client or address is told here, the rest to the program."""
        form = await read_form(request)
        client = self._sessions.client(form.get("client_id", ""))
        target = form.get("redirect_uri", "")
        if client is None or not target.startswith(client.callback_prefix):
            what = Refused("unauthorized_client", "The client is not authorized to request an authorization.")
            return refusal("", what)
        try:
            self._check(request, form)
        except Refused as refused:
            told = {"error_code": refused.code, "error": refused.code, "error_description": refused.text}
            return _back(target, {**told, "state": form.get("state", "")})
        key = secrets.token_urlsafe(24)
        self._asked[key] = _Asked(
            client_id=client.client_id,
            redirect_uri=target,
            scope=form["scope"],
            state=form.get("state", ""),
            nonce=form.get("nonce", ""),
            ends=self._clock.seconds() + self._state.settings.login_patience,
        )
        return RedirectResponse(f"{SSO}/login.html?{urlencode({'sessionIdToken': key})}", 302)

    async def login_page(self, request: Request) -> Response:
        """The form, for a request that is under way."""
        key = request.query_params.get("sessionIdToken", "")
        if _live(self._asked, key, self._clock) is None:
            return refusal("", Refused("invalid_request", "The login session has expired."))
        return self._form(key, "")

    async def interactive_login(self, request: Request) -> Response:
        """Send the browser back to the program with a code, or show the form again."""
        form = await read_form(request)
        key, login = form.get("sessionIdToken", ""), form.get("username", "")
        asked = _live(self._asked, key, self._clock)
        if asked is None:
            return refusal("", Refused("invalid_request", "The login session has expired."))
        login = login if "@" in login else f"{login}@{form.get('profile', 'internal')}"
        user = self._sessions.check(login, form.get("password", ""))
        if user is None:
            return self._form(key, NO_MATCH.format(login=login))
        del self._asked[key]
        session = self._sessions.begin(user, asked.scope)
        session.clients.add(asked.client_id)
        code = secrets.token_urlsafe(32)
        values = {
            **vars(asked),
            "token": session.token,
            "ends": self._clock.seconds() + self._state.settings.login_patience,
        }
        self._codes[code] = _Asked(**values)
        return _back(asked.redirect_uri, {"code": code, "state": asked.state})

    async def token(self, request: Request) -> Response:
        """A token for a code, or as for every client for a password; with an `id_token` in the scope `openid`."""
        form = await read_form(request)
        try:
            if form.get("grant_type") != "authorization_code":
                return await self._login.token(request, form)
            return JSONResponse(self._redeem(request, form))
        except Refused as refused:
            return refusal(form.get("scope", ""), refused)

    async def userinfo(self, request: Request) -> Response:
        """Who a token belongs to: signed for clients registered with encrypted-userinfo, else plain JSON."""
        form = await read_form(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = form.get("access_token") or (token.strip() if scheme.lower() == "bearer" else "")
        session = self._sessions.find(token)
        if session is None:
            answer = refusal("", Refused("invalid_token", "Session expired please try again."))
            answer.status_code, answer.headers["WWW-Authenticate"] = 401, 'Bearer error="invalid_token"'
            return answer
        client = self._sessions.client(next(iter(sorted(session.clients)), ""))
        claims = {**self._claims_of(session.user_id), "iss": self._issuer}
        if client is None or not client.encrypted_userinfo:
            return JSONResponse(claims)
        return Response(self._signer.sign({**claims, "aud": client.client_id}), media_type="application/jwt")

    def _check(self, request: Request, form: dict[str, str]) -> None:
        if form.get("response_type") != "code":
            raise Refused("unsupported_response_type", "The response type is not supported.")
        words = check_scope(needed(form, "scope")).split()
        if request.url.path.endswith("/openid/authorize") and "openid" not in words:
            raise Refused("invalid_scope", "The requested scope must contain openid.")
        if "ovirt-ext=auth:identity" in words:  # who is logged in, without a form
            raise Refused("not_authenticated", "The user is not authenticated.")

    def _form(self, key: str, message: str) -> Response:
        domains = sorted({user.domain for user in self._state.users.values()})
        profiles = "".join(f"<option>{html.escape(domain)}</option>" for domain in domains)
        return HTMLResponse(_FORM.format(message=html.escape(message), sso=SSO, key=key, profiles=profiles))

    def _redeem(self, request: Request, form: dict[str, str]) -> dict[str, str]:
        client = needed_client(request, form, self._sessions)
        code = needed(form, "code")
        asked = _live(self._codes, code, self._clock)
        self._codes.pop(code, None)  # good for one attempt
        session = self._sessions.find(asked.token) if asked else None
        fits = asked is not None and (asked.client_id, asked.redirect_uri) == (
            client.client_id,
            form.get("redirect_uri", ""),
        )
        if asked is None or session is None or not fits:
            raise Refused("invalid_grant", "The provided authorization grant for the auth code has expired.")
        answer = granted(session, self._clock)
        if "openid" in session.scope.split():
            answer["id_token"] = self._signer.sign(self._id_claims(session, asked))
        return answer

    def _id_claims(self, session: Session, asked: _Asked) -> dict[str, Any]:
        clock, now = self._clock, self._clock.seconds()
        return {
            **self._claims_of(session.user_id),
            "iss": self._issuer,
            "aud": asked.client_id,
            "azp": asked.client_id,
            "iat": int(clock.real_time()),
            "auth_time": int(clock.real_time(session.begun - now)),
            "exp": int(clock.real_time(session.expires - now)),
            **({"nonce": asked.nonce} if asked.nonce else {}),
        }

    def _claims_of(self, user_id: str) -> dict[str, Any]:
        user = self._state.person(user_id)
        assert user is not None  # or there were no session
        groups = [self._state.groups[key].name for key in user.group_ids if key in self._state.groups]
        return {
            "sub": user.id,
            "preferred_username": user.login,
            "name": f"{user.first_name} {user.last_name}".strip() or user.name,
            "given_name": user.first_name,
            "family_name": user.last_name,
            "email": user.email,
            "groups": groups,
        }


def _live(table: dict[str, _Asked], key: str, clock: Clock) -> _Asked | None:
    now = clock.seconds()
    for old in [name for name, asked in table.items() if asked.ends <= now]:
        del table[old]
    return table.get(key)


def _back(target: str, values: dict[str, str]) -> Response:
    mark = "&" if "?" in target else "?"
    return RedirectResponse(f"{target}{mark}{urlencode({key: value for key, value in values.items() if value})}", 302)
