# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins: who a token, a password or a cookie belongs to, for how long, and which programs may ask about it."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field

from ovirtlab.accounts import SsoClient
from ovirtlab.engine.clock import Clock
from ovirtlab.engine.entities.people import User
from ovirtlab.engine.state import State

API_SCOPE = "ovirt-app-api"


@dataclass
class Session:
    """A login; times in seconds of the engine's clock.

    `used` is when the engine was last called with it: its own session begins with the first call, for which the token
    must be meant for the API, and ends after `idle_limit` without one, which ends the login. `clients` are the
    registered programs that have the token; it ends when the last of them gives it back.
    """

    token: str
    user_id: str
    scope: str
    begun: float
    expires: float
    used: float | None = None
    idle_limit: float | None = None  # None is the engine's own
    clients: set[str] = field(default_factory=set)


class Sessions:
    """All logins that live."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._cookies: dict[str, str] = {}  # JSESSIONID -> token
        self._clients: dict[str, SsoClient] = {}

    def register(self, client: SsoClient) -> None:
        """Make a program known, as `ovirt-register-sso-client-tool` does; a known one is replaced."""
        self._clients[client.client_id] = client

    def client(self, client_id: str) -> SsoClient | None:
        """A registered program."""
        return self._clients.get(client_id)

    def check_client(self, client_id: str, secret: str) -> SsoClient | None:
        """The program with this id and secret; None when they do not fit."""
        client = self._clients.get(client_id)
        fits = client is not None and hmac.compare_digest(client.secret.encode(), secret.encode())
        return client if fits else None

    def check(self, login: str, password: str) -> User | None:
        """The user of a name such as `admin@internal` and its password; None when they do not fit."""
        known = {**self._state.directory.users, **self._state.users}
        for user in known.values():
            if user.login == login and hmac.compare_digest(user.password.encode(), password.encode()):
                return user
        return None

    def begin(self, user: User, scope: str) -> Session:
        """A new token for the user."""
        self._forget_old()
        now = self._clock.seconds()
        session = Session(secrets.token_urlsafe(64), user.id, scope, now, now + self._state.settings.token_lifetime)
        self._sessions[session.token] = session
        return session

    def find(self, token: str) -> Session | None:
        """The login of a token; None when it is unknown, over, idle for too long, or its user is gone."""
        session = self._sessions.get(token)
        if session is None or self._over(session) or self._state.person(session.user_id) is None:
            return None
        return session

    def enter(self, token: str) -> Session | None:
        """The login of a token with which the engine is called: it must be for the API, or be in use there already."""
        session = self.find(token)
        if session is None or (session.used is None and API_SCOPE not in session.scope.split()):
            return None
        session.used = self._clock.seconds()
        return session

    def end(self, token: str) -> None:
        """Log out; unknown is success."""
        self._sessions.pop(token, None)

    def give_back(self, token: str, client_id: str) -> None:
        """A program is done with a token, which ends when no other has it."""
        session = self._sessions.get(token)
        if session is not None:
            session.clients.discard(client_id)
            if not session.clients:
                self.end(token)

    def end_all(self) -> None:
        """Make every token invalid, as a restart of the engine's SSO does."""
        self._sessions.clear()
        self._cookies.clear()

    def keep(self, session: Session, *, idle_limit: float | None = None) -> str:
        """A cookie that stands for the login from now on; it may have its own idle limit."""
        session.idle_limit = idle_limit if idle_limit is not None else session.idle_limit
        session.used = self._clock.seconds()
        cookie = secrets.token_urlsafe(24)
        self._cookies[cookie] = session.token
        return cookie

    def kept(self, cookie: str) -> Session | None:
        """The login that a cookie stands for."""
        return self.enter(self._cookies.get(cookie, ""))

    def drop(self, cookie: str) -> None:
        """End the login that a cookie stands for."""
        self.end(self._cookies.pop(cookie, ""))

    def _over(self, session: Session) -> bool:
        now = self._clock.seconds()
        limit = self._state.settings.session_idle_limit if session.idle_limit is None else session.idle_limit
        idle = session.used is not None and now - session.used > limit
        return idle or session.expires <= now

    def _forget_old(self) -> None:
        for token in [token for token, session in self._sessions.items() if self._over(session)]:
            del self._sessions[token]
        for cookie in [cookie for cookie, token in self._cookies.items() if token not in self._sessions]:
            del self._cookies[cookie]
