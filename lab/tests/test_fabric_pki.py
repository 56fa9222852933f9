# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's certificates, in real TLS handshakes."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from ovirtlab.fabric.pki import Authority, Identity


def handshake(ca: Authority, server: Identity, client: Identity, name: str) -> str:
    """Connect two ends over a socket pair, each with its certificate; return the subject the client saw."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca.certificate)
    serving.load_cert_chain(server.certificate, server.key)
    serving.verify_mode = ssl.CERT_REQUIRED
    asking = ssl.create_default_context(cafile=ca.certificate)
    asking.load_cert_chain(client.certificate, client.key)
    near, far = socket.socketpair()
    near.settimeout(5)
    far.settimeout(5)

    def serve() -> None:
        try:
            serving.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with asking.wrap_socket(near, server_hostname=name) as connection:
            return str(dict(item[0] for item in connection.getpeercert()["subject"])["commonName"])  # type: ignore[index]
    finally:
        near.close()
        thread.join(90)


def test_a_certificate_is_good_by_name_and_by_address(tmp_path: Path):
    ca = Authority(tmp_path)
    host, engine = ca.issue("host1", addresses=["10.1.2.3"]), ca.issue("engine", addresses=["10.1.2.254"])
    assert handshake(ca, host, engine, "host1") == "host1"
    assert handshake(ca, host, engine, "10.1.2.3") == "host1"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ca, host, engine, "10.1.2.254")


def test_another_labs_certificate_is_not_accepted(tmp_path: Path):
    ca, other = Authority(tmp_path / "one"), Authority(tmp_path / "two")
    with pytest.raises(ssl.SSLError):
        handshake(ca, other.issue("host1", addresses=[]), ca.issue("client", addresses=[]), "host1")


def test_an_authority_is_used_again_and_its_keys_are_private(tmp_path: Path):
    first = Authority(tmp_path)
    identity = first.issue("host1", addresses=["10.1.2.3"])
    again = Authority(tmp_path)
    assert again.pem == first.pem
    assert handshake(again, identity, again.issue("new", addresses=[]), "host1") == "host1"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}
