# SPDX-License-Identifier: GPL-3.0-or-later
"""The one table from errors to exit statuses, and the errors that only the command line has."""

from __future__ import annotations

from typing import Any

from overkeep.errors import OverkeepError

OK = 0
FAILED = 1
USAGE = 2
NOT_LOGGED_IN = 3
UNREACHABLE = 4
CONFLICT = 5
FORBIDDEN = 6
NOT_FOUND = 7
INTERRUPTED = 130

_BY_STATUS = {
    400: USAGE,
    401: NOT_LOGGED_IN,
    403: FORBIDDEN,
    404: NOT_FOUND,
    409: CONFLICT,
    412: CONFLICT,
    422: USAGE,
}
_BY_CODE = {"controller-unreachable": UNREACHABLE, "engine-unreachable": UNREACHABLE}


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
    """The exit status for an error."""
    if isinstance(error, Problem):
        code, status = str(error.fields["code"]), int(error.fields["status"])
    else:
        code, status = error.code, error.status
    return _BY_CODE.get(code) or _BY_STATUS.get(status, FAILED)
