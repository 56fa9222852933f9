from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from overkeep.controller.movers import enrolment
from overkeep.errors import ConfigError, Conflict
from overkeep.mover.signing import Call, Signer, Verifier, load_private_key, load_public_key


class _Nonces:
    def use(self, nonce: str, *, expires: float) -> bool:
        return True


def test_a_mover_shows_a_certificate_that_the_ca_vouches_for(tmp_path: Path) -> None:
    pki = enrolment.init(tmp_path / "pki", ["127.0.0.1", "backup.example"])
    enrolment.enrol(tmp_path / "pki", "host1", addresses=["127.0.0.1"], out=tmp_path / "host1")
    for cert, key in ((pki.api_cert, pki.api_key), (tmp_path / "host1/cert.pem", tmp_path / "host1/key.pem")):
        assert _handshake(cert, key, pki.ca_cert, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(pki.api_cert, pki.api_key, pki.ca_cert, "elsewhere.example")


def test_orders_signed_with_the_key_verify_with_what_the_mover_got(tmp_path: Path) -> None:
    pki = enrolment.init(tmp_path / "pki", ["c"])
    enrolment.enrol(tmp_path / "pki", "host1", addresses=["h"], out=tmp_path / "host1")
    call = Call(method="PUT", target="/v1/orders/a:b:1", body=b"{}")
    headers = Signer(load_private_key(pki.order_key), host="host1").headers(call)
    public = load_public_key(tmp_path / "host1/controller.pub")
    Verifier(public, host="host1", nonces=_Nonces()).check(call, headers)


def test_files_are_private_and_the_ca_is_never_replaced(tmp_path: Path) -> None:
    enrolment.init(tmp_path / "pki", ["c"])
    enrolment.enrol(tmp_path / "pki", "h", addresses=["h"], out=tmp_path / "h")
    for path in (*(tmp_path / "pki").iterdir(), *(tmp_path / "h").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict, match="holds a CA already"):
        enrolment.init(tmp_path / "pki", ["c"])
    with pytest.raises(ConfigError, match="overkeep admin init"):
        enrolment.enrol(tmp_path / "nowhere", "h", addresses=["h"], out=tmp_path / "h")


def _handshake(cert: Path, key: Path, ca: Path, name: str) -> bool:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    client = ssl.create_default_context(cafile=str(ca))
    left, right = socket.socketpair()
    left.settimeout(10)
    right.settimeout(10)

    def serve() -> None:
        try:
            server.wrap_socket(left, server_side=True).close()
        except (ssl.SSLError, OSError):
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(right, server_hostname=name).close()
    finally:
        right.close()
        thread.join(90)
    return True
