# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client asks for besides the object: the form of the answer, the version of the API; and what it sends."""

from __future__ import annotations

import re

from starlette.requests import Request

XML, JSON = "application/xml", "application/json"
_VERSIONS = ("4",)
_IN_PATH = re.compile(r"^v([0-9]+)(?=/|;|$)/?")


def accepted(request: Request) -> str | None:
    """The type of the answer: XML unless the client prefers JSON; None when it takes neither.

    A query parameter `accept` wins over the header.
    """
    text = request.query_params.get("accept") or ",".join(request.headers.getlist("accept"))
    ranges = [_weighed(part) for part in text.split(",") if part.strip()]
    if not ranges:
        return XML
    ranges.sort(key=lambda item: (item[1], not item[0].endswith("*")), reverse=True)
    for name, weight in ranges:
        if weight > 0 and name in (XML, JSON):
            return name
        if weight > 0 and name in ("*/*", "application/*"):
            return XML
    return None


def _weighed(part: str) -> tuple[str, float]:
    """One range of an Accept header and its weight; one that cannot be read has none."""
    name, *parameters = (item.strip() for item in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name.lower(), float(value)
            except ValueError:
                return name.lower(), 0.0
    return name.lower(), 1.0


def is_readable(request: Request, body: bytes) -> bool:
    """Whether the engine reads a body of this type; one that says none is taken for XML."""
    name = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return not body or name in ("", XML, JSON)


def split_version(path: str) -> tuple[str | None, str]:
    """The version that a path below the API begins with, as `v4/vms` does, and the rest."""
    match = _IN_PATH.match(path)
    return (match[1], path[match.end() :]) if match else (None, path)


def is_supported(version: str | None) -> bool:
    """Whether the engine speaks this version of the API; None is its own."""
    return version is None or version in _VERSIONS
