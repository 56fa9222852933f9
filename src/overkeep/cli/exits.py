# SPDX-License-Identifier: GPL-3.0-or-later
"""Exit statuses of the command line, and the errors that only it has."""

from __future__ import annotations

from typing import Any

from overkeep import exits
from overkeep.errors import OverkeepError
from overkeep.exits import (
    CONFLICT,
    FAILED,
    FORBIDDEN,
    INTERRUPTED,
    NOT_FOUND,
    NOT_LOGGED_IN,
    OK,
    UNREACHABLE,
    USAGE,
)

__all__ = [
    "CONFLICT",
    "FAILED",
    "FORBIDDEN",
    "INTERRUPTED",
    "NOT_FOUND",
    "NOT_LOGGED_IN",
    "OK",
    "UNREACHABLE",
    "USAGE",
    "ControllerUnreachable",
    "NotLoggedIn",
    "Problem",
    "of",
]


class ControllerUnreachable(OverkeepError):
    """The controller does not answer."""

    code = "controller-unreachable"
    template = (
        "The controller at {url} does not answer ({reason}); "
        "check that overkeep-controller runs and that this machine can connect to it."
    )
    retry = True
    status = 503


class NotLoggedIn(OverkeepError):
    """There is no session."""

    code = "not-logged-in"
    template = "You are not logged in; log in with `overkeep login`."
    status = 401


class Problem(OverkeepError):
    """What the controller answered instead of what was asked for; the sentence is the controller's."""

    template = "{detail}"

    def __init__(self, *, detail: str, code: str, status: int, retry: bool) -> None:
        super().__init__(detail=detail, code=code, status=status, retry=retry)

    @property
    def answered(self) -> dict[str, Any]:
        """The problem document's members that matter."""
        return self.fields


def of(error: OverkeepError) -> int:
    """The exit status for an error, also for one that the controller answered."""
    if isinstance(error, Problem):
        return exits.status_for(str(error.fields["code"]), int(error.fields["status"]))
    return exits.of(error)
