# SPDX-License-Identifier: GPL-3.0-or-later
"""What the SSO services read from requests and how they refuse."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse

from ovirtlab.accounts import SsoClient
from ovirtlab.engine.sso import API_SCOPE, Sessions

NO_MATCH = (
    "Cannot authenticate user '{login}': The username or password is incorrect or the user account is locked. "
    "Unable to log in."
)


class Refused(Exception):
    """A refusal of the SSO; `code` is OAuth's word for it."""

    def __init__(self, code: str, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(f"{code}: {text}")


def refusal(scope: str, refused: Refused) -> JSONResponse:
    """The engine words its refusals in one way for its own API, and as OAuth has it for everybody else."""
    if API_SCOPE in scope.split():
        return JSONResponse({"error_code": refused.code, "error": refused.text}, status_code=400)
    return JSONResponse({"error": refused.code, "error_description": refused.text}, status_code=400)


async def read_form(request: Request) -> dict[str, str]:
    """The parameters of a request, from its address and its body."""
    values = dict(request.query_params)
    if request.method == "POST":
        async with request.form() as form:
            values.update({name: value for name, value in form.items() if isinstance(value, str)})
    return values


def needed(form: dict[str, str], name: str) -> str:
    """A parameter that must be there; raise `Refused`."""
    if not form.get(name):
        raise Refused("invalid_request", f"Missing parameter: '{name}'")
    return form[name]


def read_client(request: Request, form: dict[str, str], sessions: Sessions) -> SsoClient | None:
    """The registered program that sends a request, by parameters or Basic; None without one, `Refused` when wrong."""
    client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if not client_id and scheme.lower() == "basic":
        client_id, secret = _decoded(credentials)
    if not client_id:
        return None
    client = sessions.check_client(client_id, secret)
    if client is None:
        raise Refused("unauthorized_client", "The client is not authorized to request an authorization.")
    return client


def needed_client(request: Request, form: dict[str, str], sessions: Sessions) -> SsoClient:
    """The same where there must be one."""
    client = read_client(request, form, sessions)
    if client is None:
        raise Refused("invalid_request", "Missing parameter: 'client_id'")
    return client


def _decoded(credentials: str) -> tuple[str, str]:
    try:
        name, _, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise Refused("invalid_request", "The Authorization header cannot be read.") from None
    return unquote_plus(name), unquote_plus(secret)
