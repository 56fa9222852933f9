# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs a host has for the engine: what VDSM does, on values, so that the engine runs on real and on fake hosts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ovirtlab.machine.errors import HostError as HostError

VmState = Literal["up", "paused", "down"]
VolumeFormat = Literal["raw", "qcow2"]


DisksOf = Mapping[str, Collection[str]]  # the ids of the disks that a checkpoint covers, by its own


@dataclass(frozen=True, kw_only=True)
class BackingVolume:
    """A volume below the active one of a disk with snapshots."""

    path: Path
    format: VolumeFormat


@dataclass(frozen=True, kw_only=True)
class VmDisk:
    """A disk as a VM is started with: `target` is the name libvirt would give it (vda, vdb, sda).

    `backing` are the volumes below `path`, the newest first. `slot` is where on its bus the guest has the disk, empty
    for the next free place. A `transient` disk is written to by its VM, and nothing of that reaches its volumes.
    """

    disk_id: str
    path: Path
    format: VolumeFormat
    target: str
    read_only: bool = False
    backing: tuple[BackingVolume, ...] = ()
    slot: str = ""
    transient: bool = False


@dataclass(frozen=True, kw_only=True)
class VmDefinition:
    """What a VM is started with.

    `guest`: `none` runs QEMU's block layer only (`-M none`), `linux` boots the small Linux from the first disk.
    `agent` says whether that Linux starts qemu-guest-agent. `clone` names a saved state the VM is resumed from when
    its disks still are the untouched copies that belong to it; the host falls back to a cold boot without it.
    `memory` is a file from `suspend_vm`: the VM goes on where it was, or does not start.
    """

    vm_id: str
    name: str
    memory_mib: int
    disks: tuple[VmDisk, ...]
    guest: Literal["none", "linux"] = "none"
    agent: bool = True
    clone: str = ""
    memory: Path | None = None


@dataclass(frozen=True, kw_only=True)
class BackupDisk:
    """One disk of a live backup; `from_checkpoint` is None for a full of this disk."""

    disk_id: str
    scratch: Path
    from_checkpoint: str | None
    to_checkpoint: str | None  # None for disks that take no checkpoint (raw)


@dataclass(frozen=True, kw_only=True)
class MigrationLimits:
    """`bandwidth` is in bytes a second, 0 for no limit; after `stall` seconds without progress a migration ends."""

    bandwidth: int = 0
    stall: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Departure:
    """What is to be told of a VM that was sent away: whether its guest is up, and for how many ms it did not run."""

    booted: bool
    downtime: int


class Tickets(Protocol):
    """The tickets of an ovirt-imageio that belongs to no host; all raise `HostError`, 409 while operations run."""

    async def add(self, ticket: Mapping[str, Any]) -> None: ...
    async def extend(self, ticket_id: str, timeout: int) -> None: ...
    async def remove(self, ticket_id: str) -> None: ...


