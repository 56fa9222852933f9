# SPDX-License-Identifier: GPL-3.0-or-later
"""The service account's session, and what its errors become."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from overkeep.config import EngineConfig
from overkeep.engine.errors import (
    BadAnswer,
    Busy,
    CheckpointInvalid,
    EngineNotTrusted,
    EngineRefused,
    EngineUnreachable,
    LoginRefused,
    NotFoundInEngine,
    PermissionDenied,
    VmLocked,
)
from overkeep.engine.ovirt.engine import OvirtEngine
from overkeep.engine.ovirt.session import Session
from overkeep.errors import ConfigError, OverkeepError, Unauthorized

from .conftest import PASSWORD, ROOT, Answer, Recorded, Request


@pytest.fixture
def engine(settings: EngineConfig) -> Iterator[OvirtEngine]:
    with OvirtEngine(settings) as engine:
        yield engine


def test_version(engine: OvirtEngine) -> None:
    assert engine.test() == "4.5.7"


def test_one_login_serves_many_calls_and_ends_with_close(engine: OvirtEngine, recorded: Recorded) -> None:
    for _ in range(3):
        engine.test()
    assert recorded.logins == 1
    engine.close()
    assert recorded.tokens == set()
    assert engine.test() == "4.5.7"  # a closed session logs in anew


def test_an_expired_token_is_renewed_once_for_all_threads(engine: OvirtEngine, recorded: Recorded) -> None:
    gate = threading.Barrier(4, timeout=90)

    def slow(_: Request) -> Answer:
        time.sleep(0.05)
        return Answer(ROOT)

    def call() -> str:
        gate.wait()
        return engine.test()

    recorded.answers["GET "] = slow
    with ThreadPoolExecutor(4) as pool:
        assert [f.result(timeout=90) for f in [pool.submit(call) for _ in range(4)]] == ["4.5.7"] * 4
        recorded.tokens.clear()
        assert [f.result(timeout=90) for f in [pool.submit(call) for _ in range(4)]] == ["4.5.7"] * 4
    assert recorded.logins == 2


def test_threads_do_not_wait_for_each_other(engine: OvirtEngine, recorded: Recorded) -> None:
    both = threading.Barrier(2, timeout=90)

    def meet(_: Request) -> Answer:
        both.wait()  # breaks unless two requests are under way at once
        return Answer(ROOT)

    recorded.answers["GET "] = meet
    with ThreadPoolExecutor(2) as pool:
        assert [f.result(timeout=90) for f in [pool.submit(engine.test) for _ in range(2)]] == ["4.5.7"] * 2


def test_a_token_that_is_refused_twice(engine: OvirtEngine, recorded: Recorded) -> None:
    recorded.answers["GET "] = Answer(status=401)
    with pytest.raises(Unauthorized):
        engine.test()


def test_wrong_password(settings: EngineConfig) -> None:
    settings.password_file.write_text("wrong secret")
    with OvirtEngine(settings) as engine, pytest.raises(LoginRefused) as caught:
        engine.test()
    assert "Invalid user credentials" in caught.value.message
    assert "secret" not in caught.value.message


def test_the_password_is_read_at_each_login(settings: EngineConfig, engine: OvirtEngine) -> None:
    settings.password_file.write_text("wrong")
    with pytest.raises(LoginRefused):
        engine.test()
    settings.password_file.write_text(PASSWORD)
    assert engine.test() == "4.5.7"


def test_no_password_file(settings: EngineConfig, engine: OvirtEngine) -> None:
    settings.password_file.unlink()
    with pytest.raises(ConfigError, match="password"):
        engine.test()


def test_nobody_listens(settings: EngineConfig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/ovirt-engine/api"
        with (
            OvirtEngine(settings.model_copy(update={"url": url})) as engine,
            pytest.raises(EngineUnreachable) as caught,
        ):
            engine.test()
    assert caught.value.retry
    assert url in caught.value.message


def test_the_manager_dies_and_comes_back(engine: OvirtEngine, recorded: Recorded) -> None:
    engine.test()
    recorded.answers["GET "] = Answer("<html>Service Unavailable</html>", status=503, kind="text/html; charset=UTF-8")
    with pytest.raises(EngineUnreachable, match="503"):
        engine.test()
    recorded.answers["GET "] = Answer(ROOT)
    assert engine.test() == "4.5.7"


def test_the_network_breaks_after_the_login(settings: EngineConfig) -> None:
    session = Session(settings, timeout=5)
    token = session.token()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/ovirt-engine/api"
        broken = Session(settings.model_copy(update={"url": url}), timeout=5)
        broken._token = token
        with pytest.raises(EngineUnreachable, match=url), broken.system("test", what="the API") as system:
            system.get()
    session.close()


def test_no_answer_in_time(settings: EngineConfig, recorded: Recorded) -> None:
    done = threading.Event()

    def hang(_: Request) -> Answer:
        done.wait(10)
        return Answer(ROOT)

    recorded.answers["GET "] = hang
    session = Session(settings, timeout=1)
    begin = time.monotonic()
    try:
        with pytest.raises(EngineUnreachable), session.system("test", what="the API") as system:
            system.get()
        assert time.monotonic() - begin < 5
    finally:
        done.set()
        session.close()


@pytest.mark.parametrize(
    "answer",
    [
        Answer("<html>Welcome</html>", kind="text/html"),
        Answer("not xml at all"),
        Answer("<api><product_info/></api>"),
        Answer("<html/>"),
        Answer(""),
    ],
    ids=["web page", "no xml", "no version", "xml of something else", "nothing"],
)
def test_something_else_answers(engine: OvirtEngine, recorded: Recorded, answer: Answer) -> None:
    recorded.answers["GET "] = answer
    with pytest.raises((BadAnswer, EngineRefused)) as caught:
        engine.test()
    assert caught.value.status in (409, 502)


FAULTS: dict[str, tuple[int, str, type[OverkeepError], bool]] = {
    "backup under way": (409, "[Cannot backup VM. The VM is during a backup operation.]", VmLocked, True),
    "disk locked": (
        409,
        "[Cannot backup VM: The following disks are locked: web_Disk1. Please try again in a few minutes.]",
        VmLocked,
        True,
    ),
    "vm locked": (409, "[Cannot start VM. VM is locked.]", VmLocked, True),
    "preview": (409, "[Cannot backup VM. The VM is in preview mode.]", EngineRefused, False),
    "status": (409, "[Cannot backup VM. The Virtual Machine should be in Up or Down status.]", Busy, True),
    "transfer": (409, "[Cannot finalize. There is an active image transfer for VM backup.]", Busy, True),
    "no checkpoint": (400, "[Cannot backup VM. Checkpoint ID x doesn't exist.]", CheckpointInvalid, False),
    "bad checkpoint": (
        400,
        "[Cannot backup VM. Checkpoint ID x is invalid and should be removed.]",
        CheckpointInvalid,
        False,
    ),
    "hosted engine": (409, "[Cannot backup VM. The hosted engine VM cannot be backed up.]", EngineRefused, False),
    "mac": (409, "[Cannot add VM. MAC Address 56:6f:1a is already in use: web.]", EngineRefused, False),
    "not allowed": (403, "User is not authorized to perform this action.", PermissionDenied, False),
    "not allowed, as a query": (
        400,
        "Query execution failed due to insufficient permissions.",
        PermissionDenied,
        False,
    ),
    "internal": (500, "Internal Engine Error", EngineRefused, False),
}


@pytest.mark.parametrize("case", FAULTS)
def test_refusals_are_told_apart(engine: OvirtEngine, recorded: Recorded, case: str) -> None:
    status, words, kind, retry = FAULTS[case]
    fault = f"<fault><detail>{words}</detail><reason>Operation Failed</reason></fault>"
    recorded.answers["GET /vms/v1"] = Answer("<vm id='v1'><status>down</status></vm>")
    recorded.answers["POST /vms/v1/start"] = Answer(fault, status=status)
    with pytest.raises(OverkeepError) as caught:
        engine.start_vm("v1")
    assert type(caught.value) is kind
    assert caught.value.retry is retry
    assert words.strip("[]").rstrip(".") in caught.value.message  # the Manager's own words reach the user
    assert "start VM v1" in caught.value.message


def test_not_found(engine: OvirtEngine) -> None:
    with pytest.raises(NotFoundInEngine, match="VM v9"):
        engine.start_vm("v9")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "someone else")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("elsewhere.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("pki") / "both.pem"
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(plain + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def tls_port(certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        for _ in range(2):
            try:
                raw, _ = listener.accept()
                with raw, context.wrap_socket(raw, server_side=True) as secure:
                    secure.recv(1)
            except OSError:
                pass  # the client hangs up, which is what is tested

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.close()


def test_a_certificate_of_another_name(settings: EngineConfig, certificate: Path, tls_port: int) -> None:
    url = f"https://127.0.0.1:{tls_port}/ovirt-engine/api"
    with (
        OvirtEngine(settings.model_copy(update={"url": url, "ca_file": certificate})) as engine,
        pytest.raises(EngineNotTrusted, match="CA certificate") as caught,
    ):
        engine.test()
    assert not caught.value.retry


def test_the_sdk_checks_certificates_too(settings: EngineConfig, certificate: Path, tls_port: int) -> None:
    url = f"https://127.0.0.1:{tls_port}/ovirt-engine/api"
    session = Session(settings.model_copy(update={"url": url, "ca_file": certificate}))
    session._token = "known already"
    with pytest.raises(EngineNotTrusted), session.system("test", what="the API") as system:
        system.get()


def test_no_ca_file(settings: EngineConfig) -> None:
    with (
        OvirtEngine(settings.model_copy(update={"url": "https://127.0.0.1:1/ovirt-engine/api"})) as engine,
        pytest.raises(EngineNotTrusted, match="cannot be read"),
    ):
        engine.test()
