# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of a mover for tests: certificates, keys, settings, a running service."""

from __future__ import annotations

import datetime as dt
import ipaddress
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from overkeep.config import MoverConfig, TargetConfig
from overkeep.mover.client import MoverClient
from overkeep.mover.orders import Access, CopyOrder, CopyResult, Image
from overkeep.mover.service import MoverService
from overkeep.mover.work import Work

HOST = "host1"
DEADLINE = 20.0


@dataclass(frozen=True)
class Pki:
    """A CA, a mover's certificate from it for 127.0.0.1, and a controller's key; all as PEM files."""

    ca_file: Path
    cert_file: Path
    key_file: Path
    controller_pub: Path
    controller_key: Ed25519PrivateKey


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_pki(folder: Path) -> Pki:
    """Make everything anew in `folder`."""
    now = dt.datetime.now(dt.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def builder(subject: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("test CA"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    ca = (
        builder("test CA", ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    cert = builder("mover", key.public_key()).add_extension(names, critical=False).sign(ca_key, hashes.SHA256())
    controller = Ed25519PrivateKey.generate()
    public = controller.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    files = {
        "ca.pem": ca.public_bytes(serialization.Encoding.PEM),
        "cert.pem": cert.public_bytes(serialization.Encoding.PEM),
        "key.pem": _pem(key),
        "controller.pub": public,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Pki(*(folder / name for name in files), controller)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """One PKI for all tests."""
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def settings(tmp_path: Path, pki: Pki) -> MoverConfig:
    """Settings of a mover of its own, with a target that is not mounted."""
    return MoverConfig(
        host=HOST,
        listen="127.0.0.1",
        port=0,
        state_dir=tmp_path / "state",
        cert_file=pki.cert_file,
        key_file=pki.key_file,
        controller_key_file=pki.controller_pub,
        imageio_control_socket=str(tmp_path / "no-control"),
        imageio_local_socket=str(tmp_path / "no-local"),
        target=(TargetConfig(name="nfs1", source="server:/export", mountpoint=tmp_path / "nfs1"),),
        orders_at_once=2,
    )


class Gate:
    """An execution that ends as a test says: at once, or held until released; failing with `error` if set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.started: list[str] = []
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        """Let orders run until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Let running orders end."""
        self._open.set()

    def __call__(self, work: Work) -> CopyResult:
        self.started.append(work.id)
        woken = threading.Event()
        with work.on_stop(woken.set):
            while not self._open.wait(0.01):
                work.check()
        if self.error is not None:
            raise self.error
        return CopyResult(virtual_size=10, covered=10, moved=5, stored=7, seconds=0.1)


@pytest.fixture
def gate() -> Gate:
    """Control over what orders come to."""
    return Gate()


@pytest.fixture
def serve(pki: Pki) -> Iterator[Callable[..., tuple[MoverService, MoverClient]]]:
    """Start a mover from settings and connect a client; both end with the test."""
    with ExitStack() as stack:

        def start(settings: MoverConfig, gate: Gate | None = None) -> tuple[MoverService, MoverClient]:
            service = stack.enter_context(MoverService(settings, execute=gate))
            if gate is not None:
                stack.callback(gate.release)
            return service, stack.enter_context(connect(pki, service.port))

        yield start


def connect(pki: Pki, port: int, *, host: str = HOST, key: Ed25519PrivateKey | None = None) -> MoverClient:
    """A client of the mover on `port`."""
    return MoverClient(
        f"https://127.0.0.1:{port}", ca_file=pki.ca_file, signing_key=key or pki.controller_key, host=host
    )


def backup_order(name: str = "p1.qcow2", **changes: object) -> CopyOrder:
    """An order access → image."""
    values: dict[str, object] = {
        "host": HOST,
        "source": Access(ticket="t1"),
        "sink": Image(target="nfs1", repository="r1", folder="workloads/w/vms/v/disks/d", name=name),
    }
    return CopyOrder.model_validate({**values, **changes})