class Host(Protocol):
    """One hypervisor. All verbs raise `HostError`."""

    name: str
    id: str
    hw_id: str
    address: str
    imageio_port: int

    # storage: file volumes; any host may do it, as the storage domain is shared
    async def create_volume(self, path: Path, fmt: VolumeFormat, size: int, *, preallocate: bool = False) -> None: ...
    async def delete_volume(self, path: Path) -> None: ...
    async def copy_volume(self, source: Path, sink: Path, fmt: VolumeFormat, *, bitmaps: bool = False) -> None:
        """With `bitmaps` the persistent ones are copied too, qcow2 to qcow2; an inconsistent one fails the copy."""

    async def resize_volume(self, path: Path, fmt: VolumeFormat, size: int) -> None: ...
    async def verify_volume(self, path: Path, fmt: VolumeFormat) -> None:
        """What VDSM's Volume.verify does after an upload: qcow2 with compat 1.1, no backing file."""

    async def create_overlay(
        self, path: Path, backing: Path, fmt: VolumeFormat, *, bitmaps: tuple[str, ...] = ()
    ) -> None:
        """Make an empty qcow2 volume over `backing` of format `fmt`, with `bitmaps` and those valid below it."""

    async def copy_layer(self, source: Path, sink: Path, *, backing: Path, fmt: VolumeFormat) -> None:
        """Copy one qcow2 volume of a chain, without bitmaps, over `backing` of format `fmt`, a copy of those below."""

    async def merge_volumes(self, top: Path, base: Path, fmt: VolumeFormat, *, child: Path | None = None) -> None:
        """Cold merge: write `top` into `base` of format `fmt`, with its bitmaps; `child` is hung on `base`."""

    async def bitmaps(self, path: Path) -> Mapping[str, tuple[str, ...]]:
        """Names of the persistent bitmaps of a volume that no VM uses, with their flags (`auto`, `in-use`)."""

    async def add_bitmap(self, path: Path, name: str) -> None: ...
    async def remove_bitmap(self, path: Path, name: str) -> None:
        """Missing is success."""

    # VMs
    async def start_vm(self, definition: VmDefinition) -> None: ...
    async def stop_vm(self, vm_id: str, *, force: bool) -> None: ...
    def vm_state(self, vm_id: str) -> VmState: ...
    def watch_vms(self, callback: Callable[[str, VmState, str], None]) -> None:
        """Call back with (vm id, new state, reason) on each change that nobody asked for by a verb."""

    async def resume_vm(self, vm_id: str) -> None:
        """Let a VM go on that an I/O error has paused."""

    async def freeze_vm(self, vm_id: str) -> None:
        """Hold the guest's file systems still until `thaw_vm`; `HostError` 19 when no agent answers."""

    async def thaw_vm(self, vm_id: str) -> None: ...
    async def reset_vm(self, vm_id: str) -> None:
        """What the reset button of a machine does: its memory is lost, its disks stay, it starts anew."""

    async def suspend_vm(self, vm_id: str, memory: Path) -> VmDefinition:
        """Write the memory of a running VM to a file and end it; return the VM as it goes on from there.

        On `HostError` it still runs.
        """

    async def make_guest_disks(
        self, disks: tuple[VmDisk, ...], sizes: tuple[int, ...], agent: bool, *, memory_mib: int = 128
    ) -> str:
        """Fill the disks' paths, in their formats and with virtual `sizes`, with the small Linux.

        The first disk holds its system, the others an empty file system each. Return the saved state these copies
        belong to, for `VmDefinition.clone` of a VM with the same memory and choice of an agent.
        """

    async def attach_disk(self, vm_id: str, disk: VmDisk) -> None: ...
    async def detach_disk(self, vm_id: str, disk_id: str) -> None: ...

    # migration of a running VM, in the steps of libvirt; `host.migration` takes them in order
    async def describe_vm(self, vm_id: str) -> VmDefinition:
        """The VM as it runs now, for the host that shall take it over."""

    async def prepare_vm(self, definition: VmDefinition) -> str:
        """Start a QEMU to which a VM of another host may be sent, and return where it waits for it."""

    async def send_vm(
        self, vm_id: str, uri: str, *, limits: MigrationLimits, report: Callable[[int], None]
    ) -> Departure:
        """Copy a VM to another QEMU and stop it here; `report` is told the percentage.

        On `HostError` it still runs here, and must be taken back.
        """

    async def take_over_vm(self, vm_id: str, *, booted: bool, timeout: float) -> None:
        """Let a VM run that was sent here; `HostError` when it has not arrived whole in time."""

    async def take_back_vm(self, vm_id: str) -> None:
        """Let a VM go on that another host did not take over."""

    async def discard_vm(self, vm_id: str) -> None:
        """End what is left here of a VM that runs on another host; nobody is told, and nothing is written."""

    async def cancel_migration(self, vm_id: str) -> None:
        """Let `send_vm` fail; `HostError` when no VM is being sent."""

    # snapshots of a running VM
    async def snapshot_vm(self, vm_id: str, overlays: Mapping[str, Path], *, freeze: bool = True) -> None:
        """Let disks (by id) go on in volumes made by `create_overlay`, all in one moment."""

    async def merge_live(self, vm_id: str, disk_id: str, *, top: Path, base: Path) -> None:
        """Write the volume `top` of a disk into the one below it, which takes its place in the chain."""

    # live backup, as libvirt does it; at most one at a time in a VM
    async def start_backup(
        self, vm_id: str, backup_id: str, disks: tuple[BackupDisk, ...], *, require_consistency: bool
    ) -> Mapping[str, str]:
        """Return the NBD URL of each disk, `nbd:unix:<run dir>/backup/<backup id>:exportname=<target>`."""

    async def stop_backup(self, vm_id: str, backup_id: str) -> None: ...
    async def redefine_checkpoints(self, vm_id: str, checkpoints: DisksOf) -> None:
        """Fail with code 109 when a bitmap of a disk that should have it is missing, broken or inconsistent."""

    async def list_checkpoints(self, vm_id: str) -> frozenset[str]:
        """Those that were made or redefined since the VM was started."""

    async def delete_checkpoint(self, vm_id: str, checkpoint_id: str) -> None: ...

    # NBD servers for everything that is not a live backup
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
        """Run `qemu-nbd` as VDSM does; return `nbd:unix:<run dir>/nbd/<server id>.sock`.

        It shows the whole chain of volumes down from `path`, or that one volume when `shallow`.
        """

    async def stop_nbd_server(self, server_id: str) -> None: ...

    # tickets of this host's ovirt-imageio
    async def add_ticket(self, ticket: Mapping[str, Any]) -> None: ...
    async def get_ticket(self, ticket_id: str) -> Mapping[str, Any] | None: ...
    async def extend_ticket(self, ticket_id: str, timeout: int) -> None: ...
    async def remove_ticket(self, ticket_id: str) -> None:
        """Raise `HostError` with code 409 while operations are still running on it."""
