# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that overwrite nobody else's: an `ETag` with what is read, `If-Match` with what is written (RFC 9110)."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated

from fastapi import Depends, Header, Response

from overkeep.errors import BadRequest, ChangedMeanwhile, OverkeepError


class VersionNeeded(OverkeepError):
    """A change does not say of what it is the change."""

    code = "version-needed"
    template = "The change does not say which version it changes; read the resource and send its ETag as If-Match."
    status = 428


def tag(response: Response, version: int) -> None:
    """Send the version of what is answered."""
    response.headers["ETag"] = f'"{version}"'


def asked_version(
    if_match: Annotated[str | None, Header(description="The ETag of the version that is changed, or *")] = None,
) -> int | None:
    """The version that a change is of; None for `*`, whichever it is. Raises `VersionNeeded`."""
    if if_match is None:
        raise VersionNeeded
    if if_match.strip() == "*":
        return None
    found = re.fullmatch(r'"(\d{1,18})"', if_match.strip())
    if found is None:
        raise BadRequest(
            what=f"{if_match!r} is no ETag of this service", todo="send the one that came with the resource"
        )
    return int(found[1])


def content_tag(*parts: object) -> str:
    """The ETag of something that has no version: made of what it holds."""
    return f'"{hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=9).hexdigest()}"'


def asked_tag(
    if_match: Annotated[
        str | None, Header(description="The ETag of what is changed; without one it is changed as it is")
    ] = None,
) -> str | None:
    """The ETag that a change is of, of something small that may be changed without; None for any."""
    return None if if_match is None or if_match.strip() == "*" else if_match.strip()


def require_tag(asked: str | None, now: str, *, kind: str, name: str) -> None:
    """Raise `ChangedMeanwhile` when a change is of another version than the present one."""
    if asked is not None and now not in re.split(r"\s*,\s*", asked):
        raise ChangedMeanwhile(kind=kind, name=name)


TheTag = Annotated[str | None, Depends(asked_tag)]
TheVersion = Annotated[int | None, Depends(asked_version)]
