# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of the imageio daemons and of the NFS server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from ovirtlab.fabric.imageio import Imageio
from ovirtlab.fabric.nfs import NfsServer
from ovirtlab.faults.base import Fault, FaultError, Lab, Undo
from ovirtlab.faults.machines import HostName


@dataclass(frozen=True, kw_only=True)
class ImageioKill(Fault):
    """The imageio daemon of a host dies; its tickets are lost, so that transfers cannot go on."""

    name = "imageio-kill"
    mended = "The daemon runs."
    lasting = "tickets are lost: downloads that had one fail, uploads are paused; start new transfers"
    host: HostName

    async def do(self, lab: Lab) -> Undo:
        daemon = _daemon(lab, self.host)
        await asyncio.to_thread(daemon.kill)
        return _in_thread(daemon.revive)


@dataclass(frozen=True, kw_only=True)
class ImageioRestart(Fault):
    """The imageio daemon of a host is restarted; its tickets are lost."""

    name = "imageio-restart"
    lasting = ImageioKill.lasting
    host: HostName

    async def do(self, lab: Lab) -> None:
        await asyncio.to_thread(_daemon(lab, self.host).restart)


@dataclass(frozen=True, kw_only=True)
class ExtentsSlow(Fault):
    """Every answer of a host's daemon about extents takes long, as with disks of many terabytes.

    The first time in a lab the daemon is restarted for it, so break it before transfers begin.
    """

    name = "extents-slow"
    mended = "Extents come at once; the daemon keeps running, with its tickets."
    host: HostName
    seconds: Annotated[float, "How much longer, in real seconds."]

    async def do(self, lab: Lab) -> Undo:
        if self.seconds <= 0:
            raise FaultError("extents-slow needs seconds above 0")
        daemon = _daemon(lab, self.host)
        await asyncio.to_thread(daemon.slow_extents, self.seconds)
        return _in_thread(lambda: daemon.slow_extents(0))


@dataclass(frozen=True, kw_only=True)
class NfsKill(Fault):
    """The NFS server dies; hard mounts wait for it."""

    name = "nfs-kill"
    mended = "The server runs; who waits goes on."

    async def do(self, lab: Lab) -> Undo:
        server = nfs_server(lab)
        await asyncio.to_thread(server.kill)
        return _in_thread(server.revive)


@dataclass(frozen=True, kw_only=True)
class NfsRestart(Fault):
    """The NFS server is restarted, which mounts live through."""

    name = "nfs-restart"

    async def do(self, lab: Lab) -> None:
        await asyncio.to_thread(nfs_server(lab).restart)


@dataclass(frozen=True, kw_only=True)
class NfsFreeze(Fault):
    """The NFS server hangs with its connections open."""

    name = "nfs-freeze"
    mended = "The server goes on."

    async def do(self, lab: Lab) -> Undo:
        server = nfs_server(lab)
        await asyncio.to_thread(server.freeze)
        return _in_thread(server.thaw)


@dataclass(frozen=True, kw_only=True)
class NfsReadOnly(Fault):
    """An export may only be read (EROFS); the server is restarted for it, which mounts live through."""

    name = "nfs-read-only"
    mended = "The export may be written to, after another restart of the server."
    export: Annotated[str, "Name of the export."] = "backup"

    async def do(self, lab: Lab) -> Undo:
        server = nfs_server(lab)
        await asyncio.to_thread(server.make_read_only, self.export)
        return _in_thread(lambda: server.make_writable(self.export))


def nfs_server(lab: Lab) -> NfsServer:
    """The lab's NFS server."""
    fabric = lab.parts()
    if fabric.target is None:
        raise FaultError(f"this lab has no NFS server: {fabric.target_missing}")
    return fabric.target.server


def _daemon(lab: Lab, host: str) -> Imageio:
    lab.host(host)
    return lab.parts().imageio[host]


def _in_thread(act: Callable[[], None]) -> Undo:
    async def undo() -> str:
        await asyncio.to_thread(act)
        return ""

    return undo


FAULTS: tuple[type[Fault], ...] = (
    ImageioKill,
    ImageioRestart,
    ExtentsSlow,
    NfsKill,
    NfsRestart,
    NfsFreeze,
    NfsReadOnly,
)
