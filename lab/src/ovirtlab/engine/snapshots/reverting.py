# SPDX-License-Identifier: GPL-3.0-or-later
"""Going back to a snapshot: a preview in new volumes over the frozen ones, committed, undone, or both at once.

Only the disks go back; the settings of the VM stay as they are. As in the engine, a preview may end while the VM runs
in it: after `commit` the VM goes on, after `undo` its QEMU writes to volumes that are there no more.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

from ovirtlab.engine import checkpoints, jobs
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Fault
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.records import FrozenVolume, Snapshot, StashedDisk
from ovirtlab.engine.snapshots import audit, rules, volumes
from ovirtlab.engine.snapshots.volumes import format_on_host
from ovirtlab.host.api import HostError

log = logging.getLogger(__name__)

_BEFORE = "Active VM before the preview"


def lock_for_preview(context: Context, vm: Vm, snapshot: Snapshot) -> None:
    """Check a VM that shall go back to a snapshot, by `preview` or `restore`; its images are locked from then on."""
    with rules.take(context, vm, action=rules.PREVIEW):
        rules.check_preview(context, vm, snapshot)
        vm.status = "image_locked"


def lock_for_end(context: Context, vm: Vm, *, final: bool) -> None:
    """Check a VM whose preview shall end, by `commit`, which is `final`, or by `undo`; its images are locked then."""
    with rules.take(context, vm, action=rules.REVERT):
        rules.check_preview_ends(context, vm)
        if final:
            rules.check_not_elsewhere(context, rules.REVERT, vm.attachments)
        if vm.status != "suspended":
            vm.status = "image_locked"


async def preview(context: Context, vm: Vm, snapshot: Snapshot, *, cause: Cause) -> None:
    """Let the disks of a snapshot go on from it; what they were until now is put aside. Unlocks the VM."""
    with jobs.job(context.state, f"Preview VM {vm.name} Snapshot {snapshot.description}", cause=cause):
        await _go_back(context, vm, snapshot, cause)
        vm.status = "down"


async def commit(context: Context, vm: Vm, *, cause: Cause) -> None:
    """Make a preview final: what was put aside goes, with the snapshots in it and all checkpoints."""
    with jobs.job(context.state, f"Restoring VM {vm.name} from Snapshot", cause=cause):
        await _settle(context, vm, cause)
        _unlock(vm)


async def restore(context: Context, vm: Vm, snapshot: Snapshot, *, cause: Cause) -> None:
    """Go back to a snapshot for good."""
    with jobs.job(context.state, f"Restoring VM {vm.name} from Snapshot {snapshot.description}", cause=cause):
        if await _go_back(context, vm, snapshot, cause):
            await _settle(context, vm, cause)
        vm.status = "down"


async def undo(context: Context, vm: Vm, *, cause: Cause) -> None:
    """End a preview: the disks are again what they were before it."""
    with jobs.job(context.state, f"Undoing Snapshot Preview for VM {vm.name}", cause=cause):
        before = _end_preview(context, vm)
        if before is not None:
            audit.tell(context, before, audit.UNDO_STARTED, cause=cause)
            for disk_id, stashed in before.stash.items():
                disk = context.state.disks[disk_id]
                await _delete(context, disk, [disk.image_id])
                _set_active(disk, stashed.active, stashed.volumes)
            audit.tell(context, before, audit.UNDONE, cause=cause)
        _unlock(vm)


def _unlock(vm: Vm) -> None:
    """Down, until the engine hears of its host that it is up."""
    if vm.status == "image_locked":
        vm.status = "up" if vm.host_id else "down"


async def _go_back(context: Context, vm: Vm, snapshot: Snapshot, cause: Cause) -> bool:
    """Put new volumes over the frozen ones; False, and nothing changed, when the host fails."""
    state = context.state
    audit.tell(context, snapshot, audit.PREVIEW_STARTED, cause=cause)
    disks = list(volumes.frozen_by(state, snapshot))
    before = _put_aside(context, vm, disks)
    new_ids = {disk.id: state.new_id() for disk in disks}
    try:
        async with AsyncExitStack() as made:
            host = context.any_host()
            for disk in disks:
                frozen = snapshot.volumes[disk.id]
                path, base = disk.path.with_name(new_ids[disk.id]), disk.path.with_name(frozen.image_id)
                await host.create_overlay(path, base, format_on_host(frozen.format))
                made.push_async_callback(host.delete_volume, path)
            made.pop_all()
    except (HostError, Fault) as error:
        log.info("VM %s does not go back to snapshot %s: %s", vm.name, snapshot.id, error)
        del state.snapshots[before.id]
        audit.tell(context, snapshot, audit.NOT_PREVIEWED, cause=cause)
        return False
    for disk in disks:
        frozen = snapshot.volumes[disk.id]
        kept = disk.volumes[: disk.volumes.index(frozen.image_id) + 1]
        new = FrozenVolume(image_id=new_ids[disk.id], format="cow", size=frozen.size)
        _set_active(disk, new, tuple(kept))
    before.status, snapshot.status = "ok", "in_preview"
    audit.tell(context, snapshot, audit.PREVIEWED, cause=cause)
    return True


def _put_aside(context: Context, vm: Vm, disks: list[Disk]) -> Snapshot:
    """Record what the disks of a VM are before a preview; locked as long as that is made."""
    before = Snapshot(
        id=context.state.new_id(),
        vm_id=vm.id,
        description=_BEFORE,
        date=context.clock.now(),
        status="locked",
        type="preview",
        stash={disk.id: StashedDisk(active=volumes.active(disk), volumes=tuple(disk.volumes)) for disk in disks},
    )
    context.state.snapshots[before.id] = before
    return before


async def _settle(context: Context, vm: Vm, cause: Cause) -> None:
    before = _end_preview(context, vm)
    if before is None:
        return
    audit.tell(context, before, audit.COMMIT_STARTED, cause=cause)
    for disk_id, stashed in before.stash.items():
        disk = context.state.disks[disk_id]
        gone = [image_id for image_id in stashed.volumes if image_id not in disk.volumes]
        _forget(context, vm, disk, gone)
        await _delete(context, disk, [*gone, stashed.active.image_id])
    await checkpoints.drop_all(context, vm)
    audit.tell(context, before, audit.COMMITTED, cause=cause)


def _forget(context: Context, vm: Vm, disk: Disk, gone: list[str]) -> None:
    """Take volumes of a disk out of the snapshots that have frozen them; a snapshot without any goes with them."""
    for image_id in gone:
        disk.troubled.pop(image_id, None)
    for snapshot in volumes.of_vm(context.state, vm.id):
        frozen = snapshot.volumes.get(disk.id)
        if frozen is not None and frozen.image_id in gone:
            del snapshot.volumes[disk.id]
            if not snapshot.volumes:
                del context.state.snapshots[snapshot.id]


def _end_preview(context: Context, vm: Vm) -> Snapshot | None:
    """Let the VM be in no preview any more, and return what was put aside for it."""
    before = rules.preview_of(context, vm)
    if before is not None:
        del context.state.snapshots[before.id]
    for snapshot in volumes.of_vm(context.state, vm.id):
        if snapshot.status == "in_preview":
            snapshot.status = "ok"
    return before


def _set_active(disk: Disk, volume: FrozenVolume, below: tuple[str, ...]) -> None:
    disk.image_id, disk.format, disk.sparse = volume.image_id, volume.format, volume.sparse
    disk.path, disk.volumes = disk.path.with_name(volume.image_id), list(below)
    disk.provisioned_size = volume.size


async def _delete(context: Context, disk: Disk, image_ids: list[str]) -> None:
    for image_id in image_ids:
        try:
            await context.any_host().delete_volume(disk.path.with_name(image_id))
        except (HostError, Fault) as error:
            log.info("Volume %s of disk %s stays behind: %s", image_id, disk.alias, error)
