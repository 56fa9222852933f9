# SPDX-License-Identifier: GPL-3.0-or-later
"""NBD servers for volumes that no VM uses: `qemu-nbd` as VDSM starts it, one for each transfer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path

from ovirtlab.host import layers
from ovirtlab.host.api import VolumeFormat
from ovirtlab.machine.command import socket_path
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.nodes import direct_io_works
from ovirtlab.machine.process import Daemon

START_TIMEOUT = 15.0
STOP_TIMEOUT = 10.0
POLL = 0.01
GREETING = b"NBDMAGIC"


@dataclass(frozen=True, kw_only=True)
class NbdServerSpec:
    """What VDSM's NBD.start_server is given; `bitmap` is exported by its own name, `shallow` hides volumes below."""

    path: Path
    format: VolumeFormat
    read_only: bool
    bitmap: str | None = None
    discard: bool = True
    shallow: bool = False


def command_line(spec: NbdServerSpec, socket: Path) -> list[str]:
    """The argument list VDSM uses, but for caching where the file system takes no O_DIRECT."""
    argv = ["qemu-nbd", f"--socket={socket}", "--persistent", "--shared=8", "--export-name="]
    direct = direct_io_works(spec.path)
    argv += ["--cache=none", "--aio=native"] if direct else ["--cache=writeback", "--aio=threads"]
    if spec.format != "raw":
        argv.append("--allocation-depth")
    if spec.read_only:
        argv.append("--read-only")
    elif spec.discard:
        argv += ["--discard=unmap", "--detect-zeroes=unmap"]
    else:
        argv.append("--detect-zeroes=on")
    if spec.bitmap:
        argv.append(f"--bitmap={spec.bitmap}")
    image: dict[str, object] = {"driver": spec.format, "file": {"driver": "file", "filename": str(spec.path)}}
    if spec.shallow and spec.format != "raw":
        image["backing"] = None
    return [*argv, "json:" + json.dumps(image)]


class NbdServers:
    """The running servers of a host, by id; sockets and logs in `directory`."""

    def __init__(self, directory: Path, *, netns: str | None) -> None:
        self._directory = directory
        self._netns = netns
        self._running: dict[str, Daemon] = {}

    async def start(self, server_id: str, spec: NbdServerSpec) -> str:
        """Start a server and return its URL when it accepts connections; `HostError` carries what it said."""
        if server_id in self._running:
            raise HostError(f"the NBD server {server_id} runs already")
        socket = socket_path(self._socket(server_id))
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        view = self._directory / f"{server_id}.qcow2"
        try:
            spec = await _over_span(spec, view)
            log_file = self._directory / f"{server_id}.log"
            daemon = await Daemon.start(command_line(spec, socket), log_file=log_file, netns=self._netns)
            self._running[server_id] = daemon
            await _wait_serving(daemon, socket)
        except BaseException:
            await self.stop(server_id)
            raise
        finally:
            view.unlink(missing_ok=True)
        return f"nbd:unix:{socket}"

    async def stop(self, server_id: str) -> None:
        """Stop a server and remove its socket; a missing one is success."""
        daemon = self._running.pop(server_id, None)
        if daemon is not None:
            await daemon.terminate(grace=STOP_TIMEOUT)
        self._socket(server_id).unlink(missing_ok=True)
        (self._directory / f"{server_id}.log").unlink(missing_ok=True)

    async def kill(self) -> None:
        """End all servers as a loss of power does; their sockets stay behind."""
        await asyncio.gather(*(daemon.kill() for daemon in tuple(self._running.values())))

    async def close(self) -> None:
        await asyncio.gather(*(self.stop(server_id) for server_id in tuple(self._running)))

    def _socket(self, server_id: str) -> Path:
        return self._directory / f"{server_id}.sock"


async def _over_span(spec: NbdServerSpec, view: Path) -> NbdServerSpec:
    """What serves a bitmap that several volumes bear: a view over them that has it whole, as VDSM makes one.

    The view's file is not needed any more once the server has opened it.
    """
    if spec.bitmap is None or spec.shallow or spec.format == "raw":
        return spec
    span = layers.bitmap_span(await layers.chain(spec.path), spec.bitmap)
    if len(span) == 1:
        return spec
    await layers.create_view(view, span, spec.bitmap)
    return replace(spec, path=view)


async def _wait_serving(daemon: Daemon, socket: Path) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while daemon.status is None:
                if await _greets(socket):
                    return
                await asyncio.sleep(POLL)
    except TimeoutError as error:
        raise HostError(f"qemu-nbd does not serve after {START_TIMEOUT:g} s: {daemon.output()}") from error
    raise HostError(f"qemu-nbd ended with status {daemon.status}: {daemon.output()}")


async def _greets(socket: Path) -> bool:
    """Whether a server speaks on `socket`: qemu-nbd listens before it has opened the image and found the bitmap."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    try:
        return await reader.readexactly(len(GREETING)) == GREETING
    except (asyncio.IncompleteReadError, OSError):
        return False
    finally:
        writer.close()
