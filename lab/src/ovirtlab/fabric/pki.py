# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's certificate authority, and keys and certificates of its hosts and Engine."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ORGANISATION = "ovirtlab"
CA_LIFE = dt.timedelta(days=3650)
LIFE = dt.timedelta(days=397)
SKEW = dt.timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """PEM files of one party: its key (mode 0600) and its certificate."""

    key: Path
    certificate: Path


class Authority:
    """A CA in a folder of its own; a folder that already has one is used again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / "ca.pem"
        key_file = folder / "ca.key"
        if self.certificate.exists() and key_file.exists():
            self._key = _read_key(key_file)
            self._certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._certificate = _self_signed(self._key)
            _write_key(key_file, self._key)
            _write(self.certificate, self._certificate.public_bytes(serialization.Encoding.PEM), 0o644)

    @property
    def pem(self) -> str:
        """The CA's certificate."""
        return self.certificate.read_text()

    def issue(self, name: str, *, addresses: Sequence[str], names: Sequence[str] = ()) -> Identity:
        """Make a key and a certificate for `name`, valid as server and client at its names and IP addresses."""
        identity = Identity(key=self._folder / f"{name}.key", certificate=self._folder / f"{name}.pem")
        key = ec.generate_private_key(ec.SECP256R1())
        places = [x509.DNSName(text) for text in dict.fromkeys((name, *names))]
        places += [x509.IPAddress(ipaddress.ip_address(text)) for text in addresses]  # type: ignore[misc]
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        public = key.public_key()
        certificate = (
            _builder(name, public, issuer=self._certificate.subject, life=LIFE)
            .add_extension(x509.SubjectAlternativeName(places), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        _write_key(identity.key, key)
        _write(identity.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return identity


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = f"{ORGANISATION} CA"
    public = key.public_key()
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder(name, public, issuer=_subject(name), life=CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(
    name: str, public: ec.EllipticCurvePublicKey, *, issuer: x509.Name, life: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} is not the key of a lab's CA; remove the folder {path.parent}")
    return key


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write(path, key.private_bytes(encoding, form, serialization.NoEncryption()), 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
