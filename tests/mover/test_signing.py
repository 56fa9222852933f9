# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures: what is accepted once, and everything that is refused, at the verifier and at the running server."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from overkeep.config import MoverConfig
from overkeep.errors import ConfigError, OverkeepError
from overkeep.mover.client import MoverClient
from overkeep.mover.errors import MoverUntrusted
from overkeep.mover.orders import Access, CopyOrder, Image
from overkeep.mover.signing import (
    HOST,
    NONCE,
    SIGNATURE,
    TIME,
    Call,
    ClockSkew,
    SignatureRefused,
    Signer,
    Verifier,
    load_private_key,
    load_public_key,
)
from overkeep.mover.table import OrderTable
from tests.clock import Clock

CALL = Call(method="PUT", target="/v1/orders/j:d:1?x=1", body=b"{}")


@pytest.fixture
def clock() -> Clock:
    return Clock(1_800_000_000.0)


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> Iterator[OrderTable]:
    made = OrderTable(tmp_path / "orders.sqlite", host="host1", clock=clock)
    yield made
    made.close()


@pytest.fixture
def verifier(key: Ed25519PrivateKey, table: OrderTable, clock: Clock) -> Verifier:
    return Verifier(key.public_key(), host="host1", nonces=table, clock=clock)


def test_a_signed_call_is_accepted_once(key: Ed25519PrivateKey, verifier: Verifier, clock: Clock) -> None:
    headers = Signer(key, host="host1", clock=clock).headers(CALL)
    verifier.check(CALL, headers)
    with pytest.raises(SignatureRefused, match="came before"):
        verifier.check(CALL, headers)


def test_a_replay_is_refused_after_a_restart(
    key: Ed25519PrivateKey, verifier: Verifier, table: OrderTable, clock: Clock, tmp_path: Path
) -> None:
    headers = Signer(key, host="host1", clock=clock).headers(CALL)
    verifier.check(CALL, headers)
    table.close()
    again = OrderTable(tmp_path / "orders.sqlite", host="host1", clock=clock)
    again.prune()
    with pytest.raises(SignatureRefused, match="came before"):
        Verifier(key.public_key(), host="host1", nonces=again, clock=clock).check(CALL, headers)
    again.close()


@pytest.mark.parametrize("after", [-59, 0, 59])
def test_a_call_within_the_window(key: Ed25519PrivateKey, verifier: Verifier, clock: Clock, after: int) -> None:
    headers = Signer(key, host="host1", clock=clock).headers(CALL)
    clock.now += after
    verifier.check(CALL, headers)


@pytest.mark.parametrize("after", [-3600, -62, 62, 3600])
def test_a_call_outside_the_window(key: Ed25519PrivateKey, verifier: Verifier, clock: Clock, after: int) -> None:
    headers = Signer(key, host="host1", clock=clock).headers(CALL)
    clock.now += after
    with pytest.raises(ClockSkew, match=str(abs(after))):
        verifier.check(CALL, headers)


@pytest.mark.parametrize(
    "change",
    [{"method": "GET"}, {"target": "/v1/orders/j:d:2?x=1"}, {"target": "/v1/orders/j:d:1"}, {"body": b"{ }"}],
)
def test_a_changed_call(key: Ed25519PrivateKey, verifier: Verifier, clock: Clock, change: dict[str, Any]) -> None:
    headers = Signer(key, host="host1", clock=clock).headers(CALL)
    with pytest.raises(SignatureRefused, match="signature"):
        verifier.check(replace(CALL, **change), headers)
    verifier.check(CALL, headers)  # what failed has not used the nonce up


@pytest.mark.parametrize("name", [TIME, NONCE, HOST, SIGNATURE])
@pytest.mark.parametrize("value", [None, "", "0", "a" * 32, "host2", "ü", "9" * 400])
def test_changed_headers(
    key: Ed25519PrivateKey, verifier: Verifier, clock: Clock, name: str, value: str | None
) -> None:
    headers = Signer(key, host="host1", clock=clock).headers(CALL)
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    with pytest.raises(SignatureRefused):
        verifier.check(CALL, headers)


def test_another_key(verifier: Verifier, clock: Clock) -> None:
    headers = Signer(Ed25519PrivateKey.generate(), host="host1", clock=clock).headers(CALL)
    with pytest.raises(SignatureRefused, match="public key"):
        verifier.check(CALL, headers)


