# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's control connection: commands that raise `HostError`, and the events of a machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate
from qemu.qmp.protocol import ConnectError

from ovirtlab.machine.errors import HostError

POLL = 0.005
HANG_UP = 1.0  # seconds to take in what a QEMU that has ended wrote last

# The library reports each end of a QEMU as an error with a traceback, also an ordinary one.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class Monitor:
    """A connected QMP session."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._events = EventListener()
        client.register_listener(self._events)

    @classmethod
    async def connect(cls, path: Path, *, alive: Callable[[], bool]) -> Monitor:
        """Connect as soon as QEMU listens on `path`; `HostError` when it ends before."""
        while alive():
            client = QMPClient(path.parent.name)
            try:
                await client.connect(str(path))
            except ConnectError:
                await asyncio.sleep(POLL)
                continue
            return cls(client)
        raise HostError("QEMU ended before it could be spoken to")

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a QMP command and return its value."""
        try:
            return await self._client.execute(command, dict(arguments or {}))
        except ExecuteError as error:
            raise HostError(f"QEMU refused {command}: {error}") from error
        except QMPError as error:
            raise HostError(f"QEMU went away during {command}: {error}") from error

    async def hmp(self, line: str) -> str:
        """Run a line of the human monitor, which tells of errors only in the text that is returned."""
        return str(await self.execute("human-monitor-command", {"command-line": line}))

    async def next_event(self) -> Mapping[str, Any]:
        event: Mapping[str, Any] = await self._events.get()
        return event

    async def last_events(self) -> list[Mapping[str, Any]]:
        """Events that nobody took yet, after the session has ended with QEMU."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANG_UP):
                while self._client.runstate == Runstate.RUNNING:
                    await self._client.runstate_changed()
        return list(self._events.clear())

    async def close(self) -> None:
        """End the session; that QEMU has hung up before is what is expected."""
        with contextlib.suppress(QMPError, EOFError, OSError):
            await self._client.disconnect()
