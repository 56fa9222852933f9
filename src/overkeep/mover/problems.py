# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors as problem documents (RFC 9457) on the wire, and back."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from overkeep.errors import Conflict, NotFound, OverkeepError
from overkeep.mover.errors import (
    BodyTooLarge,
    FencedOff,
    MoverBusy,
    MoverError,
    MoverStopping,
    OrderDiffers,
    OrderMalformed,
    OrderRefused,
    OrderUnknown,
    WrongHost,
)
from overkeep.mover.probing import ProbeSilent
from overkeep.mover.signing import ClockSkew, SignatureRefused

MEDIA_TYPE = "application/problem+json"

_KNOWN: dict[str, type[OverkeepError]] = {
    kind.code: kind
    for kind in (
        BodyTooLarge,
        ClockSkew,
        Conflict,
        FencedOff,
        MoverBusy,
        MoverStopping,
        NotFound,
        OrderDiffers,
        OrderMalformed,
        OrderRefused,
        OrderUnknown,
        ProbeSilent,
        SignatureRefused,
        WrongHost,
    )
}


class Problem(BaseModel):
    """A problem document; readers ignore members that they do not know (RFC 9457, 3.2)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str = "internal"
    retry: bool = False
    params: dict[str, str] = {}


def problem_of(error: OverkeepError) -> Problem:
    """Write an error down."""
    return Problem(
        type=f"urn:overkeep:problem:{error.code}",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=str(error),
        code=error.code,
        retry=error.retry,
        params={name: str(value) for name, value in error.fields.items()},
    )


def error_of(status: int, body: bytes, *, host: str) -> OverkeepError:
    """Read an error from the answer of the mover of `host`; `MoverError` when this version has no class for it."""
    try:
        problem = Problem.model_validate_json(body)
    except ValidationError:
        return MoverError(host=host, code=f"HTTP {status}", detail="the answer is not one of a data mover.")
    kind = _KNOWN.get(problem.code)
    if kind is not None:
        try:
            params: dict[str, Any] = dict(problem.params)
            return kind(**params)
        except KeyError:  # another version of the mover words it with other fields
            pass
    return MoverError(host=host, code=problem.code, detail=problem.detail)
