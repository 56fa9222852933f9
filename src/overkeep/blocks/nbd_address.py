# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of disks behind NBD servers.

They have the form of a ticket of ovirt-imageio (`nbd:unix:/path:exportname=sda`) or the standard one of the NBD project
(`nbd+unix:///sda?socket=/path`, `nbd://host:port/sda`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from overkeep.blocks.errors import BadDiskAddress
from overkeep.blocks.nbd_client import nbd

_LEGACY_UNIX = re.compile(r"nbd:unix:(?P<path>/[^:]+)(?::exportname=(?P<export>.*))?")
_LEGACY_TCP = re.compile(r"nbd:(?P<host>\[[^]]+\]|[^:/]+):(?P<port>\d{1,5})(?::exportname=(?P<export>.*))?")
_DEFAULT_PORT, _LAST_PORT = 10809, 65535
_ENCRYPTED = ("nbds", "nbds+unix")


def parse_url(url: str) -> tuple[Any, str]:
    """Return the address and the export name in `url`; raises `BadDiskAddress` when it has none of the known forms."""
    if match := _LEGACY_UNIX.fullmatch(url):
        return nbd.UnixAddress(match["path"]), match["export"] or ""
    if match := _LEGACY_TCP.fullmatch(url):
        return _tcp(url, match["host"].strip("[]"), int(match["port"])), match["export"] or ""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadDiskAddress(url=url, reason=str(error)) from error
    export = unquote(parts.path.removeprefix("/"))
    if parts.scheme == "nbd+unix":
        return nbd.UnixAddress(_socket(url, parse_qs(parts.query).get("socket", []))), export
    if parts.scheme == "nbd" and parts.hostname:
        return _tcp(url, parts.hostname, _DEFAULT_PORT if port is None else port), export
    if parts.scheme in _ENCRYPTED:
        raise BadDiskAddress(url=url, reason="encrypted NBD is not supported, use a tunnel such as `ssh -L`")
    raise BadDiskAddress(url=url, reason="it has none of the forms that are known")


def _socket(url: str, found: Sequence[str]) -> str:
    if len(found) != 1 or not found[0].startswith("/"):
        raise BadDiskAddress(url=url, reason="it names no socket by its full path")
    return found[0]


def _tcp(url: str, host: str, port: int) -> Any:
    if not 0 < port <= _LAST_PORT:
        raise BadDiskAddress(url=url, reason=f"there is no port {port}")
    return nbd.TCPAddress(host, port)
