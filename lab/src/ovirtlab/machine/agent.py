# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest agent's protocol on the socket QEMU gives its port."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ovirtlab.machine.errors import HostError

SYNC_TIMEOUT = 5.0
COMMAND_TIMEOUT = 60.0
EXEC_POLL = 0.02
LINE_LIMIT = 64 << 20  # the agent answers in one line, output of programs included

_serial = itertools.count(1)


class GuestAgent:
    """An open conversation with the agent in a guest; QEMU lets one at a time through."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, *, timeout: float = SYNC_TIMEOUT) -> AsyncIterator[GuestAgent]:
        """Connect to the socket `path` and wait at most `timeout` seconds for the agent to answer."""
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT)
        except OSError as error:
            raise HostError(f"the guest agent's port is closed: {error}") from error
        agent = cls(reader, writer)
        try:
            await agent._synchronize(timeout)
            yield agent
        finally:
            writer.close()

    async def _synchronize(self, timeout: float) -> None:
        """Skip what an earlier conversation left in the port."""
        number = next(_serial)
        command = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._writer.write(b"\xff" + json.dumps(command).encode() + b"\n")
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self._reader.readuntil(b"\xff")
                    if json.loads(await self._reader.readline()).get("return") == number:
                        return
        except TimeoutError as error:
            raise HostError(f"the guest agent does not answer (waited {timeout:g} s)") from error
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:
            raise HostError(f"the guest agent cannot be spoken to: {error}") from error

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a command of the agent and return its value."""
        await self._send(command, arguments)
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                line = await self._reader.readline()
            answer = json.loads(line)
        except TimeoutError as error:
            raise HostError(f"the guest agent does not answer to {command}") from error
        except (OSError, ValueError) as error:
            raise HostError(f"the guest agent went away during {command}") from error
        if "error" in answer:
            raise HostError(f"the guest agent refused {command}: {answer['error'].get('desc')}")
        return answer["return"]

    async def shut_down(self) -> None:
        """Order a power-off; the agent gives no answer to it."""
        await self._send("guest-shutdown", {"mode": "powerdown"})

    async def run(self, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run a program in the guest; return its exit status (128 + signal when killed), output and error output."""
        arguments = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        pid = (await self.execute("guest-exec", arguments))["pid"]
        while True:
            status = await self.execute("guest-exec-status", {"pid": pid})
            if status["exited"]:
                break
            await asyncio.sleep(EXEC_POLL)
        code = status["exitcode"] if "exitcode" in status else 128 + status.get("signal", 0)
        return code, base64.b64decode(status.get("out-data", "")), base64.b64decode(status.get("err-data", ""))

    async def _send(self, command: str, arguments: Mapping[str, Any] | None) -> None:
        message = {"execute": command} | ({"arguments": dict(arguments)} if arguments else {})
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise HostError(f"the guest agent went away before {command}") from error
