# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots removed: the volume above each frozen one is merged into it, live or cold, disk by disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ovirtlab.engine import jobs
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Fault
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.records import Snapshot
from ovirtlab.engine.snapshots import audit, rules, volumes
from ovirtlab.engine.snapshots.volumes import format_on_host
from ovirtlab.host.api import HostError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Codes:
    """The events that tell of a removal."""

    started: int
    removed: int
    failed: int


_CODES = _Codes(started=audit.REMOVAL_STARTED, removed=audit.REMOVED, failed=audit.NOT_REMOVED)
_CODES_OF_DISKS = _Codes(started=audit.DISK_REMOVAL_STARTED, removed=audit.DISK_REMOVED, failed=audit.DISK_NOT_REMOVED)


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A snapshot that is being removed, of all its disks or some, whose volumes are locked meanwhile.

    `whole` when the snapshot itself shall go, and not only its `disk_ids`; `live` when the VM's own QEMU merges.
    """

    vm: Vm
    snapshot: Snapshot
    disk_ids: tuple[str, ...]
    whole: bool
    live: bool
    cause: Cause


def begin(context: Context, vm: Vm, snapshot: Snapshot, *, cause: Cause) -> Removal:
    """Check a snapshot for its removal, and lock it with its disks; `run` merges it. The VM itself is free again."""
    with rules.take(context, vm, action=rules.REMOVE):
        rules.check_no_backup(context, vm, rules.REMOVE)
        return begin_locked(context, vm, snapshot, cause=cause)


def begin_of_backup(context: Context, vm: Vm, snapshot: Snapshot, *, cause: Cause) -> Removal:
    """The same for the snapshot of a hybrid backup, which goes while that is under way."""
    with rules.take(context, vm, action=rules.REMOVE):
        return begin_locked(context, vm, snapshot, cause=cause)


def begin_locked(context: Context, vm: Vm, snapshot: Snapshot, *, cause: Cause) -> Removal:
    """Check a snapshot, and lock it with its disks, for a removal from a VM that its caller has locked."""
    rules.check_removal(context, vm, snapshot)
    snapshot.status = "locked"
    return _begin(context, vm, snapshot, cause, tuple(snapshot.volumes), whole=True)


def begin_disk(context: Context, vm: Vm, snapshot: Snapshot, disk: Disk, *, cause: Cause) -> Removal:
    """Check one disk of a snapshot for its removal, and lock its volumes; the snapshot itself stays as it is."""
    with context.state.locks.take(exclusive=[("disk", disk.id)], why=rules.BUSY, action=rules.REMOVE_DISK):
        rules.check_disk_removal(context, vm, snapshot, disk)
        return _begin(context, vm, snapshot, cause, (disk.id,), whole=False)


def _begin(
    context: Context, vm: Vm, snapshot: Snapshot, cause: Cause, disk_ids: tuple[str, ...], *, whole: bool
) -> Removal:
    for disk in _disks(context, disk_ids):
        disk.lock_volumes()
    started = (_CODES if whole else _CODES_OF_DISKS).started
    audit.tell(context, snapshot, started, cause=cause, disks=_names(context, disk_ids))
    live = rules.merges_live(vm)
    return Removal(vm=vm, snapshot=snapshot, disk_ids=disk_ids, whole=whole, live=live, cause=cause)


async def run(context: Context, removal: Removal) -> bool:
    """Merge a snapshot away. Disks whose merge fails stay in it, to be tried again; then False."""
    snapshot = removal.snapshot
    codes = _CODES if removal.whole else _CODES_OF_DISKS
    text = f"Removing Snapshot {snapshot.description} of VM {removal.vm.name}"
    job = jobs.begin(context.state, text, cause=removal.cause, listed=not snapshot.quiet)
    left = list(removal.disk_ids)
    try:
        left = [disk_id for disk_id in removal.disk_ids if not await _merge(context, removal, disk_id)]
    finally:
        _unlock(context, removal, left)
        jobs.end(context.state, job, succeeded=not left)
    if left and removal.whole:
        audit.tell(context, snapshot, audit.PARTIALLY_REMOVED, cause=removal.cause, disks=_names(context, left))
    outcome = codes.failed if left else codes.removed
    audit.tell(context, snapshot, outcome, cause=removal.cause, disks=_names(context, removal.disk_ids))
    return not left


def _unlock(context: Context, removal: Removal, left: list[str]) -> None:
    for disk in _disks(context, removal.disk_ids):
        disk.unlock_volumes()
    removal.snapshot.merge_failed = bool(left)
    if removal.whole:
        removal.snapshot.status = "ok"
        if not left:
            context.state.snapshots.pop(removal.snapshot.id, None)


def _disks(context: Context, disk_ids: Iterable[str]) -> list[Disk]:
    return [context.state.disks[disk_id] for disk_id in disk_ids if disk_id in context.state.disks]


def _names(context: Context, disk_ids: Iterable[str]) -> str:
    return ", ".join(disk.alias for disk in _disks(context, disk_ids))


async def _merge(context: Context, removal: Removal, disk_id: str) -> bool:
    """Merge one disk of a snapshot and forget its frozen volume; False when it stays, illegal after a live merge."""
    vm, snapshot, disk = removal.vm, removal.snapshot, context.state.disks.get(disk_id)
    if disk is None:
        snapshot.volumes.pop(disk_id, None)
        return True
    base_id = snapshot.volumes[disk_id].image_id
    try:
        context.faults.check("merge", vm.id)
        top = await _write_down(context, removal, disk, base_id)
    except (HostError, Fault) as error:
        log.info("Snapshot %s of disk %s was not merged: %s", snapshot.id, disk.alias, error)
        if removal.live:
            disk.troubled[base_id] = "illegal"
        return False
    _take_over(context, disk, snapshot, top)
    try:
        await context.any_host(vm.host_id).delete_volume(disk.path.with_name(top))
    except (HostError, Fault) as error:
        log.info("The merged volume %s of disk %s stays behind: %s", top, disk.alias, error)
    return True


async def _write_down(context: Context, removal: Removal, disk: Disk, base_id: str) -> str:
    """Merge the volume above `base_id` into it, and return the image id of the one merged."""
    vm = removal.vm
    ids = [*disk.volumes, disk.image_id]
    place = ids.index(base_id)
    top_id = ids[place + 1]
    top, base = disk.path.with_name(top_id), disk.path.with_name(base_id)
    if removal.live:
        await context.host_of(vm).merge_live(vm.id, disk.id, top=top, base=base)
        return top_id
    child = disk.path.with_name(ids[place + 2]) if place + 2 < len(ids) else None
    frozen = volumes.chain(context.state, disk)[place].volume
    await context.any_host().merge_volumes(top, base, format_on_host(frozen.format), child=child)
    return top_id


def _take_over(context: Context, disk: Disk, snapshot: Snapshot, top_id: str) -> None:
    """Let the frozen volume stand, unlocked, where the one merged into it stood."""
    frozen = snapshot.volumes.pop(disk.id)
    disk.troubled.pop(frozen.image_id, None)
    disk.troubled.pop(top_id, None)
    if top_id == disk.image_id:
        volumes.go_back(disk, frozen)
        disk.status = "ok"
        disk.backup = disk.backup if disk.format == "cow" else "none"
        return
    newer = volumes.freezer(context.state, disk, top_id)
    disk.volumes.remove(top_id)
    if newer is not None:
        newer.volumes[disk.id] = replace(frozen, size=newer.volumes[disk.id].size)
