# SPDX-License-Identifier: GPL-3.0-or-later
"""A running QEMU: its life, the state a host knows of it, and the doors into its guest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from ovirtlab.machine import console
from ovirtlab.machine.agent import GuestAgent
from ovirtlab.machine.command import MachineSpec, command_line, save_uri, unfinished
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.monitor import Monitor
from ovirtlab.machine.process import Daemon

log = logging.getLogger(__name__)

MachineState = Literal["up", "paused", "down"]
START_TIMEOUT = 60.0
READY_TIMEOUT = 90.0  # a cold boot takes about 2.5 s on an idle machine
RUN_TIMEOUT = 300.0
POWER_OFF_TIMEOUT = 30.0
QUIT_TIMEOUT = 10.0
POLL = 0.01
NO_SPACE = "no-space"  # why a machine is paused


class Machine:
    """One QEMU process and its monitor; `on_change` is told of changes of state that nobody asked for."""

    def __init__(self, spec: MachineSpec, process: Daemon, monitor: Monitor) -> None:
        self.spec = spec
        self.monitor = monitor
        self.disks = {disk.target: disk for disk in spec.disks}
        self.state: MachineState = "paused" if spec.incoming else "up"
        self._console_begin = 0  # where in the console's log the system that runs now has begun
        self.booted = spec.state is not None  # whether its guest is known to be up without asking its console
        self.departing = False  # it is being sent to another QEMU, which stops it without anybody being told
        self.output_lock = asyncio.Lock()
        self._process = process
        self._stopping = False
        self._reason = ""
        self._agent_lock, self._console_lock = asyncio.Lock(), asyncio.Lock()
        self._on_change: Callable[[MachineState, str], None] = lambda _state, _reason: None
        self._watcher = asyncio.create_task(self._watch())

    @classmethod
    async def start(cls, spec: MachineSpec) -> Machine:
        """Start QEMU and return when its machine runs; `HostError` carries what QEMU said."""
        if spec.state is not None and not spec.state.exists():  # QEMU would wait for it without end
            raise HostError(f"VM {spec.name} did not start: its memory {spec.state} is not there")
        spec.directory.mkdir(parents=True, exist_ok=True)
        for name in ("qmp", "agent", "console", "console.log", "pid"):
            spec.file(name).unlink(missing_ok=True)
        process = await Daemon.start(command_line(spec), log_file=spec.file("qemu.log"), netns=spec.netns)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                monitor = await Monitor.connect(spec.file("qmp"), alive=lambda: process.status is None)
                if spec.state is not None:
                    await _take_over_state(monitor)
        except (HostError, TimeoutError) as error:
            await process.kill()
            raise HostError(f"VM {spec.name} did not start: {process.output() or error}") from error
        except asyncio.CancelledError:
            await process.kill()
            raise
        return cls(spec, process, monitor)

    @property
    def pid(self) -> int:
        return self._process.pid

    def on_change(self, callback: Callable[[MachineState, str], None]) -> None:
        self._on_change = callback

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a QMP command; `HostError` when the machine is down."""
        if self.state == "down":
            raise HostError(f"VM {self.spec.name} is not running")
        return await self.monitor.execute(command, arguments)

    def output(self) -> str:
        """The end of what QEMU has printed."""
        return self._process.output()

    def output_size(self) -> int:
        """How many bytes QEMU has printed so far."""
        return self.spec.file("qemu.log").stat().st_size

    def output_since(self, size: int) -> str:
        """What QEMU has printed after its first `size` bytes."""
        with self.spec.file("qemu.log").open("rb") as log_file:
            log_file.seek(size)
            return log_file.read().decode(errors="replace")

    # the guest

    async def wait_ready(self, *, timeout: float = READY_TIMEOUT) -> None:
        """Wait until the guest's system is up; `HostError` at once when its first disk does not boot."""
        if self.spec.boot is None:
            raise HostError(f"VM {self.spec.name} has no guest")
        deadline = time.monotonic() + timeout
        while not self.booted and console.READY not in (text := self._console_text()):
            if self.state == "down" or console.BROKEN in text or time.monotonic() > deadline:
                raise HostError(f"the guest of VM {self.spec.name} is not up; its console says: {text[-1000:].strip()}")
            await asyncio.sleep(POLL)

    def has_booted(self) -> bool:
        """Whether the guest's system is up, or was at some time."""
        return self.booted or console.READY in self._console_text()

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[GuestAgent]:
        """A conversation with the guest's agent; `HostError` when there is none or it does not answer."""
        if self.spec.boot is None or not self.spec.boot.agent:
            raise HostError(f"VM {self.spec.name} has no guest agent")
        if self.state != "up":
            raise HostError(f"VM {self.spec.name} is {self.state}; its guest agent cannot answer")
        await self.wait_ready()
        async with self._agent_lock, GuestAgent.open(self.spec.file("agent")) as agent:
            yield agent

    async def run(self, argv: Sequence[str], *, timeout: float = RUN_TIMEOUT) -> tuple[int, bytes, bytes]:
        """Run a program in the guest, by the agent or, in a guest without, by the shell on the console."""
        if self.spec.boot is None or not self.spec.boot.agent:
            return await self.run_on_console(argv, timeout=timeout)
        try:
            async with asyncio.timeout(timeout), self.agent() as agent:
                return await agent.run(argv)
        except TimeoutError as error:
            raise HostError(f"the guest of VM {self.spec.name} did not finish {list(argv)} in {timeout:g} s") from error

    async def run_on_console(self, argv: Sequence[str], *, timeout: float = RUN_TIMEOUT) -> tuple[int, bytes, bytes]:
        """Run a program by the shell on the console, whether there is an agent or not."""
        if self.state != "up":
            raise HostError(f"VM {self.spec.name} is {self.state}; its console cannot answer")
        await self.wait_ready()
        async with self._console_lock:
            return await console.run(self.spec.file("console"), argv, timeout=timeout)

    def _console_text(self) -> str:
        """What the guest's system has printed since it was switched on or reset."""
        with contextlib.suppress(FileNotFoundError):
            return self.spec.file("console.log").read_bytes()[self._console_begin :].decode(errors="replace")
        return ""

    # its life

    async def save(self, state: Path) -> None:
        """Write the machine's state to the file `state`; the machine does not run afterwards."""
        try:
            state.unlink(missing_ok=True)
            unfinished(state).touch()
        except OSError as error:
            raise self._not_saved(error.strerror) from error
        await self.execute("migrate-set-parameters", {"max-bandwidth": 10 << 30})
        await self.execute("migrate", {"uri": save_uri(state)})
        while (status := (await self.execute("query-migrate")).get("status")) != "completed":
            if status in ("failed", "cancelled"):
                raise self._not_saved(f"it was {status}")
            await asyncio.sleep(POLL)
        await self._written(state)

    async def _written(self, state: Path) -> None:
        """Wait until the file is there, or the one that becomes it has gone."""
        while True:
            gone = not unfinished(state).exists()  # looked at first: a file that was renamed is there now
            if state.exists():
                return
            if gone:
                raise self._not_saved("the file could not be written")
            await asyncio.sleep(POLL)

    def _not_saved(self, reason: object) -> HostError:
        return HostError(f"the state of VM {self.spec.name} could not be saved: {reason}")

    async def resume(self) -> None:
        """Let a machine go on that an I/O error has paused, or that has arrived from another QEMU."""
        self.state = "up"
        await self.execute("cont")

    async def reset(self) -> None:
        """Press the reset button: a guest begins to boot."""
        with contextlib.suppress(FileNotFoundError):
            self._console_begin = self.spec.file("console.log").stat().st_size
        self.booted = False
        await self.execute("system_reset")

    async def stop(self, *, force: bool) -> None:
        """End the machine: a guest is asked to power off first, unless `force`.

        Either way QEMU ends in good order and stores its bitmaps, as it does under libvirt's destroy.
        """
        self._stopping = True
        if not force and self.spec.boot is not None and self.state == "up":
            await self._power_off()
        if self._process.status is None and not force:
            with contextlib.suppress(HostError, TimeoutError):
                async with asyncio.timeout(QUIT_TIMEOUT):
                    await self.monitor.execute("quit")
                    await self._process.wait()
        await self._process.terminate(grace=QUIT_TIMEOUT)
        await self._watcher

    async def kill(self) -> None:
        """End the machine as a crash of its host would, with nothing written; watchers are told."""
        await self._process.kill()
        await self._watcher

    async def power_off_inside(self) -> None:
        """Let the guest power itself off, unasked by the host; a machine without guest just ends in good order."""
        async with asyncio.timeout(POWER_OFF_TIMEOUT):
            if self.spec.boot is None:
                await self.execute("quit")
            else:
                with contextlib.suppress(HostError):  # the power-off may end the shell before it answers
                    await self.run_on_console(["poweroff"])
            await self._watcher

    async def _power_off(self) -> None:
        try:
            async with asyncio.timeout(POWER_OFF_TIMEOUT):
                await self._order_power_off()
                await self._process.wait()
        except (HostError, TimeoutError) as error:
            log.warning("the guest of VM %s did not power off (%s); QEMU is ended", self.spec.name, error)

    async def _order_power_off(self) -> None:
        if self.spec.boot is not None and self.spec.boot.agent:
            async with self.agent() as agent:
                await agent.shut_down()
        else:
            with contextlib.suppress(HostError):  # the power-off may end the shell before it answers
                await self.run_on_console(["poweroff"])

    async def _watch(self) -> None:
        """Follow events until QEMU has ended."""
        ended = asyncio.create_task(self._process.wait())
        while not ended.done():
            event = asyncio.create_task(self.monitor.next_event())
            await asyncio.wait({ended, event}, return_when=asyncio.FIRST_COMPLETED)
            if event.done():
                self._note(event.result())
            else:
                event.cancel()
        for last in await self.monitor.last_events():
            self._note(last)
        await self.monitor.close()
        self._change("down", self._reason or f"crash: QEMU ended with status {self._process.status}")

    def _note(self, event: Mapping[str, Any]) -> None:
        details = event.get("data", {})
        match event["event"]:
            case "SHUTDOWN":
                self._reason = str(details.get("reason", "shutdown"))
            case "BLOCK_IO_ERROR" if details.get("action") == "stop":
                self._reason = NO_SPACE if details.get("nospace") else "io-error"
            case "STOP" if not self.departing or self._reason:
                self._change("paused", self._reason or "stopped")
            case "RESUME":
                self._reason = ""
                self._change("up", "resumed")

    def _change(self, state: MachineState, reason: str) -> None:
        if state == self.state:
            return
        self.state = state
        log.info("VM %s is %s (%s)", self.spec.name, state, reason)
        if not self._stopping:
            self._on_change(state, reason)


async def _take_over_state(monitor: Monitor) -> None:
    """Wait until the saved state is in, and let the machine run."""
    while (status := (await monitor.execute("query-status"))["status"]) == "inmigrate":
        await asyncio.sleep(POLL)
    if status != "running":
        await monitor.execute("cont")
