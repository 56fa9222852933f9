# SPDX-License-Identifier: GPL-3.0-or-later
"""What needs no login: the engine's health, and the authority that its clients trust."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_BASE = "/ovirt-engine/services"
_AUTHORITIES = ("ca-certificate", "qemu-ca-certificate")
_FORMATS = {
    "X509-PEM-CA": "application/x-x509-ca-cert",
    "X509-PEM": "application/x-x509-cert",
    "OPENSSH-PUBKEY": "text/plain",
}


def routes(ca_pem: str) -> list[Route]:
    """The services of an engine whose certificates this authority signs."""

    async def resource(request: Request) -> Response:
        """The authority in one of three forms; what is asked for wrongly is told apart, with status 400."""
        name, form = request.query_params.get("resource"), request.query_params.get("format", "X509-PEM-CA")
        if name is None:
            return HTMLResponse("Missing resource name", 400)
        if name not in _AUTHORITIES:
            return HTMLResponse(f"Resource '{name}' is invalid", 400)
        if form not in _FORMATS:
            return HTMLResponse(f"Format '{form}' is invalid", 400)
        text = ca_pem if form != "OPENSSH-PUBKEY" else _public_key(ca_pem, request.query_params.get("alias", ""))
        return Response(text, media_type=_FORMATS[form])

    return [
        Route(f"{_BASE}/health", _health),
        Route(f"{_BASE}/pki-resource", resource),
    ]


async def _health(request: Request) -> Response:
    return HTMLResponse("DB Up!Welcome to Health Status!")


def _public_key(ca_pem: str, alias: str) -> str:
    key = x509.load_pem_x509_certificate(ca_pem.encode()).public_key()
    return f"{key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {alias}".strip() + "\n"
