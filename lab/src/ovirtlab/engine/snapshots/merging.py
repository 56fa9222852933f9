# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots removed: the volume above each frozen one is merged into it, live or cold, disk by disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ovirtlab.engine import jobs
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities import Disk, Vm
from ovirtlab.engine.faults import Fault
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.locks import Lock
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
    """A snapshot that is being removed, of all its disks or some, with what it holds.

    `whole` when the snapshot itself shall go, and not only its `disk_ids`.
    """

    vm: Vm
    snapshot: Snapshot
    disk_ids: tuple[str, ...]
    whole: bool
    lock: Lock
    cause: Cause


def begin(
    context: Context, vm: Vm, snapshot: Snapshot, *, cause: Cause, disk_ids: tuple[str, ...] | None = None
) -> Removal:
    """Check and lock a snapshot for its removal; `run` merges it. `disk_ids` limits that to some disks."""
    rules.check_removal(context, vm, snapshot)
    why = f"Snapshot is currently being removed from VM {vm.name}."
    lock = rules.take(context, vm, why=why, action=rules.REMOVE)
    snapshot.status = "locked"
    wanted = tuple(snapshot.volumes) if disk_ids is None else disk_ids
    whole = disk_ids is None
    started = (_CODES if whole else _CODES_OF_DISKS).started
    audit.tell(context, snapshot, started, cause=cause, disks=_names(context, wanted))
    if vm.status == "down":
        vm.status = "image_locked"
    return Removal(vm=vm, snapshot=snapshot, disk_ids=wanted, whole=whole, lock=lock, cause=cause)


async def run(context: Context, removal: Removal) -> bool:
    """Merge a snapshot away. Disks whose merge fails stay in it as illegal, to be tried again; then False."""
    vm, snapshot = removal.vm, removal.snapshot
    codes = _CODES if removal.whole else _CODES_OF_DISKS
    text = f"Removing Snapshot {snapshot.description} of VM {vm.name}"
    job = jobs.begin(context.state, text, cause=removal.cause, listed=not snapshot.quiet)
    merged: list[str] = []
    with removal.lock:
        try:
            merged = [disk_id for disk_id in removal.disk_ids if await _merge(context, vm, snapshot, disk_id)]
        finally:
            snapshot.status = "ok"
            if vm.status == "image_locked":
                vm.status = "down"
            done = len(merged) == len(removal.disk_ids)
            if done and not snapshot.volumes:
                context.state.snapshots.pop(snapshot.id, None)
            jobs.end(context.state, job, succeeded=done)
    if not done and removal.whole:
        kept = _names(context, sorted(snapshot.illegal))
        audit.tell(context, snapshot, audit.PARTIALLY_REMOVED, cause=removal.cause, disks=kept)
    outcome = codes.removed if done else codes.failed
    audit.tell(context, snapshot, outcome, cause=removal.cause, disks=_names(context, removal.disk_ids))
    return done


def _names(context: Context, disk_ids: Iterable[str]) -> str:
    return ", ".join(context.state.disks[disk_id].alias for disk_id in disk_ids if disk_id in context.state.disks)


async def _merge(context: Context, vm: Vm, snapshot: Snapshot, disk_id: str) -> bool:
    """Merge one disk of a snapshot and forget its frozen volume; False when it is left illegal."""
    disk = context.state.disks.get(disk_id)
    if disk is None:
        snapshot.volumes.pop(disk_id, None)
        return True
    try:
        context.faults.check("merge", vm.id)
        top = await _write_down(context, vm, disk, snapshot.volumes[disk_id].image_id)
    except (HostError, Fault) as error:
        log.info("Snapshot %s of disk %s was not merged: %s", snapshot.id, disk.alias, error)
        snapshot.illegal.add(disk_id)
        return False
    _take_over(context, disk, snapshot, top)
    snapshot.illegal.discard(disk_id)
    try:
        await context.any_host(vm.host_id).delete_volume(disk.path.with_name(top))
    except (HostError, Fault) as error:
        log.info("The merged volume %s of disk %s stays behind: %s", top, disk.alias, error)
    return True


async def _write_down(context: Context, vm: Vm, disk: Disk, base_id: str) -> str:
    """Merge the volume above `base_id` into it, and return the image id of the one merged."""
    ids = [*disk.volumes, disk.image_id]
    place = ids.index(base_id)
    top_id = ids[place + 1]
    top, base = disk.path.with_name(top_id), disk.path.with_name(base_id)
    if vm.host_id:
        await context.host_of(vm).merge_live(vm.id, disk.id, top=top, base=base)
        return top_id
    child = disk.path.with_name(ids[place + 2]) if place + 2 < len(ids) else None
    frozen = volumes.chain(context.state, disk)[place].volume
    await context.any_host().merge_volumes(top, base, format_on_host(frozen.format), child=child)
    return top_id


def _take_over(context: Context, disk: Disk, snapshot: Snapshot, top_id: str) -> None:
    """Let the frozen volume stand where the one merged into it stood."""
    frozen = snapshot.volumes.pop(disk.id)
    if top_id == disk.image_id:
        disk.volumes.remove(frozen.image_id)
        disk.image_id, disk.format = frozen.image_id, frozen.format
        disk.path = disk.path.with_name(disk.image_id)
        return
    newer = volumes.freezer(context.state, disk, top_id)
    disk.volumes.remove(top_id)
    if newer is not None:
        newer.volumes[disk.id] = replace(frozen, size=newer.volumes[disk.id].size)