def test_another_host(key: Ed25519PrivateKey, verifier: Verifier, clock: Clock) -> None:
    headers = Signer(key, host="host2", clock=clock).headers(CALL)
    with pytest.raises(SignatureRefused, match="another host"):
        verifier.check(CALL, headers)


def test_keys_from_files(pki: Any, tmp_path: Path) -> None:
    assert load_public_key(pki.controller_pub).public_bytes_raw() == pki.controller_key.public_key().public_bytes_raw()
    for load in (load_public_key, load_private_key):
        for path in (tmp_path / "none.pem", pki.cert_file, pki.ca_file):
            with pytest.raises(ConfigError, match=str(path)):
                load(path)
    with pytest.raises(ConfigError, match="not an Ed25519"):
        load_private_key(pki.key_file)


# at the server


@pytest.fixture
def served(settings: MoverConfig, gate: Any, serve: Callable[..., Any], pki: Any) -> Iterator[tuple[Any, httpx.Client]]:
    service, _ = serve(settings, gate)
    context = ssl.create_default_context(cafile=str(pki.ca_file))
    with httpx.Client(base_url=f"https://127.0.0.1:{service.port}", verify=context, trust_env=False) as client:
        yield service, client


def send(client: httpx.Client, key: Ed25519PrivateKey, call: Call, **headers: str) -> httpx.Response:
    signed = Signer(key, host="host1").headers(call)
    return client.request(call.method, call.target, content=call.body, headers={**signed, **headers})


ORDER = CopyOrder(
    host="host1",
    source=Access(ticket="t1"),
    sink=Image(target="nfs1", repository="r", folder="w/d", name="p.qcow2"),
).model_dump_json()


def test_only_health_is_open(served: tuple[Any, httpx.Client]) -> None:
    _, client = served
    health = client.get("/v1/health")
    assert health.status_code == 200
    assert set(health.json()) == {"version", "host", "time", "load"}
    for method, path in (
        ("GET", "/v1/check"),
        ("POST", "/v1/targets/nfs1/probe"),
        ("GET", "/v1/orders"),
        ("GET", "/v1/orders/j:d:1"),
        ("DELETE", "/v1/orders/j:d:1"),
        ("PUT", "/v1/orders/j:d:1"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "signature-refused")
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_replayed_order_is_refused(served: tuple[Any, httpx.Client], pki: Any) -> None:
    _, client = served
    call = Call(method="PUT", target="/v1/orders/j:d:1", body=ORDER.encode())
    headers = Signer(pki.controller_key, host="host1").headers(call)
    assert client.put(call.target, content=call.body, headers=headers).status_code == 201
    answer = client.put(call.target, content=call.body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "signature-refused")
    # a captured poll is of no use for another one
    poll = Call(method="GET", target="/v1/orders/j:d:1?after=0&wait=0")
    headers = Signer(pki.controller_key, host="host1").headers(poll)
    assert client.get("/v1/orders/j:d:1?after=0&wait=1", headers=headers).status_code == 401
    assert client.delete("/v1/orders/j:d:1", headers=headers).status_code == 401
    assert client.get(poll.target, headers=headers).status_code == 200


def test_an_old_order_is_refused(served: tuple[Any, httpx.Client], pki: Any) -> None:
    _, client = served
    call = Call(method="PUT", target="/v1/orders/j:d:1", body=ORDER.encode())
    headers = Signer(pki.controller_key, host="host1", clock=lambda: time.time() - 120).headers(call)
    answer = client.put(call.target, content=call.body, headers=headers)
    assert (answer.status_code, answer.json()["code"], answer.json()["retry"]) == (401, "clock-skew", True)


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"),
    [
        ("PUT", "/v1/orders/j:d:1", "", 422, "order-malformed"),
        ("PUT", "/v1/orders/j:d:1", "[" * 30000, 422, "order-malformed"),
        ("PUT", "/v1/orders/j:d:1", "{}", 422, "order-malformed"),
        ("PUT", "/v1/orders/j:d:1", '{"a":"\ud800"}', 422, "order-malformed"),
        ("PUT", "/v1/orders/j:d:1", ORDER.replace("w/d", "../d"), 422, "order-malformed"),
        ("PUT", "/v1/orders/j:d:1", ORDER.replace('"w/d"', '"/etc"'), 422, "order-malformed"),
        ("PUT", "/v1/orders/j:d:1", ORDER.replace("p.qcow2", "x/p.qcow2"), 422, "order-malformed"),
        ("PUT", "/v1/orders/j:d:1", ORDER.replace('"fence":1', '"fence":1e300'), 422, "order-malformed"),
        ("PUT", "/v1/orders/j:d:1", ORDER.replace('"fence":1', '"fence":99999999999999999999'), 422, "order-malformed"),
        ("PUT", "/v1/orders/j:d:1", ORDER.replace('"fence":1', '"fence":1,"more":1'), 422, "order-malformed"),
        ("PUT", "/v1/orders/j:d:1", "x" * 70000, 413, "body-too-large"),
        ("PUT", "/v1/orders/nonsense", ORDER, 400, "bad-request"),
        ("PUT", "/v1/orders/" + "a" * 300 + ":d:1", ORDER, 400, "bad-request"),
        ("PUT", "/v1/orders/j:d:%00", ORDER, 400, "bad-request"),
        ("GET", "/v1/orders/j:d:1?after=x", "", 400, "bad-request"),
        ("GET", "/v1/orders/j:d:1?after=-1", "", 400, "bad-request"),
        ("GET", "/v1/orders/j:d:1?wait=nan", "", 400, "bad-request"),
        ("GET", "/v1/orders/j:d:1?wait=1e9", "", 400, "bad-request"),
        ("GET", "/v1/orders/j:d:1", "", 404, "order-unknown"),
        ("GET", "/v1/nothing", "", 404, "not-found"),
        ("POST", "/v1/orders", "", 405, "method-not-allowed"),
    ],
)
def test_bad_input_is_told_and_not_a_crash(
    served: tuple[Any, httpx.Client], pki: Any, method: str, target: str, body: str, status: int, code: str
) -> None:
    _, client = served
    call = Call(method=method, target=target, body=body.encode(errors="surrogatepass"))
    answer = send(client, pki.controller_key, call)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    problem = answer.json()
    assert problem["type"] == f"urn:overkeep:problem:{code}"
    assert problem["status"] == status
    assert problem["detail"]
    assert send(client, pki.controller_key, Call(method="GET", target="/v1/orders")).json() == {"orders": []}


