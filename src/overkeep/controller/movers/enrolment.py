# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and certificates: the controller's CA, its TLS certificate, its key for orders, and what a mover gets."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from overkeep.errors import ConfigError, Conflict
from overkeep.units import utc_now

_CA_DAYS = 3650
_CERT_DAYS = 825
_EARLIER = dt.timedelta(hours=1)  # clocks of hosts are not all the same

CA_CERT, CA_KEY = "ca.pem", "ca-key.pem"
API_CERT, API_KEY = "api.pem", "api-key.pem"
ORDER_KEY, ORDER_PUBLIC = "order-key.pem", "order.pub"


@dataclass(frozen=True, kw_only=True)
class Pki:
    """Where the files are; all are readable by their owner alone."""

    folder: Path

    @property
    def ca_cert(self) -> Path:
        """The CA certificate that users and movers trust."""
        return self.folder / CA_CERT

    @property
    def api_cert(self) -> Path:
        """Certificate of the controller's API."""
        return self.folder / API_CERT

    @property
    def api_key(self) -> Path:
        """Its key."""
        return self.folder / API_KEY

    @property
    def order_key(self) -> Path:
        """The key that signs orders to movers."""
        return self.folder / ORDER_KEY


def init(folder: Path, addresses: Sequence[str]) -> Pki:
    """Make the CA, the API's certificate for `addresses` (names or IP addresses), and the key for orders.

    Raises `Conflict` when there is a CA already: movers and users that trust it would be cut off.
    """
    pki = Pki(folder=folder)
    if pki.ca_cert.exists():
        raise Conflict(what=f"{folder} holds a CA already", todo="use it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate(_name("Overkeep CA"), ca_key, issuer=None, addresses=())
    api_key = ec.generate_private_key(ec.SECP256R1())
    api = _certificate(_name(addresses[0]), api_key, issuer=(ca, ca_key), addresses=addresses)
    order_key = ed25519.Ed25519PrivateKey.generate()
    _write(folder / CA_KEY, _private(ca_key))
    _write(folder / API_KEY, _private(api_key))
    _write(folder / API_CERT, _pem(api))
    _write(folder / ORDER_KEY, _private(order_key))
    _write(folder / ORDER_PUBLIC, _public(order_key))
    _write(folder / CA_CERT, _pem(ca))  # last: its presence says that the rest is there
    return pki


def enrol(folder: Path, host: str, *, addresses: Sequence[str], out: Path) -> None:
    """Make `cert.pem`, `key.pem` and `controller.pub` in `out` for the mover of `host`.

    Enrolling again replaces them. Raises `ConfigError` when `folder` holds no CA.
    """
    ca, ca_key = _load_ca(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(_name(host), key, issuer=(ca, ca_key), addresses=addresses)
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(out / "key.pem", _private(key))
    _write(out / "cert.pem", _pem(certificate))
    _write(out / "controller.pub", (folder / ORDER_PUBLIC).read_bytes())


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    addresses: Sequence[str],
) -> x509.Certificate:
    now = utc_now()
    is_ca = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + dt.timedelta(days=_CA_DAYS if is_ca else _CERT_DAYS))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(_usage(is_ca=is_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    signer = issuer[1] if issuer else key
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    if addresses:
        names = x509.SubjectAlternativeName([_general_name(address) for address in addresses])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _load_ca(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / CA_CERT).read_bytes())
        key = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), password=None)
    except OSError as error:
        reason = f"{error.strerror}; make a CA there with `overkeep admin init`"
        raise ConfigError(path=folder, reason=reason) from error
    except ValueError as error:
        raise ConfigError(path=folder, reason="the CA's files are damaged") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(path=folder, reason="the CA's key is of another kind than `overkeep admin init` makes")
    return certificate, key


def _private(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    """Write a file that was never readable by others, and replace it whole."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)
