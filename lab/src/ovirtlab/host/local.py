# SPDX-License-Identifier: GPL-3.0-or-later
"""A hypervisor on this machine: the verbs of a host on real QEMU processes, NBD servers and a real ovirt-imageio."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovirtlab.host import layers, volumes
from ovirtlab.host.api import (
    BackupDisk,
    Departure,
    DisksOf,
    MigrationLimits,
    VmDefinition,
    VmDisk,
    VmState,
    VolumeFormat,
)
from ovirtlab.host.nbd_servers import NbdServers, NbdServerSpec
from ovirtlab.host.tickets import TicketClient
from ovirtlab.host.vms import Vms
from ovirtlab.machine.command import SOCKET_PATH_LIMIT
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.states import StateCache

LONGEST_SOCKET = len("/nbd/00000000-0000-0000-0000-000000000000.sock")


class LocalHost:
    """A host of the lab; satisfies `ovirtlab.host.api.Host`.

    `directory` is its run directory and must be short, as Unix sockets lie in it: `vms/<vm id>/{qmp,agent,console}`
    with logs and pid files beside them, `backup/<backup id>`, `nbd/<server id>.sock`. `control_socket` is its
    ovirt-imageio's. `netns` is the network namespace its programs run in. `cache` may be shared with any other host.
    """

    def __init__(
        self,
        *,
        name: str,
        id: str,
        address: str,
        imageio_port: int,
        directory: Path,
        control_socket: Path,
        netns: str | None,
        cache: Path,
    ) -> None:
        if len(str(directory.absolute())) + LONGEST_SOCKET > SOCKET_PATH_LIMIT:
            raise HostError(f"the directory {directory} is too long for Unix sockets in it; choose a shorter one")
        self.name = name
        self.id = id
        self.hw_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"ovirtlab host {id}"))
        self.address = address
        self.imageio_port = imageio_port
        directory.mkdir(parents=True, exist_ok=True)
        states = StateCache(cache)
        self._vms = Vms(directory.absolute(), states=states, netns=netns)
        self._servers = NbdServers(directory.absolute() / "nbd", netns=netns)
        self._tickets = TicketClient(control_socket)

    async def close(self) -> None:
        """Stop all VMs and servers; no process or socket is left."""
        await asyncio.gather(self._vms.close(), self._servers.close())

    # storage

    async def create_volume(self, path: Path, fmt: VolumeFormat, size: int, *, preallocate: bool = False) -> None:
        await volumes.create(path, fmt, size, preallocate=preallocate)

    async def delete_volume(self, path: Path) -> None:
        volumes.delete(path)

    async def copy_volume(self, source: Path, sink: Path, fmt: VolumeFormat, *, bitmaps: bool = False) -> None:
        await volumes.copy(source, sink, fmt, bitmaps=bitmaps)

    async def resize_volume(self, path: Path, fmt: VolumeFormat, size: int) -> None:
        """Grow a volume, through its VM when one of this host uses it."""
        if not await self._vms.resize(path, size):
            await volumes.resize(path, fmt, size)

    async def verify_volume(self, path: Path, fmt: VolumeFormat) -> None:
        await volumes.verify(path, fmt)

    async def create_overlay(
        self, path: Path, backing: Path, fmt: VolumeFormat, *, bitmaps: tuple[str, ...] = ()
    ) -> None:
        await layers.create_overlay(path, backing, fmt, bitmaps=bitmaps)

    async def copy_layer(self, source: Path, sink: Path, *, backing: Path, fmt: VolumeFormat) -> None:
        await layers.copy_layer(source, sink, backing=backing, fmt=fmt)

    async def merge_volumes(self, top: Path, base: Path, fmt: VolumeFormat, *, child: Path | None = None) -> None:
        await layers.merge(top, base, fmt, child=child)

    async def bitmaps(self, path: Path) -> Mapping[str, tuple[str, ...]]:
        return await volumes.bitmaps(path)

    async def add_bitmap(self, path: Path, name: str) -> None:
        await volumes.add_bitmap(path, name)

    async def remove_bitmap(self, path: Path, name: str) -> None:
        await volumes.remove_bitmap(path, name)

    async def make_guest_disks(
        self, disks: tuple[VmDisk, ...], sizes: tuple[int, ...], agent: bool, *, memory_mib: int = 128
    ) -> str:
        return await self._vms.make_guest_disks(disks, sizes, agent=agent, memory_mib=memory_mib)

    # VMs

    async def start_vm(self, definition: VmDefinition) -> None:
        await self._vms.start(definition)

    async def stop_vm(self, vm_id: str, *, force: bool) -> None:
        await self._vms.stop(vm_id, force=force)

    async def suspend_vm(self, vm_id: str, memory: Path) -> VmDefinition:
        return await self._vms.suspend(vm_id, memory)

    async def resume_vm(self, vm_id: str) -> None:
        await self._vms.machine(vm_id).resume()

    async def crash_vm(self, vm_id: str) -> None:
        """Kill a VM's QEMU as a crash would: nothing is stored, watchers are told."""
        await self._vms.machine(vm_id).kill()

    async def power_off_inside(self, vm_id: str) -> None:
        """Let a VM end as its guest's own power-off does: QEMU stores its bitmaps and goes, watchers are told."""
        await self._vms.machine(vm_id).power_off_inside()

    async def lose_power(self) -> None:
        """End all QEMU and all qemu-nbd of this host at once, with nothing stored."""
        await asyncio.gather(self._vms.kill(), self._servers.kill())

    async def qmp(self, vm_id: str, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a command of QEMU's monitor on a running VM and return its answer."""
        return await self._vms.machine(vm_id).execute(command, arguments)

    async def freeze_vm(self, vm_id: str) -> None:
        await self._vms.order_agent(vm_id, "guest-fsfreeze-freeze")

    async def thaw_vm(self, vm_id: str) -> None:
        await self._vms.order_agent(vm_id, "guest-fsfreeze-thaw")

    async def reset_vm(self, vm_id: str) -> None:
        await self._vms.reset(vm_id)

    def vm_state(self, vm_id: str) -> VmState:
        return self._vms.state(vm_id)

    def watch_vms(self, callback: Callable[[str, VmState, str], None]) -> None:
        self._vms.watch(callback)

    async def attach_disk(self, vm_id: str, disk: VmDisk) -> None:
        await self._vms.attach(vm_id, disk)

    async def detach_disk(self, vm_id: str, disk_id: str) -> None:
        await self._vms.detach(vm_id, disk_id)

    async def wait_guest(self, vm_id: str, *, timeout: float = 90.0) -> None:
        """Wait until the guest's system is up; `HostError` with its console's text when its disk does not boot."""
        await self._vms.machine(vm_id).wait_ready(timeout=timeout)

    async def guest_exec(self, vm_id: str, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run a program in the guest; return exit status, output and error output."""
        return await self._vms.machine(vm_id).run(argv)

    async def console_exec(self, vm_id: str, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run a program by the shell on the serial console, also in a guest with an agent."""
        return await self._vms.machine(vm_id).run_on_console(argv)

    async def block_io(self, vm_id: str, target: str, command: str) -> str:
        """Run a qemu-io command on a disk of a running VM, as a guest's write would go; return what it printed."""
        return await self._vms.block_io(vm_id, target, command)

    # migration

    async def describe_vm(self, vm_id: str) -> VmDefinition:
        return await self._vms.describe(vm_id)

    async def prepare_vm(self, definition: VmDefinition) -> str:
        """Return where a QEMU waits for the VM, at the host's address."""
        return await self._vms.prepare(definition, self.address)

    async def send_vm(
        self, vm_id: str, uri: str, *, limits: MigrationLimits, report: Callable[[int], None]
    ) -> Departure:
        return await self._vms.send(vm_id, uri, limits=limits, report=report)

    async def take_over_vm(self, vm_id: str, *, booted: bool, timeout: float) -> None:
        await self._vms.take_over(vm_id, booted=booted, timeout=timeout)

    async def take_back_vm(self, vm_id: str) -> None:
        await self._vms.take_back(vm_id)

    async def discard_vm(self, vm_id: str) -> None:
        await self._vms.discard(vm_id)

    async def cancel_migration(self, vm_id: str) -> None:
        await self._vms.cancel_migration(vm_id)

    # snapshots

    async def snapshot_vm(self, vm_id: str, overlays: Mapping[str, Path], *, freeze: bool = True) -> None:
        await self._vms.snapshot(vm_id, overlays, freeze=freeze)

    async def merge_live(self, vm_id: str, disk_id: str, *, top: Path, base: Path) -> None:
        await self._vms.merge(vm_id, disk_id, top=top, base=base)

    # live backup

    async def start_backup(
        self, vm_id: str, backup_id: str, disks: tuple[BackupDisk, ...], *, require_consistency: bool
    ) -> Mapping[str, str]:
        """Return the NBD URL of each disk by disk id."""
        return await self._vms.start_backup(vm_id, backup_id, disks, require_consistency=require_consistency)

    async def stop_backup(self, vm_id: str, backup_id: str) -> None:
        await self._vms.stop_backup(vm_id, backup_id)

    async def redefine_checkpoints(self, vm_id: str, checkpoints: DisksOf) -> None:
        await self._vms.redefine_checkpoints(vm_id, checkpoints)

    async def list_checkpoints(self, vm_id: str) -> frozenset[str]:
        return self._vms.known_checkpoints(vm_id)

    async def delete_checkpoint(self, vm_id: str, checkpoint_id: str) -> None:
        await self._vms.delete_checkpoint(vm_id, checkpoint_id)

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
        spec = NbdServerSpec(
            path=path, format=fmt, read_only=read_only, bitmap=bitmap, discard=discard, shallow=shallow
        )
        return await self._servers.start(server_id, spec)

    async def stop_nbd_server(self, server_id: str) -> None:
        await self._servers.stop(server_id)

    # tickets

    async def add_ticket(self, ticket: Mapping[str, Any]) -> None:
        await self._tickets.add(ticket)

    async def get_ticket(self, ticket_id: str) -> Mapping[str, Any] | None:
        return await self._tickets.get(ticket_id)

    async def extend_ticket(self, ticket_id: str, timeout: int) -> None:
        await self._tickets.extend(ticket_id, timeout)

    async def remove_ticket(self, ticket_id: str) -> None:
        await self._tickets.remove(ticket_id)
