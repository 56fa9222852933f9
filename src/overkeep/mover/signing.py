# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures on calls to a mover: Ed25519, short-lived, for one host and one use (docs/protocol/orders-1.md)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from overkeep.errors import ConfigError, OverkeepError

WINDOW = 60  # seconds between the signer's clock and ours
TIME, NONCE, HOST, SIGNATURE = "Overkeep-Time", "Overkeep-Nonce", "Overkeep-Host", "Overkeep-Signature"

_CONTEXT = "overkeep-order-1"
_NONCE_FORM = re.compile(r"[0-9a-f]{32}")
_TIME_FORM = re.compile(r"[0-9]{1,12}")


class SignatureRefused(OverkeepError):
    """A call is not signed as it must be; which check failed is said only as far as it helps an administrator."""

    code = "signature-refused"
    template = "The data mover of host {host} refuses the call: {reason}; {todo}."
    status = 401


class ClockSkew(OverkeepError):
    """The signature is right and its time is not ours."""

    code = "clock-skew"
    template = (
        "The clock of the controller and that of host {host} are {seconds} seconds apart; "
        "set both with a time service such as chrony."
    )
    retry = True
    status = 401


class Nonces(Protocol):
    """Memory of the nonces that were used."""

    def use(self, nonce: str, *, expires: float) -> bool:
        """Remember `nonce` until the time `expires`; False when it was used before."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What is signed of an HTTP request; `target` is the path with its query as sent."""

    method: str
    target: str
    body: bytes = b""

    def message(self, *, when: str, nonce: str, host: str) -> bytes:
        """The bytes that the signature is over."""
        digest = hashlib.sha256(self.body).hexdigest()
        return "\n".join((_CONTEXT, self.method, self.target, digest, when, nonce, host)).encode()


class Signer:
    """Signs calls to the mover of one host."""

    def __init__(self, key: Ed25519PrivateKey, *, host: str, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._host = host
        self._clock = clock

    def headers(self, call: Call) -> dict[str, str]:
        """Headers to send with `call`, once."""
        when, nonce = str(int(self._clock())), secrets.token_hex(16)
        signature = self._key.sign(call.message(when=when, nonce=nonce, host=self._host))
        return {TIME: when, NONCE: nonce, HOST: self._host, SIGNATURE: base64.b64encode(signature).decode()}


class Verifier:
    """Checks calls to the mover of one host."""

    def __init__(
        self, key: Ed25519PublicKey, *, host: str, nonces: Nonces, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = key
        self._host = host
        self._nonces = nonces
        self._clock = clock

    def check(self, call: Call, headers: Mapping[str, str]) -> None:
        """Raise `SignatureRefused` or `ClockSkew` unless `call` was signed for us, now, and never came before.

        Nothing but the signature is looked at before it has verified, so that only the controller learns reasons and
        only the controller fills the memory of nonces.
        """
        when, nonce = headers.get(TIME, ""), headers.get(NONCE, "")
        host, signature = headers.get(HOST, ""), headers.get(SIGNATURE, "")
        if not (_TIME_FORM.fullmatch(when) and _NONCE_FORM.fullmatch(nonce) and signature):
            raise self._refused("it is not signed", todo="only the controller may call it")
        try:
            self._key.verify(
                base64.b64decode(signature, validate=True), call.message(when=when, nonce=nonce, host=host)
            )
        except (InvalidSignature, binascii.Error, ValueError) as error:
            raise self._refused(
                "the signature does not belong to the key it knows", todo="give it the public key of this controller"
            ) from error
        if not hmac.compare_digest(host.encode(), self._host.encode()):
            raise self._refused("it is signed for another host", todo="correct the address of the mover")
        apart = int(when) - self._clock()
        if abs(apart) > WINDOW:
            raise ClockSkew(host=self._host, seconds=f"{abs(apart):.0f}")
        if not self._nonces.use(nonce, expires=int(when) + WINDOW + 1):
            raise self._refused("it came before", todo="sign each call anew")

    def _refused(self, reason: str, *, todo: str) -> SignatureRefused:
        return SignatureRefused(host=self._host, reason=reason, todo=todo)


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read the controller's key, PEM without a password; raise `ConfigError`."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(path=path, reason=_why(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(path=path, reason="it is not an Ed25519 private key")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read the public half of the controller's key, PEM; raise `ConfigError`."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(path=path, reason=_why(error)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(path=path, reason="it is not an Ed25519 public key")
    return key


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    return "it is not a PEM file with an Ed25519 key without a password"
