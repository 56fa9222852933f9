# SPDX-License-Identifier: GPL-3.0-or-later
"""Tickets of an ovirt-imageio daemon, by HTTP on its control socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ovirtlab.machine.errors import CONFLICT, HostError

TIMEOUT = 90.0  # a removal waits up to the daemon's remove_timeout, 60 s, for running operations


class TicketClient:
    """The `/tickets` resource of the daemon that listens on `control`; one connection a request.

    A host's daemon listens on a Unix socket, the one on the Engine's address on a TCP port of the loopback.
    """

    def __init__(self, control: Path | tuple[str, int]) -> None:
        self._control = control

    async def add(self, ticket: Mapping[str, Any]) -> None:
        await self._request("PUT", str(ticket["uuid"]), ticket)

    async def get(self, ticket_id: str) -> Mapping[str, Any] | None:
        """The ticket as the daemon sees it, or None when it has none of this id (it forgets all at a restart)."""
        status, body = await self._exchange("GET", ticket_id, None)
        if status == 404:
            return None
        _check("GET", ticket_id, status, body)
        ticket: Mapping[str, Any] = json.loads(body)
        return ticket

    async def extend(self, ticket_id: str, timeout: int) -> None:
        await self._request("PATCH", ticket_id, {"timeout": timeout})

    async def remove(self, ticket_id: str) -> None:
        """Remove a ticket; a missing one is success, `HostError` with code 409 while operations run on it."""
        await self._request("DELETE", ticket_id, None)

    async def _request(self, method: str, ticket_id: str, document: Mapping[str, Any] | None) -> None:
        status, body = await self._exchange(method, ticket_id, document)
        _check(method, ticket_id, status, body)

    async def _exchange(self, method: str, ticket_id: str, document: Mapping[str, Any] | None) -> tuple[int, bytes]:
        content = b"" if document is None else json.dumps(dict(document)).encode()
        head = f"{method} /tickets/{quote(ticket_id, safe='')} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        try:
            async with asyncio.timeout(TIMEOUT):
                reader, writer = await self._connect()
                try:
                    writer.write(head.encode() + content)
                    return await _answer(reader)
                finally:
                    writer.close()
        except (OSError, asyncio.IncompleteReadError, ValueError, TimeoutError) as error:
            raise HostError(f"ovirt-imageio does not answer on {self._control}: {error!r}") from error

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._control, Path):
            return await asyncio.open_unix_connection(self._control)
        return await asyncio.open_connection(*self._control)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of an HTTP answer, whose length the daemon always gives (204 has none)."""
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    length = 0
    while line := (await reader.readuntil(b"\r\n")).strip():
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return status, await reader.readexactly(length)


def _check(method: str, ticket_id: str, status: int, body: bytes) -> None:
    if 200 <= status < 300:
        return
    code = CONFLICT if status == CONFLICT else 0
    text = body.decode(errors="replace").strip()
    raise HostError(f"ovirt-imageio refused {method} of ticket {ticket_id} with {status}: {text}", code=code)
