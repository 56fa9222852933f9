# SPDX-License-Identifier: GPL-3.0-or-later
"""The web application: routes, errors as problem documents, and the OpenAPI document."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from overkeep import __version__
from overkeep.api import jobs, points, policies, scheduler, service, targets, workloads
from overkeep.api.asked import Backend
from overkeep.api.documents import ProblemOut
from overkeep.errors import BadRequest, NotFound, OverkeepError
from overkeep.mover.problems import MEDIA_TYPE, problem_of

_log = logging.getLogger(__name__)


def create_app(backend: Backend | None) -> FastAPI:
    """Return the application over `backend`; without one it serves for its OpenAPI document alone."""
    problem: dict[str, Any] = {"model": ProblemOut, "description": "A problem document (RFC 9457)"}
    app = FastAPI(
        title="Overkeep",
        version=__version__,
        summary="Agentless backup and recovery for the virtual machines of oVirt, RHV and OLVM",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        responses={"default": problem},
    )
    app.state.backend = backend
    for module in (service, workloads, policies, scheduler, jobs, points, targets):
        app.include_router(module.router)
    app.add_exception_handler(OverkeepError, _typed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(Exception, _unexpected)
    return app


def openapi() -> dict[str, Any]:
    """The OpenAPI document, as committed in `docs/protocol/openapi.json`."""
    app = create_app(None)
    document = get_openapi(title=app.title, version="1", summary=app.summary, routes=app.routes)
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # every error is a problem document, this one as well
            operation["responses"]["default"] = {
                "description": "A problem document (RFC 9457)",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}},
            }
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["ProblemOut"] = ProblemOut.model_json_schema()
    return document


def openapi_text() -> str:
    """The OpenAPI document as text, the same on every run."""
    return json.dumps(openapi(), indent=2, sort_keys=True) + "\n"


def _answer(error: OverkeepError) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    document = problem_of(error).model_dump(mode="json")
    return JSONResponse(document, status_code=error.status, headers=headers, media_type=MEDIA_TYPE)


def _typed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OverkeepError)
    return _answer(error)


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
    return _answer(BadRequest(what=f"The request is not valid ({faults})", todo="correct it"))


def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _answer(NotFound(kind="resource", name=request.url.path, how="GET /v1/openapi.json"))
    problem = ProblemOut(
        type="about:blank",
        title=str(error.detail),
        status=error.status_code,
        detail=str(error.detail),
        code="http-error",
        retry=False,
    )
    return JSONResponse(
        problem.model_dump(), status_code=error.status_code, headers=error.headers, media_type=MEDIA_TYPE
    )


def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed unexpectedly", request.method, request.url.path, exc_info=error)
    return _answer(OverkeepError(reason="the call broke off"))
