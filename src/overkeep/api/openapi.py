# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI 3.1 document: the same as it is committed, served, and what clients are made from."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi

from overkeep.api.asked import TheCaller
from overkeep.api.documents import ProblemOut
from overkeep.api.repeatable import HEADER, LONGEST
from overkeep.mover.problems import MEDIA_TYPE

router = APIRouter(prefix="/api/v1", tags=["service"])

_ALWAYS = {
    HTTPStatus.BAD_REQUEST: "The request is not valid; `errors` says which parts of it",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A fault of the controller; its log tells more",
}
_WITH_TOKEN = {
    HTTPStatus.UNAUTHORIZED: "There is no token, or the Manager does not know it (any longer)",
    HTTPStatus.FORBIDDEN: "The caller lacks a right in the Manager",
    HTTPStatus.BAD_GATEWAY: "The Manager, a mover or the target failed",
    HTTPStatus.SERVICE_UNAVAILABLE: "The Manager or a mover does not answer; try again later",
}
_WITH_NAME = {HTTPStatus.NOT_FOUND: "What is named does not exist, or not for this caller"}
_WITH_BODY = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is longer than 1 MiB",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not JSON",
}
_WHEN_CHANGING = {HTTPStatus.CONFLICT: "It contradicts what is there, or what is being done"}
_WITH_MATCH = {
    HTTPStatus.PRECONDITION_FAILED: "It was changed by somebody else meanwhile",
    HTTPStatus.PRECONDITION_REQUIRED: "`If-Match` is missing",
}


_WITH_KEY = {HTTPStatus.UNPROCESSABLE_ENTITY: "The `Idempotency-Key` was used for another request"}
_KEY = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Of the caller's choice: repeats with the key, within a day, do nothing and are answered the same",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": "^[ -~]+$"},
}


@router.get("/openapi.json", include_in_schema=False)
def show(request: Request, _caller: TheCaller) -> dict[str, Any]:
    """This document."""
    return document(request.app)


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application."""
    made = get_openapi(title=app.title, version="1", summary=app.summary, routes=app.routes)
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)  # every error is a problem document, this one as well
            if method == "post":
                operation.setdefault("parameters", []).append(_KEY)
            operation["responses"].update(_errors(path, method, operation))
    schemas = made["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    template = "#/components/schemas/{model}"
    problem = ProblemOut.model_json_schema(ref_template=template, mode="serialization")
    schemas.update(problem.pop("$defs", {}))
    schemas["ProblemOut"] = problem
    return made


def text(app: FastAPI) -> str:
    """The OpenAPI document as text, the same on every run."""
    return json.dumps(document(app), indent=2, sort_keys=True) + "\n"


def _errors(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    """The answers of a call that are errors; `default` stands for those that are not foreseen."""
    told = dict(_ALWAYS)
    headers = {parameter["name"].lower() for parameter in operation.get("parameters", [])}
    for applies, more in (
        ("security" in operation, _WITH_TOKEN),
        ("{" in path or "requestBody" in operation or "parameters" in operation, _WITH_NAME),
        ("requestBody" in operation, _WITH_BODY),
        (method != "get" or path.startswith("/api/v1/points/"), _WHEN_CHANGING),
        ("if-match" in headers, _WITH_MATCH),
        (method == "post", _WITH_KEY),
    ):
        told |= more if applies else {}
    documented = {str(status.value): _problem(words) for status, words in sorted(told.items())}
    return {**documented, "default": _problem("Any other error")}


def _problem(words: str) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}}
    return {"description": f"{words}: a problem document (RFC 9457)", "content": content}
