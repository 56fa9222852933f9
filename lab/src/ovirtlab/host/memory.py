# SPDX-License-Identifier: GPL-3.0-or-later
"""A host without processes: volumes are sparse files, and VMs, backups, NBD servers and tickets are only kept."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ovirtlab.host.api import (
    BackingVolume,
    BackupDisk,
    Departure,
    DisksOf,
    HostError,
    MigrationLimits,
    VmDefinition,
    VmDisk,
    VmState,
    VolumeFormat,
)

_INCONSISTENT = 109
_BUSY = 68
_SILENT_AGENT = 19
Watcher = Callable[[str, VmState, str], None]


@dataclass
class _Machine:
    definition: VmDefinition
    state: VmState
    disks: dict[str, VmDisk]
    backup_id: str = ""
    departing: bool = False
    frozen: bool = False
    resets: int = 0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Storage:
    """What the hosts of one lab share: bitmaps of volumes by path."""

    bitmaps: dict[Path, dict[str, tuple[str, ...]]] = field(default_factory=dict)


class MemoryHost:
    """The twin of a host for tests of the engine's interface; satisfies `ovirtlab.host.api.Host`."""

    def __init__(self, *, name: str, id: str, address: str = "127.0.0.1", storage: Storage | None = None) -> None:
        self.name = name
        self.id = id
        self.hw_id = f"4c4c4544-0000-0000-0000-{id[-12:]}"
        self.address = address
        self.imageio_port = 54322
        self.storage = storage or Storage()
        self.machines: dict[str, _Machine] = {}
        self.servers: dict[str, Path] = {}
        self.tickets: dict[str, dict[str, Any]] = {}
        self.busy_tickets: set[str] = set()
        self.way_out = asyncio.Event()  # VMs that are sent leave this host as long as it is set
        self.way_out.set()
        self.arriving: dict[str, VmDefinition] = {}
        self._watchers: list[Watcher] = []

    # storage

    async def create_volume(self, path: Path, fmt: VolumeFormat, size: int, *, preallocate: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise HostError(f"the volume {path} exists")
        with path.open("wb") as file:
            file.truncate(size)
        self.storage.bitmaps[path] = {}

    async def delete_volume(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.storage.bitmaps.pop(path, None)

    async def copy_volume(self, source: Path, sink: Path, fmt: VolumeFormat, *, bitmaps: bool = False) -> None:
        sink.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, sink)
        self.storage.bitmaps[sink] = dict(self.storage.bitmaps.get(source, {})) if bitmaps else {}

    async def resize_volume(self, path: Path, fmt: VolumeFormat, size: int) -> None:
        with path.open("r+b") as file:
            file.truncate(size)

    async def verify_volume(self, path: Path, fmt: VolumeFormat) -> None:
        if not path.exists():
            raise HostError(f"the volume {path} does not exist")

    async def create_overlay(
        self, path: Path, backing: Path, fmt: VolumeFormat, *, bitmaps: tuple[str, ...] = ()
    ) -> None:
        await self.create_volume(path, "qcow2", backing.stat().st_size)
        for name in {*bitmaps, *self.storage.bitmaps.get(backing, {})}:
            await self.add_bitmap(path, name)

    async def copy_layer(self, source: Path, sink: Path, *, backing: Path, fmt: VolumeFormat) -> None:
        if not backing.exists():
            raise HostError(f"the volume {backing} does not exist")
        await self.copy_volume(source, sink, "qcow2")

    async def merge_volumes(self, top: Path, base: Path, fmt: VolumeFormat, *, child: Path | None = None) -> None:
        if not (top.exists() and base.exists()):
            raise HostError(f"the volume {top} or {base} does not exist")
        if fmt == "qcow2":
            for name in self.storage.bitmaps.get(top, {}):
                await self.add_bitmap(base, name)

    async def bitmaps(self, path: Path) -> Mapping[str, tuple[str, ...]]:
        return dict(self.storage.bitmaps.get(path, {}))

    async def add_bitmap(self, path: Path, name: str) -> None:
        self.storage.bitmaps.setdefault(path, {})[name] = ("auto",)

    async def remove_bitmap(self, path: Path, name: str) -> None:
        self.storage.bitmaps.get(path, {}).pop(name, None)

    async def make_guest_disks(
        self, disks: tuple[VmDisk, ...], sizes: tuple[int, ...], agent: bool, *, memory_mib: int = 128
    ) -> str:
        for disk, size in zip(disks, sizes, strict=True):
            await self.create_volume(disk.path, disk.format, size)
        return "memory-clone"

    # VMs

    async def start_vm(self, definition: VmDefinition) -> None:
        if definition.vm_id in self.machines:
            raise HostError("the VM runs already")
        memory = [definition.memory] if definition.memory else []
        for path in (*memory, *(disk.path for disk in definition.disks)):
            if not path.exists():
                raise HostError(f"the volume {path} does not exist")
        disks = {disk.disk_id: disk for disk in definition.disks}
        self.machines[definition.vm_id] = _Machine(definition, "up", disks)

    async def stop_vm(self, vm_id: str, *, force: bool) -> None:
        self._machine(vm_id)
        del self.machines[vm_id]

    async def suspend_vm(self, vm_id: str, memory: Path) -> VmDefinition:
        described = await self.describe_vm(vm_id)
        memory.write_text(described.name)
        del self.machines[vm_id]
        return replace(described, memory=memory)

    def vm_state(self, vm_id: str) -> VmState:
        return self.machines[vm_id].state if vm_id in self.machines else "down"

    def watch_vms(self, callback: Watcher) -> None:
        self._watchers.append(callback)

    def change(self, vm_id: str, state: VmState, reason: str) -> None:
        """Let a VM change by itself: shut down from inside, crash, pause for want of space."""
        self._machine(vm_id).state = state
        if state == "down":
            del self.machines[vm_id]
        for watcher in self._watchers:
            watcher(vm_id, state, reason)

    async def resume_vm(self, vm_id: str) -> None:
        self._machine(vm_id).state = "up"

    async def freeze_vm(self, vm_id: str) -> None:
        self._agent(vm_id).frozen = True

    async def thaw_vm(self, vm_id: str) -> None:
        self._agent(vm_id).frozen = False

    def _agent(self, vm_id: str) -> _Machine:
        machine = self._machine(vm_id)
        if not machine.definition.agent:
            raise HostError("the VM has no guest agent", code=_SILENT_AGENT)
        return machine

    async def reset_vm(self, vm_id: str) -> None:
        machine = self._machine(vm_id)
        machine.frozen, machine.resets = False, machine.resets + 1

    async def attach_disk(self, vm_id: str, disk: VmDisk) -> None:
        self._machine(vm_id).disks[disk.disk_id] = disk

    async def detach_disk(self, vm_id: str, disk_id: str) -> None:
        if self._machine(vm_id).disks.pop(disk_id, None) is None:
            raise HostError(f"the VM has no disk {disk_id}")

    # migration

    async def describe_vm(self, vm_id: str) -> VmDefinition:
        machine = self._machine(vm_id)
        if machine.backup_id or machine.departing:
            raise HostError("the VM is held by another job", code=_BUSY)
        return replace(machine.definition, disks=tuple(machine.disks.values()), clone="")

    async def prepare_vm(self, definition: VmDefinition) -> str:
        if definition.vm_id in self.machines:
            raise HostError("the VM runs already")
        self.arriving[definition.vm_id] = definition
        return f"memory:{self.id}"

    async def send_vm(
        self, vm_id: str, uri: str, *, limits: MigrationLimits, report: Callable[[int], None]
    ) -> Departure:
        machine = self._machine(vm_id)
        machine.departing = True
        report(50)
        waits = [asyncio.create_task(event.wait()) for event in (self.way_out, machine.cancelled)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        if machine.cancelled.is_set():
            raise HostError("the migration was cancelled")
        self._machine(vm_id)
        report(100)
        return Departure(booted=True, downtime=1)

    async def take_over_vm(self, vm_id: str, *, booted: bool, timeout: float) -> None:
        if vm_id not in self.arriving:
            raise HostError("the VM has not arrived")
        definition = self.arriving.pop(vm_id)
        self.machines[vm_id] = _Machine(definition, "up", {disk.disk_id: disk for disk in definition.disks})

    async def take_back_vm(self, vm_id: str) -> None:
        machine = self._machine(vm_id)
        machine.departing = False
        machine.cancelled.clear()

    async def discard_vm(self, vm_id: str) -> None:
        if self.arriving.pop(vm_id, None) is None and vm_id in self.machines and self.machines[vm_id].departing:
            del self.machines[vm_id]

    async def cancel_migration(self, vm_id: str) -> None:
        if not self._machine(vm_id).departing:
            raise HostError("the VM is not being migrated")
        self.machines[vm_id].cancelled.set()

    # snapshots

    async def snapshot_vm(self, vm_id: str, overlays: Mapping[str, Path], *, freeze: bool = True) -> None:
        machine = self._machine(vm_id)
        for disk_id, path in overlays.items():
            disk = machine.disks[disk_id]
            below = BackingVolume(path=disk.path, format=disk.format)
            machine.disks[disk_id] = replace(disk, path=path, format="qcow2", backing=(below, *disk.backing))

    async def merge_live(self, vm_id: str, disk_id: str, *, top: Path, base: Path) -> None:
        machine = self._machine(vm_id)
        disk = machine.disks[disk_id]
        volumes = (BackingVolume(path=disk.path, format=disk.format), *disk.backing)
        left = tuple(volume for volume in volumes if volume.path != top)
        if len(left) == len(volumes) or base not in [volume.path for volume in left]:
            raise HostError(f"the disk {disk_id} does not use {top.name} over {base.name}")
        await self.merge_volumes(top, base, left[0].format)
        machine.disks[disk_id] = replace(disk, path=left[0].path, format=left[0].format, backing=left[1:])

    # live backup

    async def start_backup(
        self, vm_id: str, backup_id: str, disks: tuple[BackupDisk, ...], *, require_consistency: bool
    ) -> Mapping[str, str]:
        machine = self._machine(vm_id)
        if machine.backup_id:
            raise HostError("another backup job is already running", code=_BUSY)
        if require_consistency and not machine.definition.agent:
            raise HostError("the guest cannot be frozen, as it has no agent")
        machine.backup_id = backup_id
        for disk in disks:
            if disk.to_checkpoint:
                await self.add_bitmap(machine.disks[disk.disk_id].path, disk.to_checkpoint)
        socket = f"nbd:unix:/run/vdsm/backup/{backup_id}"
        return {disk.disk_id: f"{socket}:exportname={machine.disks[disk.disk_id].target}" for disk in disks}

    async def stop_backup(self, vm_id: str, backup_id: str) -> None:
        machine = self._machine(vm_id)
        if machine.backup_id != backup_id:
            raise HostError("the backup does not run")
        machine.backup_id = ""

    async def redefine_checkpoints(self, vm_id: str, checkpoints: DisksOf) -> None:
        for disk in self._machine(vm_id).disks.values():
            known = self.storage.bitmaps.get(disk.path, {})
            wanted = [name for name, disk_ids in checkpoints.items() if disk.disk_id in disk_ids]
            if any("auto" not in known.get(name, ()) or "in-use" in known[name] for name in wanted):
                raise HostError("checkpoint inconsistent: missing or broken bitmap", code=_INCONSISTENT)

    async def list_checkpoints(self, vm_id: str) -> frozenset[str]:
        paths = [disk.path for disk in self._machine(vm_id).disks.values()]
        return frozenset(name for path in paths for name in self.storage.bitmaps.get(path, {}))

    async def delete_checkpoint(self, vm_id: str, checkpoint_id: str) -> None:
        for disk in self._machine(vm_id).disks.values():
            await self.remove_bitmap(disk.path, checkpoint_id)

    # NBD servers

    async def start_nbd_server(
        self,
        server_id: str,
        path: Path,
        fmt: VolumeFormat,
        *,
        read_only: bool,
        bitmap: str | None = None,
        discard: bool = True,
        shallow: bool = False,
    ) -> str:
        if bitmap and bitmap not in self.storage.bitmaps.get(path, {}):
            raise HostError(f"the bitmap {bitmap} does not exist")
        self.servers[server_id] = path
        return f"nbd:unix:/run/vdsm/nbd/{server_id}.sock"

    async def stop_nbd_server(self, server_id: str) -> None:
        self.servers.pop(server_id, None)

    # tickets

    async def add_ticket(self, ticket: Mapping[str, Any]) -> None:
        idle = {"active": False, "canceled": False, "connections": 0, "idle_time": 0, "transferred": 0}
        self.tickets[ticket["uuid"]] = {**idle, **ticket}

    async def get_ticket(self, ticket_id: str) -> Mapping[str, Any] | None:
        return self.tickets.get(ticket_id)

    async def extend_ticket(self, ticket_id: str, timeout: int) -> None:
        if ticket_id not in self.tickets:
            raise HostError("no such ticket", code=404)
        self.tickets[ticket_id]["timeout"] = timeout

    async def remove_ticket(self, ticket_id: str) -> None:
        if ticket_id in self.busy_tickets:
            raise HostError("operations are still running on the ticket", code=409)
        self.tickets.pop(ticket_id, None)

    def _machine(self, vm_id: str) -> _Machine:
        if vm_id not in self.machines:
            raise HostError("the VM does not run here")
        return self.machines[vm_id]
