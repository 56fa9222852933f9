# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of space: file systems of their own size that are filled to the last byte, so that ENOSPC is a true one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ovirtlab.faults.base import Fault, FaultError, Lab, Undo
from ovirtlab.faults.daemons import nfs_server
from ovirtlab.faults.recovery import run_again
from ovirtlab.machine.qemu import NO_SPACE

_BALLAST = ".ballast"
Leave = Annotated[int, "How many bytes stay free."]


@dataclass(frozen=True, kw_only=True)
class StorageFull(Fault):
    """A storage domain is full, for disks and for the scratch disks of backups; a VM that writes is paused (no space).

    The domain must have a `size` in the environment.
    """

    name = "storage-full"
    mended = "The space is free again, and VMs that were paused for the want of it go on."
    domain: Annotated[str, "Name of a storage domain."] = "data"
    leave: Leave = 0

    async def do(self, lab: Lab) -> Undo:
        state = lab.engine.state
        domains = {domain.name: domain.path for domain in state.storage_domains.values()}
        free = await _fill(f"the storage domain {self.domain}", _chosen(domains, self.domain), leave=self.leave)

        async def undo() -> str:
            await free()
            paused = [vm for vm in state.vms.values() if vm.status == "paused" and vm.status_detail == NO_SPACE]
            return await run_again(lab, [vm.id for vm in paused])

        return undo


@dataclass(frozen=True, kw_only=True)
class NfsFull(Fault):
    """The file system behind an export is full; writes get ENOSPC.

    The export must have a `size` in the environment.
    """

    name = "nfs-full"
    mended = "The space is free again."
    export: Annotated[str, "Name of the export."] = "backup"
    leave: Leave = 0

    async def do(self, lab: Lab) -> Undo:
        exports = {export.name: export.path for export in nfs_server(lab).exports}
        return await _fill(f"the export {self.export}", _chosen(exports, self.export), leave=self.leave)


def _chosen(paths: dict[str, Path], name: str) -> Path:
    if name not in paths:
        raise FaultError(f"there is no {name!r}; there are: {', '.join(paths) or 'none'}")
    return paths[name]


async def _fill(what: str, path: Path, *, leave: int) -> Undo:
    if not path.is_mount():
        raise FaultError(f"{what} has no size of its own that could be used up; give it a `size` in the environment")
    with _room(path / _BALLAST) as ballast:
        await asyncio.to_thread(_take, ballast, leave)

    async def undo() -> str:
        ballast.unlink(missing_ok=True)
        return ""

    return undo


@contextlib.contextmanager
def _room(ballast: Path) -> Iterator[Path]:
    """A file that does not exist yet; it is gone again when filling fails."""
    if ballast.exists():
        raise FaultError(f"{ballast.parent} is full already; clear that fault first")
    try:
        yield ballast
    except BaseException:
        ballast.unlink(missing_ok=True)
        raise


def _take(ballast: Path, leave: int) -> None:
    with ballast.open("xb") as file:
        found = os.fstatvfs(file.fileno())
        size = found.f_bavail * found.f_frsize - leave
        if size > 0:
            os.posix_fallocate(file.fileno(), 0, size)


FAULTS: tuple[type[Fault], ...] = (StorageFull, NfsFull)
