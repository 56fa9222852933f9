# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the Manager is, and plain HTTPS requests to it with errors of ours: log-in and log-out, API reads by token."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from overkeep.engine.errors import BadAnswer, EngineNotTrusted, EngineUnreachable, LoginRefused

CONNECT_TIMEOUT = 10.0  # seconds; a Manager that is there accepts a connection at once
ANSWER_TIMEOUT = 60.0
_OUT_OF_SERVICE = (502, 503, 504)  # what the web server in front answers while the engine service is down
_SCOPE = "ovirt-app-api"


@dataclass(frozen=True)
class Site:
    """A Manager: the URL of its API and the file with the CA that signed its certificate."""

    url: str
    ca_file: Path

    @property
    def root(self) -> str:
        """Scheme, name and port, without a path."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def client(self) -> httpx.Client:
        """Return a client that trusts this Manager's CA alone; it may be used by several threads."""
        timeout = httpx.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT)
        return httpx.Client(verify=self._trust(), timeout=timeout, trust_env=False)

    def _trust(self) -> ssl.SSLContext | bool:
        if urlsplit(self.url).scheme != "https":
            return True
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = f"the CA file cannot be read ({error})"
            raise EngineNotTrusted(url=self.url, reason=reason, ca_file=self.ca_file) from error

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Turn errors of the transport into ours; requests are never shown, as they carry secrets."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise EngineUnreachable(url=self.url, reason="no answer in time") from error
        except httpx.ConnectError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise EngineNotTrusted(url=self.url, reason=str(error), ca_file=self.ca_file) from error
            raise EngineUnreachable(url=self.url, reason=str(error) or "no connection") from error
        except httpx.TransportError as error:
            raise EngineUnreachable(url=self.url, reason=str(error) or type(error).__name__) from error
        except httpx.InvalidURL as error:
            raise BadAnswer(url=self.url, reason=f"this is not a URL ({error})") from error

    def check_in_service(self, status: int) -> None:
        """Raise `EngineUnreachable` when an HTTP status says that the engine service itself is not there."""
        if status in _OUT_OF_SERVICE:
            raise EngineUnreachable(url=self.url, reason=f"its web server answers {status}, the engine service is down")


def log_in(site: Site, username: str, password: str) -> str:
    """Return a token of the Manager's single sign-on for `username`, of the form `user@profile`."""
    form = {"grant_type": "password", "scope": _SCOPE, "username": username, "password": password}
    with site.client() as client, site.reached():
        answer = client.post(
            f"{site.root}/ovirt-engine/sso/oauth/token", data=form, headers={"Accept": "application/json"}
        )
    site.check_in_service(answer.status_code)
    fields = _json(site, answer)
    token = fields.get("access_token")
    if answer.status_code == 200 and isinstance(token, str) and token:
        return token
    if "error" in fields or "error_code" in fields:
        words = fields.get("error_description") or fields.get("error") or fields.get("error_code")
        raise LoginRefused(url=site.url, username=username, words=str(words).rstrip("."))
    raise BadAnswer(url=site.url, reason=f"its log-in answered status {answer.status_code} without a token")


def log_out(site: Site, token: str) -> None:
    """Revoke a token; one that the Manager knows no longer is success."""
    with site.client() as client, site.reached():
        client.post(
            f"{site.root}/ovirt-engine/services/sso-logout",
            data={"scope": _SCOPE, "token": token},
            headers={"Accept": "application/json"},
        )


def _json(site: Site, answer: httpx.Response) -> dict[str, object]:
    try:
        fields = answer.json()
    except ValueError as error:
        reason = f"its log-in answered status {answer.status_code} with something that is not JSON"
        raise BadAnswer(url=site.url, reason=reason) from error
    if isinstance(fields, list) and fields:
        fields = fields[0]
    return fields if isinstance(fields, dict) else {}