def test_a_full_queue_says_when_to_come_back(
    settings: MoverConfig, gate: Any, serve: Callable[..., Any], pki: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overkeep.mover.service.WAITING", 0)
    service, _ = serve(settings, gate)
    context = ssl.create_default_context(cafile=str(pki.ca_file))
    with httpx.Client(base_url=f"https://127.0.0.1:{service.port}", verify=context, trust_env=False) as client:
        answer = send(client, pki.controller_key, Call(method="PUT", target="/v1/orders/j:d:1", body=ORDER.encode()))
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")


def test_the_client_trusts_only_its_ca(
    settings: MoverConfig, gate: Any, serve: Callable[..., Any], pki: Any, tmp_path: Path
) -> None:
    service, _ = serve(settings, gate)
    url = f"https://127.0.0.1:{service.port}"
    system = tmp_path / "other.pem"
    system.write_bytes(pki.cert_file.read_bytes())  # a certificate, and not that of the CA
    with (
        MoverClient(url, ca_file=system, signing_key=pki.controller_key, host="host1") as client,
        pytest.raises(MoverUntrusted) as caught,
    ):
        client.health()
    assert not caught.value.retry
    with (
        MoverClient(url, ca_file=pki.ca_file, signing_key=Ed25519PrivateKey.generate(), host="host1") as client,
        pytest.raises(SignatureRefused),
    ):
        client.orders()
    with pytest.raises(ConfigError):
        MoverClient(url, ca_file=tmp_path / "none.pem", signing_key=pki.controller_key, host="host1")


def test_every_error_of_the_wire_comes_back_as_it_left() -> None:
    from overkeep.mover import problems

    for kind in problems._KNOWN.values():
        names = [part.split("}")[0].split("!")[0] for part in kind.template.split("{")[1:]]
        error: OverkeepError = kind(**{name: name for name in names})
        back = problems.error_of(error.status, problems.problem_of(error).model_dump_json().encode(), host="h")
        assert (type(back), str(back), back.retry) == (kind, str(error), kind.retry)
    strange = problems.error_of(500, b"<html>", host="h")
    assert strange.code == "mover-failed"
