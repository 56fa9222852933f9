# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine refuses when a backup is asked for, in the order in which it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Conflict, Fault, conflict, invalid
from ovirtlab.engine.locks import Key, Lock
from ovirtlab.engine.records import Backup, Origin
from ovirtlab.engine.state import State

CANNOT = "Cannot backup VM"
DURING_BACKUP = "The VM is during a backup operation."
DISK_LOCKED = "Disk is locked. Please try again later."
LONGEST_DESCRIPTION = 1024
FINISHED = frozenset({"succeeded", "failed"})
_INCREMENTAL_SINCE = (4, 4)
_BITMAPS_SINCE = (4, 5)
_HOSTED_ENGINE = frozenset({"hosted_engine", "managed_hosted_engine"})


@dataclass(frozen=True, kw_only=True)
class BackupRequest:
    """What a client asks for; `id` is empty when the engine is to choose one."""

    vm_id: str
    disk_ids: tuple[str, ...]
    origin: Origin
    id: str = ""
    from_checkpoint_id: str = ""
    description: str = ""
    require_consistency: bool = False


Rule = Callable[[State, BackupRequest, Vm], Fault | None]


def running(state: State, vm_id: str) -> Backup | None:
    """The backup of a VM that has not ended, if there is one."""
    return next((b for b in state.backups.values() if b.vm_id == vm_id and b.phase not in FINISHED), None)


def check_busy(state: State, request: BackupRequest) -> None:
    """Refuse a VM or a disk that something else holds; the engine takes its locks before it validates."""
    vm: Key = ("vm", request.vm_id)
    holder = state.locks.holder([vm]) or state.locks.holder([("disk", disk_id) for disk_id in request.disk_ids])
    if holder is not None:
        raise conflict(holder.refusal(CANNOT))


def check(state: State, request: BackupRequest) -> None:
    """Raise the first refusal that applies."""
    _check(state, request, _RULES)


def _check(state: State, request: BackupRequest, wanted: tuple[Rule, ...]) -> None:
    vm = state.vm(request.vm_id)
    for rule in wanted:
        fault = rule(state, request, vm)
        if fault is not None:
            raise fault


def check_hybrid(state: State, request: BackupRequest) -> None:
    """Raise what a hybrid backup is refused for; its snapshot looks at locked disks itself."""
    _check(state, request, tuple(rule for rule in _RULES if rule is not _disks_locked))


def lock_disks(state: State, vm: Vm) -> Lock:
    """What a hybrid backup holds from its first moment to its last: all disks of the VM, and not the VM."""
    ours = [("disk", disk.id) for disk in state.disks_of(vm) if not disk.shareable]
    return state.locks.take(exclusive=ours, why=DISK_LOCKED, action=CANNOT)


def _hosted_engine(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    if vm.origin in _HOSTED_ENGINE:
        return conflict(f"{CANNOT}. Backup of Hosted Engine VM is not supported")
    return None


def _disks_missing(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    missing = [disk_id for disk_id in request.disk_ids if disk_id not in state.disks]
    if missing:
        return invalid(f"{CANNOT}. The following disk(s) ID(s) does not exist: {', '.join(missing)}.")
    return None


def _disks_locked(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    return locked_disks(state, request.disk_ids, action=CANNOT)


def _disks_inactive(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    inactive = [
        disk_id for disk_id in request.disk_ids if disk_id not in vm.attachments or not vm.attachments[disk_id].active
    ]
    if inactive:
        return conflict(f"{CANNOT}. The following disks are not active on VM {vm.name}: {', '.join(inactive)}")
    return None


def _checkpoint_unusable(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    checkpoint_id = request.from_checkpoint_id
    if not checkpoint_id:
        return None
    if state.level_of(vm) < _INCREMENTAL_SINCE:
        return invalid(f"{CANNOT}. Incremental backup is not supported.")
    checkpoint = state.checkpoints.get(checkpoint_id)
    if checkpoint is None:
        return invalid(f"{CANNOT}. Checkpoint ID {checkpoint_id} doesn't exist.")
    if checkpoint.state == "invalid":
        return invalid(f"{CANNOT}. Checkpoint ID {checkpoint_id} is invalid and should be removed.")
    if state.level_of(vm) < _BITMAPS_SINCE:
        return _mixture(state, request, checkpoint.disk_ids)
    return None


def _mixture(state: State, request: BackupRequest, covered: tuple[str, ...]) -> Fault | None:
    disabled = [disk_id for disk_id in request.disk_ids if state.disks[disk_id].backup != "incremental"]
    if disabled:
        names = ", ".join(disabled)
        return conflict(f"{CANNOT}. Incremental backup is disabled for the following disks: {names}.")
    fresh = [disk_id for disk_id in request.disk_ids if disk_id not in covered]
    if fresh:
        return invalid(
            f"{CANNOT}. The following disks are not included in the previous VM backup: [{', '.join(fresh)}]\n"
            "Please use a full VM backup for all the VM disks."
        )
    return None


def _wrong_status(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    if vm.status not in ("up", "down"):
        return conflict(f"{CANNOT}. The Virtual Machine should be in Up or Down status.")
    return None


def _in_preview(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    if any(snapshot.vm_id == vm.id and snapshot.type == "preview" for snapshot in state.snapshots.values()):
        return conflict(f"{CANNOT}. VM is previewing a Snapshot.")
    return None


def _host_unable(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    if vm.status != "up":
        return None
    name = state.host(vm.host_id).name
    if vm.host_id in state.settings.outdated_hosts:
        return conflict(
            f"{CANNOT}. Host ({name}) is running on a version lower than 4.4.5. "
            "Please upgrade the host in order to use incremental backup."
        )
    if vm.host_id in state.settings.hosts_without_backup:
        return conflict(f"{CANNOT}. Backup is not supported by the host ({name}).")
    return None


def _cold_impossible(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    if vm.status == "up":
        return None
    if state.level_of(vm) < _INCREMENTAL_SINCE:
        return invalid(f"{CANNOT}. Incremental backup is not supported.")
    if state.level_of(vm) < _BITMAPS_SINCE:
        return conflict(f"{CANNOT}. Bitmaps operations are not supported.")
    return None


def _during_backup(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    return conflict(f"{CANNOT}. {DURING_BACKUP}") if running(state, vm.id) else None


def _description_too_long(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    if len(request.description) > LONGEST_DESCRIPTION:
        return invalid(f"{CANNOT}. The VM backup description shouldn't contain more than 1024 characters.")
    return None


def _id_taken(state: State, request: BackupRequest, vm: Vm) -> Fault | None:
    if request.id and request.id in state.backups:
        return invalid(f"{CANNOT}. The specified VM backup ID {request.id} already exists.")
    return None


def locked_disks(state: State, disk_ids: tuple[str, ...], *, action: str) -> Conflict | None:
    """The refusal for disks whose status is locked."""
    aliases = [state.disks[disk_id].alias for disk_id in disk_ids if state.disks[disk_id].status == "locked"]
    if not aliases:
        return None
    return conflict(
        f"{action}: The following disks are locked: {', '.join(aliases)}. Please try again in a few minutes."
    )


_RULES: tuple[Rule, ...] = (
    _hosted_engine,
    _disks_missing,
    _disks_locked,
    _disks_inactive,
    _checkpoint_unusable,
    _wrong_status,
    _in_preview,
    _host_unable,
    _cold_impossible,
    _during_backup,
    _description_too_long,
    _id_taken,
)
