# SPDX-License-Identifier: GPL-3.0-or-later
"""The service account's session: one token, several connections, each used by one thread at a time.

A connection of the SDK is not to be shared between threads: a thread that waits for its answer may be given the
transport error of another thread's request, and the other then waits for ever. So threads borrow connections. The
token is shared by all of them; the first that meets an expired one gets the next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ovirtsdk4 as sdk

from overkeep.config import EngineConfig
from overkeep.engine.errors import BadAnswer, EngineUnreachable
from overkeep.engine.ovirt import faults
from overkeep.engine.site import ANSWER_TIMEOUT, Site, log_in, log_out
from overkeep.errors import ConfigError, OverkeepError

_log = logging.getLogger(__name__)
_KEPT_IDLE = 8  # connections kept open for the next caller; more are made when more threads call at once


class Session:
    """Borrow the Manager's services with `system`; `close` logs out."""

    def __init__(self, settings: EngineConfig, *, timeout: float = ANSWER_TIMEOUT) -> None:
        self.site = Site(settings.url.rstrip("/"), settings.ca_file)
        self.username = settings.username
        self._password_file = settings.password_file
        self._timeout = timeout
        self._lock = threading.Lock()
        self._login_lock = threading.Lock()
        self._token: str | None = None
        self._idle: list[_Connection] = []

    @contextmanager
    def system(self, act: str, *, what: str) -> Iterator[Any]:
        """Lend the SDK's system service for a few calls that make up `act`; errors leave as errors of the port.

        `act` and `what` are words for a sentence: `back up VM x` and `VM x`.
        """
        connection = self._borrow()
        healthy = True
        try:
            yield connection.system_service()
        except sdk.Error as error:
            healthy = error.code is not None
            raise faults.translate(error, act, what=what, site=self.site, username=self.username) from error
        except OverkeepError as error:
            healthy = not isinstance(error, EngineUnreachable | BadAnswer)
            raise
        except BaseException as error:
            healthy = False
            if type(error) is Exception:  # what the SDK's XML parser, written in C, raises
                raise BadAnswer(url=self.site.url, reason=f"its XML cannot be read ({error})") from error
            raise
        finally:
            self._give_back(connection, healthy=healthy)

    def token(self, *, instead_of: str | None = None) -> str:
        """Return the session's token, logging in when there is none or when it still is the refused `instead_of`."""
        with self._login_lock:
            if self._token is None or self._token == instead_of:
                self._token = log_in(self.site, self.username, self._password())
                _log.info("logged in to the Manager url=%s user=%s", self.site.url, self.username)
            return self._token

    def close(self) -> None:
        """Close idle connections and revoke the token; the session logs in anew when it is used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close(logout=False)
        with self._login_lock:
            token, self._token = self._token, None
        if token is not None:
            try:
                log_out(self.site, token)
            except OverkeepError as error:
                _log.info("the token was not revoked and will expire reason=%s", error)

    def _borrow(self) -> _Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        token = self.token()  # also proves that the CA file can be read, before the SDK looks at it
        return _Connection(self, url=self.site.url, token=token, ca_file=str(self.site.ca_file), timeout=self._timeout)

    def _give_back(self, connection: _Connection, *, healthy: bool) -> None:
        with self._lock:
            if healthy and len(self._idle) < _KEPT_IDLE:
                self._idle.append(connection)
                return
        connection.close(logout=False)

    def _password(self) -> str:
        """Read the password at each log-in, so that it can be changed without a restart."""
        try:
            return self._password_file.read_text().strip()
        except OSError as error:
            raise ConfigError(path=self._password_file, reason=error.strerror) from error


class _Connection(sdk.Connection):  # type: ignore[misc]  # the SDK has no types
    """The SDK's connection with the session's log-in, and with answers checked before they are parsed."""

    def __init__(self, session: Session, *, url: str, token: str, ca_file: str, timeout: float) -> None:
        self._session = session
        secure = url.startswith("https:")
        super().__init__(
            url=url, token=token, ca_file=ca_file if secure else None, insecure=not secure, timeout=int(timeout)
        )

    def _get_access_token(self) -> str:
        """Called by the SDK on status 401, once a request; its own log-in has no time-out."""
        return self._session.token(instead_of=self._sso_token)

    def wait(self, context: Any, failed_auth: bool = False) -> Any:
        """Wait for an answer; a web server that speaks for a dead engine gives HTML, on which the SDK stumbles."""
        answer = super().wait(context, failed_auth)
        self._session.site.check_in_service(answer.code)
        kind = next((h.split(":", 1)[1].strip() for h in answer.headers if h.lower().startswith("content-type:")), "")
        if answer.body and "/xml" not in kind:
            raise BadAnswer(url=self._url, reason=f"it answered status {answer.code} with content of type {kind!r}")
        return answer
