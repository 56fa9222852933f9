# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of the order protocol: signed calls over TLS, typed errors."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from urllib.parse import quote

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ValidationError

from overkeep.errors import ConfigError
from overkeep.model.findings import Finding
from overkeep.model.probes import Probe, Terms
from overkeep.mover.api import LONGEST_WAIT, Health, Load
from overkeep.mover.errors import MoverError, MoverUnreachable, MoverUntrusted
from overkeep.mover.orders import Order, OrderStatus
from overkeep.mover.probing import ProbeAsked
from overkeep.mover.problems import error_of
from overkeep.mover.signing import Call, Signer

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 15.0  # seconds beyond what the mover was asked to wait
PAUSES = (0.2, 0.8)  # seconds before the second and third attempt at a connection


_LOOKS = 15.0  # seconds that a mover takes to look at itself, at most


class _List(BaseModel):
    orders: tuple[OrderStatus, ...]


class _Health(BaseModel):
    version: str
    host: str
    time: float | None = None
    load: Load | None = None


class _Probed(BaseModel):
    probe: Probe


class _Findings(BaseModel):
    findings: tuple[Finding, ...]


class MoverClient:
    """The mover of `host` at `url` (`api.Mover`). Safe to use from several threads; close it at the end.

    The mover's certificate must be issued by the CA in `ca_file` for the address in `url`. Only the calls that
    may be repeated are, which are all of them: ids and fences make repeating harmless.
    """

    def __init__(self, url: str, *, ca_file: Path, signing_key: Ed25519PrivateKey, host: str) -> None:
        self.host = host
        self._url = url.rstrip("/")
        self._signer = Signer(signing_key, host=host)
        try:
            context = ssl.create_default_context(cafile=str(ca_file))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(path=ca_file, reason=f"it is not a CA certificate: {error}") from error
        timeout = httpx.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT)
        self._http = httpx.Client(base_url=self._url, verify=context, timeout=timeout, trust_env=False)

    def put(self, order_id: str, order: Order) -> OrderStatus:
        """Give an order (`Mover.put`)."""
        body = order.model_dump_json().encode()
        return self._status(self._call("PUT", _path(order_id), body=body))

    def wait(self, order_id: str, *, after: int, timeout: float = LONGEST_WAIT) -> OrderStatus:
        """Wait for a change (`Mover.wait`)."""
        seconds = max(0.0, min(timeout, LONGEST_WAIT))
        target = f"{_path(order_id)}?after={after}&wait={seconds:g}"
        return self._status(self._call("GET", target, patience=seconds))

    def cancel(self, order_id: str, *, timeout: float = 60) -> OrderStatus:
        """Cancel an order (`Mover.cancel`); asks again while the mover says that the work has not stopped yet."""
        deadline = time.monotonic() + timeout
        while True:
            answer = self._call("DELETE", _path(order_id), patience=LONGEST_WAIT)
            if answer.status_code != httpx.codes.ACCEPTED or time.monotonic() >= deadline:
                return self._status(answer)

    def orders(self) -> tuple[OrderStatus, ...]:
        """All that the mover knows (`Mover.orders`)."""
        try:
            return _List.model_validate_json(self._call("GET", "/v1/orders").content).orders
        except ValidationError as error:
            raise self._nonsense() from error

    def health(self) -> Health:
        """Who answers (`Mover.health`)."""
        try:
            health = _Health.model_validate_json(self._call("GET", "/v1/health").content)
        except ValidationError as error:
            raise self._nonsense() from error
        return Health(version=health.version, host=health.host, time=health.time, load=health.load)

    def check(self) -> tuple[Finding, ...]:
        """What it finds (`Mover.check`)."""
        try:
            return _Findings.model_validate_json(self._call("GET", "/v1/check", patience=_LOOKS).content).findings
        except ValidationError as error:
            raise self._nonsense() from error

    def probe(self, target: str, terms: Terms, *, repository: str) -> Probe:
        """How a target is (`Mover.probe`)."""
        asked = ProbeAsked(size=terms.size, seconds=terms.seconds, repository=repository)
        path = f"/v1/targets/{quote(target, safe='')}/probe"
        answer = self._call("POST", path, body=asked.model_dump_json().encode(), patience=asked.longest)
        try:
            return _Probed.model_validate_json(answer.content).probe
        except ValidationError as error:
            raise self._nonsense() from error

    def close(self) -> None:
        """Close the connections; may be called twice."""
        self._http.close()

    def __enter__(self) -> MoverClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, target: str, *, body: bytes = b"", patience: float = 0) -> httpx.Response:
        timeout = httpx.Timeout(ANSWER_TIMEOUT + patience, connect=CONNECT_TIMEOUT)
        for pause in (*PAUSES, None):
            # signed anew each time: the mover may have seen the nonce of a call whose answer was lost
            headers = self._signer.headers(Call(method=method, target=target, body=body))
            if body:
                headers["Content-Type"] = "application/json"
            try:
                answer = self._http.request(method, target, content=body, headers=headers, timeout=timeout)
            except httpx.TransportError as error:
                if _untrusted(error):
                    raise MoverUntrusted(host=self.host, url=self._url, reason=error) from error
                if pause is None or isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
                    raise self._unreachable(error) from error
                time.sleep(pause)
                continue
            if answer.is_success:
                return answer
            raise error_of(answer.status_code, answer.content, host=self.host)
        raise AssertionError("the last attempt returns or raises")

    def _status(self, answer: httpx.Response) -> OrderStatus:
        try:
            return OrderStatus.model_validate_json(answer.content)
        except ValidationError as error:
            raise self._nonsense() from error

    def _unreachable(self, error: httpx.TransportError) -> MoverUnreachable:
        reason = str(error) or type(error).__name__
        return MoverUnreachable(host=self.host, url=self._url, reason=reason)

    def _nonsense(self) -> MoverError:
        return MoverError(host=self.host, code="nonsense", detail="the answer is not one of a data mover.")


def _path(order_id: str) -> str:
    return f"/v1/orders/{quote(order_id, safe=':')}"


def _untrusted(error: httpx.TransportError) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return "CERTIFICATE_VERIFY_FAILED" in str(error)
