# SPDX-License-Identifier: GPL-3.0-or-later
"""What every call needs: the controller behind the application, and the caller behind the token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from overkeep.controller.background.janitor import Janitor
from overkeep.controller.rights import Caller, identify
from overkeep.controller.service import Controller
from overkeep.engine.api import Access
from overkeep.errors import Unauthorized
from overkeep.model.findings import Finding


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What the API is a thin coat over."""

    controller: Controller
    access: Access
    janitor: Janitor
    inspect: Callable[[], Sequence[Finding]]


_bearer = HTTPBearer(auto_error=False, description="The Manager's OpenID (SSO) token")


def backend(request: Request) -> Backend:
    """The backend of the application that got the call."""
    found: Backend = request.app.state.backend
    return found


def caller(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
    """Who calls; raises `Unauthorized` without a token that the Manager knows."""
    if credentials is None:
        raise Unauthorized
    return identify(backend(request).access, credentials.credentials)


def controller(request: Request) -> Controller:
    """The controller."""
    return backend(request).controller


TheBackend = Annotated[Backend, Depends(backend)]
TheController = Annotated[Controller, Depends(controller)]
TheCaller = Annotated[Caller, Depends(caller)]
