# SPDX-License-Identifier: GPL-3.0-or-later
"""The welcome page: an engine asks its SSO first who is there, and then again and again where cookies are not kept.

Clients that leave out `/api` meet it, and tell by the endless redirects that this is not the interface.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from ovirtlab.accounts import SsoClient

_ENGINE = "/ovirt-engine"
_CLIENT_ID = "ovirt-engine-core"
_SCOPE = "ovirt-app-admin ovirt-app-portal ovirt-ext=auth:identity"
_COOKIE = "JSESSIONID"
_PAGE = "<html><head><title>oVirt Engine</title></head><body>Welcome to oVirt Engine</body></html>"


def client(base_url: str) -> SsoClient:
    """The engine itself as a program that its SSO knows."""
    return SsoClient(client_id=_CLIENT_ID, secret=secrets.token_urlsafe(32), callback_prefix=base_url)


def routes() -> list[Route]:
    """The page, and the two stations on the way to it and back from the SSO."""
    return [
        Route(_ENGINE, _to_welcome),
        Route(f"{_ENGINE}/", _welcome),
        Route(f"{_ENGINE}/login", _login),
        Route(f"{_ENGINE}/oauth2-callback", _called_back),
    ]


async def _to_welcome(request: Request) -> Response:
    return RedirectResponse(f"{_ENGINE}/", 302)


async def _welcome(request: Request) -> Response:
    """What somebody gets who leaves out the rest of the address."""
    if _COOKIE in request.cookies:
        return HTMLResponse(_PAGE)
    return RedirectResponse(f"{_ENGINE}/login?{urlencode({'scope': _SCOPE})}", 302)


async def _login(request: Request) -> Response:
    asked = {
        "client_id": _CLIENT_ID,
        "response_type": "code",
        "redirect_uri": str(request.url.replace(path=f"{_ENGINE}/oauth2-callback", query="")),
        "scope": request.query_params.get("scope", _SCOPE),
    }
    return RedirectResponse(f"{_ENGINE}/sso/oauth/authorize?{urlencode(asked)}", 302)


async def _called_back(request: Request) -> Response:
    """Whatever the SSO says: the page is shown to everybody, and the cookie ends the asking."""
    answer = RedirectResponse(f"{_ENGINE}/", 302)
    answer.set_cookie(_COOKIE, secrets.token_urlsafe(24), path=_ENGINE, httponly=True)
    return answer
