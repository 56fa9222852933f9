# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins: who a token or a password belongs to, and for how long."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass

from ovirtlab.engine.clock import Clock
from ovirtlab.engine.entities import User
from ovirtlab.engine.state import State


@dataclass
class Session:
    """A login; `expires` in seconds of the engine's clock."""

    token: str
    user_id: str
    scope: str
    expires: float


class Sessions:
    """All logins that live. `lifetime` may be changed at any time and counts for new ones."""

    def __init__(self, state: State, clock: Clock, *, lifetime: float = 360_000) -> None:
        self.lifetime = lifetime
        self._state = state
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def check(self, login: str, password: str) -> User | None:
        """The user of a name such as `admin@internal` and its password; None when they do not fit."""
        for user in self._state.users.values():
            if user.login == login and hmac.compare_digest(user.password.encode(), password.encode()):
                return user
        return None

    def begin(self, user: User, scope: str) -> Session:
        """A new token for the user."""
        self._forget_old()
        session = Session(secrets.token_urlsafe(64), user.id, scope, self._clock.seconds() + self.lifetime)
        self._sessions[session.token] = session
        return session

    def find(self, token: str) -> Session | None:
        """The login of a token; None when it is unknown, over, or its user is gone."""
        session = self._sessions.get(token)
        if session is None or session.expires <= self._clock.seconds() or session.user_id not in self._state.users:
            return None
        return session

    def end(self, token: str) -> None:
        """Log out; unknown is success."""
        self._sessions.pop(token, None)

    def end_all(self) -> None:
        """Make every token invalid, as a restart of the engine's SSO does."""
        self._sessions.clear()

    def _forget_old(self) -> None:
        now = self._clock.seconds()
        for token in [token for token, session in self._sessions.items() if session.expires <= now]:
            del self._sessions[token]
