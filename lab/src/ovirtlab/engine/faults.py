# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusals of the engine, each with the status and the text its REST interface answers with."""

from __future__ import annotations


class Fault(Exception):
    """A refusal that reaches the client as `<fault>`; `detail` and `reason` are the texts in it."""

    status = 400

    def __init__(self, detail: str, *, reason: str = "Operation Failed") -> None:
        self.detail = detail
        self.reason = reason
        super().__init__(f"{self.status} {reason}: {detail}")


class BadRequest(Fault):
    """400: the request is malformed or breaks a rule."""


class Unauthorized(Fault):
    """401: no login, or one that has ended; answered with `WWW-Authenticate` and an HTML page as the engine does."""

    status = 401


class Forbidden(Fault):
    """403: the user lacks the permit."""

    status = 403

    def __init__(self, detail: str = "[User is not authorized to perform this action.]") -> None:
        super().__init__(detail)


class NotFound(Fault):
    """404: no such entity, or none that this user may see; the body is empty."""

    status = 404

    def __init__(self, what: str = "") -> None:
        super().__init__(what)


class Conflict(Fault):
    """409: the state of the object, or a lock, does not allow it now."""

    status = 409


class InternalError(Fault):
    """500: the engine itself failed."""

    status = 500


class Bare(Fault):
    """A refusal without a document: a version that there is not (400), 405, 406 and 415; `allow` are the methods."""

    def __init__(self, status: int, *, allow: list[str] | None = None) -> None:
        super().__init__("")
        self.status = status
        self.allow = allow


def invalid(*messages: str) -> BadRequest:
    """A failed validation of kind 400; messages stand in square brackets, as the engine prints a list of them."""
    return BadRequest(f"[{', '.join(messages)}]")


def conflict(*messages: str) -> Conflict:
    """A failed validation of kind 409."""
    return Conflict(f"[{', '.join(messages)}]")


def malformed(detail: str) -> BadRequest:
    """A value that cannot be read, such as a GUID or a number."""
    return BadRequest(detail, reason="Invalid value")


def incomplete(entity: str, parameters: str, operation: str) -> BadRequest:
    """Missing fields, e.g. `Backup [disks] required for add`."""
    return BadRequest(f"{entity} [{parameters}] required for {operation}", reason="Incomplete parameters")
