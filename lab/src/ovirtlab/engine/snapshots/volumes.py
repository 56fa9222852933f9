# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain of volumes of a disk: which there are, in which format and size, and what hosts are told of them.

`Disk.image_id` is the active volume and `Disk.volumes` are those below it; each of these was frozen by a snapshot,
whose record has its format and size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ovirtlab.engine.entities import Disk, DiskFormat
from ovirtlab.engine.records import FrozenVolume, Snapshot
from ovirtlab.engine.state import State
from ovirtlab.host.api import BackingVolume, VolumeFormat


@dataclass(frozen=True, kw_only=True)
class DiskSnapshot:
    """A volume of a disk as the API lists it; `snapshot` is None for the active one, `in_use` tells of a transfer."""

    disk: Disk
    volume: FrozenVolume
    parent_id: str
    snapshot: Snapshot | None
    in_use: bool = False

    @property
    def path(self) -> Path:
        return self.disk.path.with_name(self.volume.image_id)

    @property
    def status(self) -> str:
        """As clients see it."""
        if self.snapshot is None:
            return self.disk.status
        if self.in_use or self.snapshot.status == "locked":
            return "locked"
        return "illegal" if self.disk.id in self.snapshot.illegal else "ok"


def chain(state: State, disk: Disk) -> list[DiskSnapshot]:
    """All volumes of a disk, the oldest first and the active one last."""
    found, parent = [], ""
    transferred = {item.image_id for item in state.transfers.values() if item.image_locked}
    for image_id in disk.volumes:
        snapshot = freezer(state, disk, image_id)
        if snapshot is not None:
            volume = snapshot.volumes[disk.id]
            in_use = image_id in transferred
            found.append(DiskSnapshot(disk=disk, volume=volume, parent_id=parent, snapshot=snapshot, in_use=in_use))
            parent = image_id
    active = FrozenVolume(image_id=disk.image_id, format=disk.format, size=disk.provisioned_size)
    return [*found, DiskSnapshot(disk=disk, volume=active, parent_id=parent, snapshot=None)]


def find(state: State, disk: Disk, image_id: str) -> DiskSnapshot | None:
    """A volume of a disk by its image id."""
    return next((item for item in chain(state, disk) if item.volume.image_id == image_id), None)


def freezer(state: State, disk: Disk, image_id: str) -> Snapshot | None:
    """The snapshot that has frozen a volume."""
    for snapshot in state.snapshots.values():
        volume = snapshot.volumes.get(disk.id)
        if volume is not None and volume.image_id == image_id:
            return snapshot
    return None


def of_vm(state: State, vm_id: str) -> list[Snapshot]:
    """The snapshots of a VM without its active one, the oldest first."""
    return [snapshot for snapshot in state.snapshots.values() if snapshot.vm_id == vm_id]


def illegal_disks(state: State, vm_id: str) -> Iterator[Disk]:
    """Disks of a VM with a volume that a failed merge has left behind."""
    for disk_id in {disk_id for snapshot in of_vm(state, vm_id) for disk_id in snapshot.illegal}:
        if disk_id in state.disks:
            yield state.disks[disk_id]


def backing(state: State, disk: Disk, image_id: str = "") -> tuple[BackingVolume, ...]:
    """The volumes below one of a disk, or its active one, as a host is told of them, the newest first."""
    volumes = chain(state, disk)
    place = [item.volume.image_id for item in volumes].index(image_id or disk.image_id)
    return tuple(
        BackingVolume(path=item.path, format=format_on_host(item.volume.format)) for item in reversed(volumes[:place])
    )


def attached_elsewhere(state: State, disk_ids: Iterable[str]) -> list[str]:
    """Where snapshots of disks hang on VMs: `alias ,description, name of the VM`."""
    wanted = set(disk_ids)
    return [
        f"{state.disks[item.disk_id].alias} ,{state.snapshots[item.snapshot_id].description}, {vm.name}"
        for vm in state.vms.values()
        for item in vm.snapshot_disks.values()
        if item.disk_id in wanted
    ]


def format_on_host(fmt: DiskFormat) -> VolumeFormat:
    return "qcow2" if fmt == "cow" else "raw"
