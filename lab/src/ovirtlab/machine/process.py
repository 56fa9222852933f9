# SPDX-License-Identifier: GPL-3.0-or-later
"""Other programs: run to their end, or kept running and never outliving this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from ovirtlab.machine.errors import HostError

log = logging.getLogger(__name__)

RUN_TIMEOUT = 120.0


async def run(command: Sequence[str | Path], *, timeout: float = RUN_TIMEOUT) -> bytes:
    """Run `command` to its end and return its standard output; `HostError` with all output when it fails."""
    argv = [str(word) for word in command]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed") from error
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise HostError(f"no end of {argv} after {timeout:g} s") from error
    finally:
        await _end(process)
    if process.returncode:
        text = (err + out).decode(errors="replace").strip()
        raise HostError(f"{argv[0]} ended with status {process.returncode}: {text} (command: {argv})")
    return out


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Daemon:
    """A program that runs until it is stopped, dies with the thread that started it, and writes to a log file."""

    def __init__(self, process: asyncio.subprocess.Process, log_file: Path) -> None:
        self._process = process
        self._log_file = log_file
        self.pid = process.pid

    @classmethod
    async def start(cls, command: Sequence[str | Path], *, log_file: Path, netns: str | None = None) -> Daemon:
        """Start `command` in the network namespace `netns`, in a session of its own."""
        # The kernel's parent-death signal is what holds when this process is killed; it survives both exec calls.
        argv = ["setpriv", "--pdeathsig", "KILL", "--"]
        if netns:
            argv += ["ip", "netns", "exec", netns]
        argv += [str(word) for word in command]
        with log_file.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        return cls(process, log_file)

    @property
    def status(self) -> int | None:
        """Exit status, None while it runs, negative for a signal."""
        return self._process.returncode

    def output(self) -> str:
        """What it has written so far, last 4000 characters."""
        return self._log_file.read_text(errors="replace")[-4000:].strip()

    async def wait(self) -> int:
        return await self._process.wait()

    async def kill(self) -> None:
        """End it with no chance to do anything more."""
        await _end(self._process)

    async def terminate(self, *, grace: float) -> None:
        """Ask it to end, and kill it after `grace` seconds."""
        if self.status is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            log.warning("process %d does not end after %g s and is killed", self.pid, grace)
            await _end(self._process)
