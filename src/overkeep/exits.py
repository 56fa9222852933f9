# SPDX-License-Identifier: GPL-3.0-or-later
"""The one table from errors to exit statuses of all commands."""

from __future__ import annotations

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
_BY_CODE = {
    "backing-missing": NOT_FOUND,
    "cancelled": INTERRUPTED,
    "controller-unreachable": UNREACHABLE,
    "disk-lost": UNREACHABLE,
    "disk-read-only": FORBIDDEN,
    "disk-refused": UNREACHABLE,
    "disk-unreachable": UNREACHABLE,
    "engine-unreachable": UNREACHABLE,
    "image-exists": CONFLICT,
    "target-missing": NOT_FOUND,
    "target-read-only": FORBIDDEN,
}


def of(error: OverkeepError) -> int:
    """The exit status for an error."""
    return status_for(error.code, error.status)


def status_for(code: str, http_status: int) -> int:
    """The exit status for an error's code and the status of the answer that carries it."""
    return _BY_CODE.get(code) or _BY_STATUS.get(http_status, FAILED)
