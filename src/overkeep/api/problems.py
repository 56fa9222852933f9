# SPDX-License-Identifier: GPL-3.0-or-later
"""Every error as a problem document (RFC 9457), those of the web framework as well."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from overkeep.api.documents import FaultOut, ProblemOut
from overkeep.errors import BadRequest, OverkeepError
from overkeep.mover.problems import MEDIA_TYPE, problem_of

RETRY_AFTER = 5  # seconds
_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)

_log = logging.getLogger(__name__)


class NoSuchAddress(OverkeepError):
    """The API has nothing at this address."""

    code = "no-such-address"
    template = "The API has nothing at {path}; GET /api/v1/openapi.json lists what it has."
    status = 404


class MethodNotAllowed(OverkeepError):
    """The address takes other methods."""

    code = "method-not-allowed"
    template = "{path} does not take {method}; it takes {allowed}."
    status = 405


class BodyTooLarge(OverkeepError):
    """The body of a call is longer than any that makes sense."""

    code = "request-too-large"
    template = "The body of the request is longer than {limit} bytes; send less."
    status = 413


class UnsupportedMediaType(OverkeepError):
    """The body is not JSON."""

    code = "unsupported-media-type"
    template = "The body of the request is of type {found!r}; send it as application/json."
    status = 415


def install(app: FastAPI) -> None:
    """Let `app` answer every error with a problem document."""
    app.add_exception_handler(OverkeepError, _typed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(Exception, _unexpected)


def answer(error: OverkeepError, *, faults: tuple[FaultOut, ...] = ()) -> Response:
    """The answer that carries an error; `faults` say which parts of the request are wrong."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else {}
    if error.retry and error.status in _LATER:
        headers["Retry-After"] = str(RETRY_AFTER)
    document = ProblemOut(**problem_of(error).model_dump(), errors=faults)
    return JSONResponse(document.model_dump(mode="json"), error.status, headers=headers, media_type=MEDIA_TYPE)


def _typed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OverkeepError)
    return answer(error)


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = tuple(
        FaultOut(place=str(fault["loc"][0]), name=".".join(map(str, fault["loc"][1:])), detail=fault["msg"])
        for fault in error.errors()
    )
    told = "; ".join(f"{fault.name or fault.place}: {fault.detail}" for fault in faults)
    return answer(BadRequest(what=f"The request is not valid ({told})", todo="correct it"), faults=faults)


def _plain(request: Request, error: Exception) -> Response:
    """What the router or the framework itself refuses."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        found = answer(NoSuchAddress(path=path))
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        found = answer(MethodNotAllowed(path=path, method=request.method, allowed=headers.get("Allow", "others")))
    elif error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        found = answer(BadRequest(what=f"The request cannot be read ({error.detail})", todo="correct it"))
    else:
        _log.error("%s %s was answered with %d: %s", request.method, path, error.status_code, error.detail)
        found = answer(OverkeepError(reason="the call broke off"))
    found.headers.update(headers)
    return found


def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed unexpectedly", request.method, request.url.path, exc_info=error)
    return answer(OverkeepError(reason="the call broke off"))
