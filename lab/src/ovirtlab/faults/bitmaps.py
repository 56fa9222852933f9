# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of dirty bitmaps: the engine goes on believing in a checkpoint that its disks cannot show any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.faults.base import Fault, FaultError, Lab
from ovirtlab.host.local import LocalHost
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.process import run

VmName = Annotated[str, "Name or id of a VM."]
DiskName = Annotated[str, "Name or id of its only disk that is hit; empty for all."]
Checkpoint = Annotated[str, "Id of the only checkpoint that is hit; empty for all."]


@dataclass(frozen=True, kw_only=True)
class BitmapLose(Fault):
    """Bitmaps of a VM's disks are gone; an incremental from their checkpoint is refused (bitmap does not exist)."""

    name = "bitmap-lose"
    lasting = "lost bitmaps stay lost; the next backup of these disks must be a full one"
    vm: VmName
    disk: DiskName = ""
    checkpoint: Checkpoint = ""

    async def do(self, lab: Lab) -> None:
        vm = lab.vm(self.vm)
        host = _host_of(lab, vm)
        for disk, bitmap in await _found(lab, vm, disk_name=self.disk, checkpoint=self.checkpoint):
            if host.vm_state(vm.id) == "down":
                await host.remove_bitmap(disk.path, bitmap)
            else:
                await host.qmp(vm.id, "block-dirty-bitmap-remove", await _named(host, vm, (disk, bitmap)))


@dataclass(frozen=True, kw_only=True)
class BitmapBreak(Fault):
    """Bitmaps cannot be trusted: marked in use as after a crash, or in a running VM no longer recording writes."""

    name = "bitmap-break"
    lasting = "broken bitmaps stay broken; the next backup of these disks must be a full one"
    vm: VmName
    disk: DiskName = ""
    checkpoint: Checkpoint = ""

    async def do(self, lab: Lab) -> None:
        vm = lab.vm(self.vm)
        host = _host_of(lab, vm)
        found = await _found(lab, vm, disk_name=self.disk, checkpoint=self.checkpoint)
        if host.vm_state(vm.id) != "down":
            for disk, bitmap in found:
                if bitmap in await _recording(host, vm, disk):
                    await host.qmp(vm.id, "block-dirty-bitmap-disable", await _named(host, vm, (disk, bitmap)))
            return
        if self.checkpoint:
            raise FaultError("all bitmaps of a disk break together while its VM is down; leave out the checkpoint")
        for path in dict.fromkeys(disk.path for disk, _ in found):
            await _crash_on(path)


async def _crash_on(path: Path) -> None:
    """Open a volume for writing and die: what a crash of QEMU leaves in it is real."""
    try:
        await run(["prlimit", "--core=0", "qemu-io", "-f", "qcow2", "-c", "abort", path])
    except HostError as error:
        if "-6" not in str(error) and "134" not in str(error):
            raise


async def _found(lab: Lab, vm: Vm, *, disk_name: str, checkpoint: str) -> list[tuple[Disk, str]]:
    """The bitmaps that are meant; none is an error."""
    host = _host_of(lab, vm)
    disks = [disk for disk in lab.engine.state.disks_of(vm) if disk_name in ("", disk.id, disk.alias)]
    names = {disk.id: await _bitmaps(host, vm, disk) for disk in disks if disk.volume_format == "qcow2"}
    found = [(disk, bitmap) for disk in disks for bitmap in names.get(disk.id, ()) if checkpoint in ("", bitmap)]
    if not found:
        raise FaultError(f"VM {vm.name} has no such bitmap; make a backup with a checkpoint first")
    return found


async def _bitmaps(host: LocalHost, vm: Vm, disk: Disk) -> list[str]:
    if host.vm_state(vm.id) == "down":
        return list(await host.bitmaps(disk.path))
    found = (await _node(host, vm, disk)).get("dirty-bitmaps", [])
    return [bitmap["name"] for bitmap in found if bitmap.get("persistent")]


async def _recording(host: LocalHost, vm: Vm, disk: Disk) -> set[str]:
    """The bitmaps of a running VM's disk that are whole; those of an earlier crash are broken as they are."""
    found = (await _node(host, vm, disk)).get("dirty-bitmaps", [])
    return {bitmap["name"] for bitmap in found if bitmap["recording"] and not bitmap.get("inconsistent")}


async def _node(host: LocalHost, vm: Vm, disk: Disk) -> Mapping[str, Any]:
    """The node of a disk's format, which bears the bitmaps, as QEMU describes it; empty when it is not plugged in."""
    nodes = await host.qmp(vm.id, "query-named-block-nodes", {"flat": True})
    return next((node for node in nodes if node["drv"] == "qcow2" and node["file"] == str(disk.path)), {})


async def _named(host: LocalHost, vm: Vm, which: tuple[Disk, str]) -> Mapping[str, Any]:
    disk, bitmap = which
    return {"node": (await _node(host, vm, disk))["node-name"], "name": bitmap}


def _host_of(lab: Lab, vm: Vm) -> LocalHost:
    """The host a VM is on, or any for one that is down."""
    if not lab.hosts:
        raise FaultError("this lab is an engine only; its disks have no bitmaps that could break")
    running = (host for host in lab.hosts.values() if host.vm_state(vm.id) != "down")
    return next(running, next(iter(lab.hosts.values())))


FAULTS: tuple[type[Fault], ...] = (BitmapLose, BitmapBreak)
