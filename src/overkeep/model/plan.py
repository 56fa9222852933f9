# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision what a backup does with each disk of a VM, with its reasons."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from overkeep.errors import OverkeepError
from overkeep.model.inventory import Disk, DiskFormat, Vm, VmStatus
from overkeep.model.points import Mode, RestorePoint


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
    """What is done with one disk; `backing` is the file name of the parent image of an incremental."""

    disk: Disk
    mode: Mode
    reason: str
    backing: str | None = None


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


def plan_backup(
    vm: Vm, last: RestorePoint | None, checkpoints: Collection[str], *, full: bool, spoilt: str = ""
) -> BackupPlan:
    """Decide for each disk of `vm`.

    `last` is the newest committed point of the VM, the only one whose checkpoint may be the base; `checkpoints` are
    those the Manager still has for the VM; `full` is the user's wish; `spoilt` says why nothing may be built on `last`.
    """
    if vm.hosted_engine:
        raise NothingToBackUp(vm=vm.name, reasons="the Manager cannot back up its own VM")
    if vm.status not in (VmStatus.UP, VmStatus.DOWN):
        raise VmNotReady(vm=vm.name, reason=f"its status is {vm.status}")
    left_out = tuple((disk.name, why) for disk in vm.disks if (why := _why_left_out(disk)))
    kept = [disk for disk in vm.disks if not _why_left_out(disk)]
    if not kept:
        reasons = ", ".join(f"{name}: {why}" for name, why in left_out) or "it has no disks"
        raise NothingToBackUp(vm=vm.name, reasons=reasons)
    locked = [disk.name for disk in kept if disk.locked]
    if locked:
        raise VmNotReady(
            vm=vm.name, reason=f"the Manager has locked its disk {', '.join(locked)} for another operation"
        )
    base, why_none = (None, spoilt) if spoilt and not full else _base(last, checkpoints, full=full)
    plans = tuple(_plan_disk(disk, base, why_none) for disk in kept)
    incremental = any(plan.mode is Mode.INCREMENTAL for plan in plans)
    checkpoint = base.checkpoint_id if base and incremental else None
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


def _base(last: RestorePoint | None, checkpoints: Collection[str], *, full: bool) -> tuple[RestorePoint | None, str]:
    if full:
        return None, "a full backup was asked for"
    if last is None:
        return None, "it is the first backup of this VM"
    if last.checkpoint_id is None:
        return None, "the last restore point has no checkpoint"
    if last.checkpoint_id not in checkpoints:
        return None, "the Manager no longer has the checkpoint of the last restore point"
    return last, ""


def _plan_disk(disk: Disk, base: RestorePoint | None, why_no_base: str) -> DiskPlan:
    if disk.format is DiskFormat.RAW:
        return DiskPlan(disk=disk, mode=Mode.FULL, reason="the Manager does not track changes of raw disks")
    if base is None:
        return DiskPlan(disk=disk, mode=Mode.FULL, reason=why_no_base)
    parent = base.image(disk.id)
    if parent is None:
        return DiskPlan(disk=disk, mode=Mode.FULL, reason="the last restore point does not hold this disk")
    if parent.format is DiskFormat.RAW:
        return DiskPlan(
            disk=disk, mode=Mode.FULL, reason="the disk was converted from raw since the last restore point"
        )
    if parent.virtual_size > disk.size:
        return DiskPlan(disk=disk, mode=Mode.FULL, reason="the disk is smaller than in the last restore point")
    return DiskPlan(
        disk=disk,
        mode=Mode.INCREMENTAL,
        reason=f"changes since restore point {base.id}",
        backing=parent.file,
    )
