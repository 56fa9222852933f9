# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed tokens of the OpenID services: JSON Web Tokens with RS256, and the public key to check them by."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_BITS = 2048


class Signer:
    """A key of the engine's, made when it is first needed."""

    @cached_property
    def _key(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65537, key_size=_BITS)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """The claims as a compact JWT."""
        header = {"alg": "RS256", "typ": "JWT", "kid": self.public["kid"]}
        signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(dict(claims)).encode())}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encoded(signature)}"

    @cached_property
    def public(self) -> dict[str, str]:
        """The public key as a JSON Web Key."""
        numbers = self._key.public_key().public_numbers()
        modulus, exponent = _number(numbers.n), _number(numbers.e)
        key_id = hashlib.sha256(modulus.encode()).hexdigest()[:32]
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": key_id, "n": modulus, "e": exponent}


def _number(value: int) -> str:
    return _encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
