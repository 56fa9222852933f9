# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision what a backup does with each disk of a VM, with its reasons."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from overkeep.errors import OverkeepError
from overkeep.model.inventory import Disk, DiskFormat, Vm, VmStatus
from overkeep.model.points import Changes, DiskImage, Mode, RestorePoint
from overkeep.model.selection import leaves_out


class NothingToBackUp(OverkeepError):
    """The VM has no disk that can be backed up."""

    code = "nothing-to-back-up"
    template = (
        "VM {vm!r} has no disk that can be backed up ({reasons}); "
        "attach or activate a disk, or take it out of the workload."
    )
    status = 409


class VmNotReady(OverkeepError):
    """The VM is in a state in which the Manager refuses a backup."""

    code = "vm-not-ready"
    template = "VM {vm!r} cannot be backed up now: {reason}; wait until that has ended and try again."
    retry = True
    status = 409


@dataclass(frozen=True, kw_only=True)
class DiskPlan:
    """What is done with one disk.

    `backing` is the file name of the parent image of an incremental, `since_full` the number of incrementals with it.
    """

    disk: Disk
    changes: Changes
    reason: str
    backing: str | None = None
    since_full: int | None = None

    @property
    def mode(self) -> Mode:
        """Full when all of the disk is kept."""
        return Mode.FULL if self.changes is Changes.ALL else Mode.INCREMENTAL


@dataclass(frozen=True, kw_only=True)
class BackupPlan:
    """What is done with one VM."""

    vm: Vm
    disks: tuple[DiskPlan, ...]
    left_out: tuple[tuple[str, str], ...]  # (disk name, reason)
    from_checkpoint: str | None

    @property
    def mode(self) -> Mode:
        """Incremental as soon as one disk is."""
        modes = {plan.mode for plan in self.disks}
        return Mode.INCREMENTAL if Mode.INCREMENTAL in modes else Mode.FULL


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a backup of a VM may build on.

    `last` is the newest committed point of the VM, the only one whose checkpoint may be the base; `checkpoints` are
    those the Manager still has for the VM. `spoilt` says, by disk, why nothing may be built on its image of `last`;
    `untracked` says why the Manager's changes may not be used, empty when they may.
    """

    last: RestorePoint | None
    checkpoints: Collection[str]
    spoilt: Mapping[str, str] = field(default_factory=dict)
    untracked: str = ""


def plan_backup(vm: Vm, basis: Basis, *, full: bool, without: Sequence[str] = ()) -> BackupPlan:
    """Decide for each disk of `vm`; `full` is the user's wish, `without` patterns `[VM:]DISK` of disks left out.

    Raises `NothingToBackUp` or `VmNotReady`.
    """
    if vm.hosted_engine:
        raise NothingToBackUp(vm=vm.name, reasons="the Manager cannot back up its own VM")
    if vm.status not in (VmStatus.UP, VmStatus.DOWN):
        raise VmNotReady(vm=vm.name, reason=f"its status is {vm.status}")
    reasons = {disk.id: _why_left_out(disk) or _why_unwanted(vm, disk, without) for disk in vm.disks}
    left_out = tuple((disk.name, reasons[disk.id]) for disk in vm.disks if reasons[disk.id])
    kept = [disk for disk in vm.disks if not reasons[disk.id]]
    if not kept:
        told = ", ".join(f"{name}: {why}" for name, why in left_out) or "it has no disks"
        raise NothingToBackUp(vm=vm.name, reasons=told)
    locked = [disk.name for disk in kept if disk.locked]
    if locked:
        raise VmNotReady(
            vm=vm.name, reason=f"the Manager has locked its disk {', '.join(locked)} for another operation"
        )
    plans = tuple(_plan_disk(disk, basis, full=full) for disk in kept)
    tracked = any(plan.changes is Changes.TRACKED for plan in plans)
    checkpoint = basis.last.checkpoint_id if basis.last and tracked else None
    return BackupPlan(vm=vm, disks=plans, left_out=left_out, from_checkpoint=checkpoint)


def _why_left_out(disk: Disk) -> str:
    if disk.storage != "image":
        return f"a {disk.storage} disk is not an image the Manager can back up"
    if disk.shareable:
        return "it is shared between VMs"
    if disk.transient:
        return "it is transient"
    if not disk.active:
        return "it is not active"
    return ""


def _why_unwanted(vm: Vm, disk: Disk, without: Sequence[str]) -> str:
    return "the workload leaves it out" if leaves_out(without, vm.name, disk) else ""


def compared(plan: DiskPlan, why: str) -> DiskPlan:
    """The plan for a disk whose changes nobody tells, because of `why`: it is read whole, and what differs is kept."""
    return replace(plan, changes=Changes.COMPARED, reason=f"{why}, so it is compared with the last restore point")


def _plan_disk(disk: Disk, basis: Basis, *, full: bool) -> DiskPlan:
    parent = basis.last.image(disk.id) if basis.last else None
    if why := _why_full(disk, basis, full=full):
        return DiskPlan(disk=disk, changes=Changes.ALL, reason=why)
    if basis.last is None or parent is None:
        return DiskPlan(disk=disk, changes=Changes.ALL, reason="the last restore point does not hold this disk")
    reason = f"changes since restore point {basis.last.id}"
    since = None if parent.since_full is None else parent.since_full + 1
    plan = DiskPlan(disk=disk, changes=Changes.TRACKED, reason=reason, backing=parent.file, since_full=since)
    why = _why_unknown(disk, parent) or _why_untracked(basis.last, basis)
    return compared(plan, why) if why else plan


def _why_full(disk: Disk, basis: Basis, *, full: bool) -> str:
    if full:
        return "a full backup was asked for"
    if basis.last is None:
        return "it is the first backup of this VM"
    return basis.spoilt.get(disk.id, "")


def _why_unknown(disk: Disk, parent: DiskImage) -> str:
    """Why the Manager cannot know what changed of this disk."""
    if disk.format is DiskFormat.RAW:
        return "the Manager does not track changes of raw disks"
    if parent.format is DiskFormat.RAW:
        return "the disk was converted from raw since the last restore point"
    if parent.virtual_size > disk.size:
        return "the disk is smaller than in the last restore point"
    return ""


def _why_untracked(last: RestorePoint, basis: Basis) -> str:
    """Why the changes since `last` are not known of any disk."""
    if basis.untracked:
        return basis.untracked
    if last.checkpoint_id is None:
        return "the last restore point has no checkpoint"
    if last.checkpoint_id not in basis.checkpoints:
        return "the Manager no longer has the checkpoint of the last restore point"
    return ""
