# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain of volumes of a disk: which there are, in which format and size, and what hosts are told of them.

`Disk.image_id` is the active volume and `Disk.volumes` are those below it; each of these was frozen by a snapshot,
whose record has its format and size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ovirtlab.engine.entities.disks import Disk, DiskFormat
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
        return "locked" if self.in_use else self.disk.troubled.get(self.volume.image_id, "ok")


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
    return [*found, DiskSnapshot(disk=disk, volume=active(disk), parent_id=parent, snapshot=None)]


def active(disk: Disk) -> FrozenVolume:
    """The volume of a disk that is written to, as it would be frozen now."""
    return FrozenVolume(image_id=disk.image_id, format=disk.format, size=disk.provisioned_size, sparse=disk.sparse)


def go_on(disk: Disk, image_id: str) -> None:
    """Let a disk go on in a new volume over the one it has."""
    disk.volumes.append(disk.image_id)
    _use(disk, FrozenVolume(image_id=image_id, format="cow", size=disk.provisioned_size))


def go_back(disk: Disk, frozen: FrozenVolume) -> None:
    """Let a disk be again in the volume below its active one, of the size that it has now."""
    disk.volumes.remove(frozen.image_id)
    _use(disk, frozen)


def _use(disk: Disk, volume: FrozenVolume) -> None:
    disk.image_id, disk.format, disk.sparse = volume.image_id, volume.format, volume.sparse
    disk.path = disk.path.with_name(volume.image_id)


def all_of(state: State, disk: Disk) -> set[str]:
    """The image ids of all volumes of a disk, with those that a preview has put aside."""
    found = {*disk.volumes, disk.image_id}
    for snapshot in state.snapshots.values():
        if disk.id in snapshot.stash:
            stashed = snapshot.stash[disk.id]
            found |= {*stashed.volumes, stashed.active.image_id}
    return found


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


def frozen_by(state: State, snapshot: Snapshot) -> Iterator[Disk]:
    """The disks of a snapshot that still exist."""
    return (state.disks[disk_id] for disk_id in snapshot.volumes if disk_id in state.disks)


def is_illegal(snapshot: Snapshot, disk: Disk) -> bool:
    """Whether a live merge of a disk has failed and left what the snapshot has frozen of it illegal."""
    return disk.troubled.get(snapshot.volumes[disk.id].image_id) == "illegal"


def status_in(state: State, snapshot: Snapshot, disk: Disk) -> str:
    """The status of what a snapshot has frozen of a disk, and of the disk itself when that is not in it."""
    frozen = snapshot.volumes.get(disk.id)
    found = find(state, disk, frozen.image_id) if frozen is not None else None
    return found.status if found is not None else disk.status


def in_removal(state: State, snapshot: Snapshot) -> list[DiskSnapshot]:
    """What a removal of a snapshot changes: the volumes above those it has frozen, then these themselves."""
    above, frozen = [], []
    for disk in frozen_by(state, snapshot):
        found = chain(state, disk)
        place = next(index for index, item in enumerate(found) if item.snapshot is snapshot)
        above += found[place + 1 : place + 2]
        frozen.append(found[place])
    return [*above, *frozen]


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
