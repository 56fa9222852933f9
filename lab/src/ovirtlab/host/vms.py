# SPDX-License-Identifier: GPL-3.0-or-later
"""The VMs of a host: their machines, their checkpoints and the one backup each may have."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ovirtlab.host import chains, definitions, layers
from ovirtlab.host.api import (
    BackingVolume,
    BackupDisk,
    Departure,
    DisksOf,
    MigrationLimits,
    VmDefinition,
    VmDisk,
    VmState,
)
from ovirtlab.host.checkpoints import Checkpoints
from ovirtlab.host.live_backup import LiveBackup
from ovirtlab.machine import blockio, images, migration
from ovirtlab.machine.command import MachineSpec, socket_path
from ovirtlab.machine.errors import LOCKED, SILENT_AGENT, HostError
from ovirtlab.machine.qemu import Machine
from ovirtlab.machine.states import SavedState, Shape, StateCache

log = logging.getLogger(__name__)


@dataclass
class Vm:
    """A started VM; `job` is held by whatever changes the block graph, as libvirt's state change lock is."""

    machine: Machine
    checkpoints: Checkpoints
    job: asyncio.Lock = field(default_factory=asyncio.Lock)
    backup: LiveBackup | None = None


class Vms:
    """The VMs of one host by id, in `<directory>/vms/<vm id>`."""

    def __init__(self, directory: Path, *, states: StateCache, netns: str | None) -> None:
        self._directory = directory
        self._states = states
        self._netns = netns
        self._vms: dict[str, Vm] = {}
        self._arriving: dict[str, Machine] = {}
        self._starting: set[str] = set()
        self._callbacks: list[Callable[[str, VmState, str], None]] = []

    async def close(self) -> None:
        """End all VMs without asking their guests; QEMU stores its bitmaps."""
        await asyncio.gather(*(self.discard(vm_id) for vm_id in tuple(self._arriving)))
        await asyncio.gather(*(self.stop(vm_id, force=True) for vm_id in tuple(self._vms)))

    async def kill(self) -> None:
        """End all VMs as a loss of power does; watchers are told."""
        machines = [*self._arriving.values(), *(vm.machine for vm in self._vms.values())]
        await asyncio.gather(*(machine.kill() for machine in machines))

    def state(self, vm_id: str) -> VmState:
        return self._vms[vm_id].machine.state if vm_id in self._vms else "down"

    def watch(self, callback: Callable[[str, VmState, str], None]) -> None:
        self._callbacks.append(callback)

    def machine(self, vm_id: str) -> Machine:
        """The machine of a VM that is not down."""
        return self._vm(vm_id).machine

    async def start(self, definition: VmDefinition) -> None:
        """Start a VM, from its saved state when its disks still are the copies that belong to it."""
        vm_id = definition.vm_id
        if vm_id in self._starting or self.state(vm_id) != "down":
            raise HostError(f"VM {definition.name} runs already")
        self._starting.add(vm_id)
        try:
            self._forget(vm_id)
            self._keep(vm_id, await self._start_machine(definition))
        finally:
            self._starting.discard(vm_id)

    async def stop(self, vm_id: str, *, force: bool) -> None:
        """End a VM; one that is down is success."""
        if self.state(vm_id) != "down":
            await self._vms[vm_id].machine.stop(force=force)
        self._forget(vm_id)

    async def make_guest_disks(
        self, disks: tuple[VmDisk, ...], sizes: tuple[int, ...], *, agent: bool, memory_mib: int
    ) -> str:
        """Fill the disks' paths with a guest that belongs to a saved state, and return that state's key."""
        saved = await self._states.ensure(Shape(sizes=sizes, agent=agent, memory_mib=memory_mib))
        for number, disk in enumerate(disks):
            await images.copy(saved.disk(number), disk.path, source_format="raw", sink_format=disk.format)
            images.mark_untouched(disk.path, saved.key)
        return saved.key

    async def suspend(self, vm_id: str, memory: Path) -> VmDefinition:
        """Write the memory of a VM to a file and end it; QEMU stores its bitmaps."""
        vm = self._exclusive(vm_id)
        async with vm.job:
            described = await definitions.describe(vm.machine, vm_id)
            await migration.save(vm.machine, memory)
        await self.stop(vm_id, force=True)
        return replace(described, memory=memory)

    async def describe(self, vm_id: str) -> VmDefinition:
        return await definitions.describe(self._exclusive(vm_id).machine, vm_id)

    async def prepare(self, definition: VmDefinition, address: str) -> str:
        """Start the machine that shall take a VM over; return where it waits."""
        vm_id = definition.vm_id
        if vm_id in self._starting or vm_id in self._arriving or self.state(vm_id) != "down":
            raise HostError(f"VM {definition.name} is here already")
        self._starting.add(vm_id)
        try:
            self._forget(vm_id)
            self._arriving[vm_id] = await Machine.start(replace(await self._spec(definition), incoming=True))
            return await migration.listen(self._arriving[vm_id], address)
        finally:
            self._starting.discard(vm_id)

    async def send(self, vm_id: str, uri: str, *, limits: MigrationLimits, report: Callable[[int], None]) -> Departure:
        """Send a VM, which nothing else works on until it is taken back or discarded."""
        vm = self._exclusive(vm_id)
        await vm.job.acquire()
        downtime = await migration.send(vm.machine, uri, bandwidth=limits.bandwidth, stall=limits.stall, report=report)
        return Departure(booted=vm.machine.has_booted(), downtime=downtime)

    async def take_over(self, vm_id: str, *, booted: bool, timeout: float) -> None:
        if vm_id not in self._arriving:
            raise HostError(f"VM {vm_id} is not on its way to this host")
        machine = self._arriving[vm_id]
        machine.booted = booted
        await migration.take_over(machine, timeout=timeout)
        self._keep(vm_id, self._arriving.pop(vm_id))

    async def take_back(self, vm_id: str) -> None:
        vm = self._vm(vm_id)
        if vm.machine.departing:
            await migration.take_back(vm.machine)
            vm.job.release()

    async def discard(self, vm_id: str) -> None:
        """End what is left of a VM that runs elsewhere, or that has not arrived."""
        if vm_id in self._arriving:
            await self._arriving.pop(vm_id).stop(force=True)
        elif vm_id in self._vms and self._vms[vm_id].machine.departing:
            await self.stop(vm_id, force=True)

    async def cancel_migration(self, vm_id: str) -> None:
        await migration.cancel(self.machine(vm_id))

    async def order_agent(self, vm_id: str, command: str) -> None:
        """Have the guest's agent do something; `HostError` 19 when none answers."""
        async with AsyncExitStack() as conversation:
            try:
                agent = await conversation.enter_async_context(self.machine(vm_id).agent())
            except HostError as error:
                raise HostError(str(error), code=SILENT_AGENT) from error
            await agent.execute(command)

    async def reset(self, vm_id: str) -> None:
        async with self._exclusive(vm_id).job:
            await self.machine(vm_id).reset()

    async def attach(self, vm_id: str, disk: VmDisk) -> None:
        async with self._exclusive(vm_id).job:
            await blockio.plug(self.machine(vm_id), definitions.node(await self._on_storage(vm_id, disk)))

    async def detach(self, vm_id: str, disk_id: str) -> None:
        async with self._exclusive(vm_id).job:
            machine = self.machine(vm_id)
            await blockio.unplug(machine, definitions.disk_of(machine, disk_id))
            self._transient(vm_id, disk_id).unlink(missing_ok=True)

    async def resize(self, path: Path, size: int) -> bool:
        """Grow the disk of a running VM that uses `path`; False when none does."""
        for vm in self._vms.values():
            for disk in vm.machine.disks.values():
                if disk.path == path and vm.machine.state != "down":
                    await blockio.resize(vm.machine, disk, size)
                    return True
        return False

    async def block_io(self, vm_id: str, target: str, command: str) -> str:
        return await blockio.block_io(self.machine(vm_id), target, command)

    async def snapshot(self, vm_id: str, overlays: Mapping[str, Path], *, freeze: bool) -> None:
        vm = self._exclusive(vm_id)
        async with vm.job:
            targets = {definitions.disk_of(vm.machine, disk_id).target: path for disk_id, path in overlays.items()}
            await chains.snapshot(vm.machine, targets, freeze=freeze)

    async def merge(self, vm_id: str, disk_id: str, *, top: Path, base: Path) -> None:
        vm = self._exclusive(vm_id)
        async with vm.job:
            await chains.merge(vm.machine, definitions.disk_of(vm.machine, disk_id), top=top, base=base)

    async def start_backup(
        self, vm_id: str, backup_id: str, disks: tuple[BackupDisk, ...], *, require_consistency: bool
    ) -> Mapping[str, str]:
        """Return the URL of each disk by disk id; `HostError` 68, 103 or 109 as libvirt would."""
        vm = self._exclusive(vm_id)
        async with vm.job:
            for checkpoint_id in sorted({disk.from_checkpoint for disk in disks if disk.from_checkpoint}):
                vm.checkpoints.require(checkpoint_id)
            nodes = {disk.disk_id: definitions.disk_of(vm.machine, disk.disk_id) for disk in disks}
            sizes = await definitions.virtual_sizes(vm.machine)
            plans = tuple(definitions.plan(disk, nodes[disk.disk_id], sizes) for disk in disks)
            socket = socket_path(self._directory / "backup" / backup_id)
            backup = LiveBackup(backup_id, vm.machine, plans, socket)
            await backup.start(require_consistency=require_consistency)
            vm.backup = backup
            for checkpoint_id in backup.checkpoints:
                vm.checkpoints.add(checkpoint_id)
        return {disk_id: backup.urls[node.target] for disk_id, node in nodes.items()}

    async def stop_backup(self, vm_id: str, backup_id: str) -> None:
        """End a backup; one that is not known is success, as in VDSM."""
        vm = self._vms.get(vm_id)
        if vm is None or vm.backup is None or vm.backup.id != backup_id:
            return
        async with vm.job:
            backup, vm.backup = vm.backup, None
            await backup.stop()

    async def redefine_checkpoints(self, vm_id: str, checkpoints: DisksOf) -> None:
        vm = self._exclusive(vm_id)
        async with vm.job:
            await vm.checkpoints.redefine(checkpoints)

    def known_checkpoints(self, vm_id: str) -> frozenset[str]:
        return self._vm(vm_id).checkpoints.known

    async def delete_checkpoint(self, vm_id: str, checkpoint_id: str) -> None:
        vm = self._exclusive(vm_id)
        async with vm.job:
            await vm.checkpoints.delete(checkpoint_id)

    def _vm(self, vm_id: str) -> Vm:
        if self.state(vm_id) == "down":
            raise HostError(f"VM {vm_id} is not running on this host")
        return self._vms[vm_id]

    def _exclusive(self, vm_id: str) -> Vm:
        """A running VM nothing else works on; libvirt waits 30 seconds for that and then says 68."""
        vm = self._vm(vm_id)
        if vm.backup is not None or vm.job.locked():
            text = "cannot acquire state change lock (held by a backup or another job)"
            raise HostError(f"VM {vm.machine.spec.name}: {text}", code=LOCKED)
        return vm

    def _keep(self, vm_id: str, machine: Machine) -> None:
        machine.on_change(partial(self._changed, vm_id))
        self._vms[vm_id] = Vm(machine=machine, checkpoints=Checkpoints(machine))

    async def _on_storage(self, vm_id: str, disk: VmDisk) -> VmDisk:
        """The disk as it is opened: a transient one goes on in a volume of this host."""
        if not disk.transient:
            return disk
        path = self._transient(vm_id, disk.disk_id)
        await layers.create_transient(path, disk.path, disk.format)
        below = BackingVolume(path=disk.path, format=disk.format)
        return replace(disk, path=path, format="qcow2", backing=(below, *disk.backing), transient=False)

    def _transient(self, vm_id: str, disk_id: str) -> Path:
        return self._directory / "transient" / vm_id / disk_id

    def _forget(self, vm_id: str) -> None:
        """Drop a VM that is down, with what it wrote to transient disks, and a backup it ended under left behind."""
        shutil.rmtree(self._directory / "transient" / vm_id, ignore_errors=True)
        vm = self._vms.pop(vm_id, None)
        if vm is not None and vm.backup is not None:
            vm.backup.discard()

    def _changed(self, vm_id: str, state: VmState, reason: str) -> None:
        for callback in self._callbacks:
            callback(vm_id, state, reason)

    async def _spec(self, definition: VmDefinition) -> MachineSpec:
        boot = await self._states.boot(agent=definition.agent) if definition.guest == "linux" else None
        vm_id = definition.vm_id
        return MachineSpec(
            name=definition.name,
            directory=self._directory / "vms" / vm_id,
            memory_mib=definition.memory_mib,
            disks=tuple([definitions.node(await self._on_storage(vm_id, disk)) for disk in definition.disks]),
            boot=boot,
            netns=self._netns,
        )

    async def _start_machine(self, definition: VmDefinition) -> Machine:
        spec = await self._spec(definition)
        if definition.memory is not None:
            return await Machine.start(replace(spec, state=definition.memory))
        if saved := self._state_for(definition):
            try:
                return await _start_clone(spec, saved)
            except HostError as error:
                log.warning("VM %s is booted, as it did not start from its saved state: %s", definition.name, error)
        return await Machine.start(spec)

    def _state_for(self, definition: VmDefinition) -> SavedState | None:
        saved = self._states.find(definition.clone) if definition.clone and definition.guest == "linux" else None
        if saved is None:
            return None
        wanted = (len(definition.disks), definition.agent, definition.memory_mib)
        fits = wanted == (len(saved.shape.sizes), saved.shape.agent, saved.shape.memory_mib)
        untouched = all(images.is_untouched(disk.path, saved.key) for disk in definition.disks)
        return saved if fits and untouched else None


async def _start_clone(spec: MachineSpec, saved: SavedState) -> Machine:
    """Resume a saved state and give the guest its own clock and name."""
    machine = await Machine.start(replace(spec, state=saved.state))
    try:
        settle = f"date -s @{int(time.time())}; hostname {spec.hostname}"
        await machine.run_on_console(["sh", "-c", settle], timeout=30)
    except BaseException:
        await machine.stop(force=True)
        raise
    return machine
