# SPDX-License-Identifier: GPL-3.0-or-later
"""`vms/{vm}/backups` and `vms/{vm}/checkpoints`.

Whoever has the permits may begin a backup, but the engine lets administrators only look at backups and checkpoints, and
looks at one itself before it ends it. So a client needs an administrative role, be it one made for backups.
"""

from __future__ import annotations

from ovirtlab.engine import checkpoints
from ovirtlab.engine.access import sees
from ovirtlab.engine.backups import commands, phases
from ovirtlab.engine.backups.rules import FINISHED, BackupRequest
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Forbidden, NotFound, incomplete
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.locks import Lock
from ovirtlab.engine.records import Backup, Checkpoint, Origin
from ovirtlab.engine.rest.bodies import read_guid
from ovirtlab.engine.rest.disks import show as show_disk
from ovirtlab.engine.rest.documents import API, Collection, Entity, link_to
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import check_unfiltered

PERMIT = "backup_disk"
_HYBRID_SINCE = (4, 7)

routes = Routes()


@routes.get("vms/{vm}/backups")
async def list_backups(call: Call) -> Collection:
    check_unfiltered(call)
    vm = _vm(call)
    found = [show_backup(backup) for backup in call.context.state.backups.values() if backup.vm_id == vm.id]
    return Collection("backups", "backup", found)


@routes.post("vms/{vm}/backups")
async def add_backup(call: Call) -> Created:
    """Start a backup: a hybrid one at newer levels, where the engine is set so and `legacy` is not sent."""
    vm = _vm(call)
    request = _read_request(call, vm)
    _require(call, vm, request.disk_ids)
    settings, level = call.context.state.settings, call.context.state.level_of(vm)
    hybrid = settings.use_hybrid_backup and level >= _HYBRID_SINCE and not call.flag("legacy")
    backup = await (commands.start_hybrid if hybrid else commands.start)(call.context, request)
    check_unfiltered(call)  # the engine looks it up for the answer, when it is under way
    return Created(lambda: show_backup(backup))


@routes.get("vms/{vm}/backups/{backup}")
async def get_backup(call: Call) -> Entity:
    return show_backup(_backup(call))


@routes.get("vms/{vm}/backups/{backup}/disks")
async def list_backup_disks(call: Call) -> Collection:
    """A hybrid one has them from when its snapshot is there."""
    backup = _backup(call)
    disks = call.context.state.disks
    known = backup.modes if backup.kind != "hybrid" or backup.to_checkpoint_id else ()
    found = [_show_disk(call, disks[disk_id], backup) for disk_id in known if disk_id in disks]
    return Collection("disks", "disk", found)


@routes.get("vms/{vm}/backups/{backup}/disks/{disk}")
async def get_backup_disk(call: Call) -> Entity:
    backup, disk_id = _backup(call), call.id("disk")
    if disk_id not in backup.modes:
        raise NotFound(disk_id)
    return _show_disk(call, call.context.state.disk(disk_id), backup)


@routes.action("vms/{vm}/backups/{backup}/finalize")
async def finalize_backup(call: Call) -> Done:
    backup = _backup(call)
    _require(call, call.context.state.vm(backup.vm_id), tuple(backup.modes))
    await commands.finalize(call.context, backup)
    return Done()


@routes.get("vms/{vm}/checkpoints")
async def list_checkpoints(call: Call) -> Collection:
    check_unfiltered(call)
    chain = checkpoints.of_vm(call.context.state, _vm(call).id)
    return Collection("checkpoints", "checkpoint", [show_checkpoint(checkpoint) for checkpoint in chain])


@routes.get("vms/{vm}/checkpoints/{checkpoint}")
async def get_checkpoint(call: Call) -> Entity:
    return show_checkpoint(_checkpoint(call))


@routes.get("vms/{vm}/checkpoints/{checkpoint}/disks")
async def list_checkpoint_disks(call: Call) -> Collection:
    disks = call.context.state.disks
    found = [show_disk(call, disks[disk_id]) for disk_id in _checkpoint(call).disk_ids if disk_id in disks]
    return Collection("disks", "disk", found)


@routes.delete("vms/{vm}/checkpoints/{checkpoint}")
async def remove_checkpoint(call: Call) -> Done:
    """Start the removal; clients poll the list until the checkpoint is gone."""
    checkpoint = _checkpoint(call)
    _require(call, call.context.state.vm(checkpoint.vm_id), checkpoint.disk_ids)
    lock = checkpoints.take_for_removal(call.context.state, checkpoint)
    work = _remove(call.context, checkpoint, lock, origin=read_origin(call))
    call.context.background.undertake(work, name=f"removal of checkpoint {checkpoint.id}")
    return Done()


async def _remove(context: Context, checkpoint: Checkpoint, lock: Lock, *, origin: Origin) -> None:
    with lock:
        await checkpoints.remove(context, checkpoint, origin=origin)


def show_backup(backup: Backup) -> Entity:
    """A backup as the API gives it; disks are a link of their own."""
    return Entity(
        "backup",
        {
            "description": backup.description or None,
            "creation_date": backup.creation_date,
            "modification_date": backup.modification_date,
            "from_checkpoint_id": backup.from_checkpoint_id or None,
            "to_checkpoint_id": backup.to_checkpoint_id or None,
            "phase": phases.shown(backup),
            "host": link_to("host", backup.host_id),
            "snapshot": _snapshot(backup),
            "vm": link_to("vm", backup.vm_id),
        },
        id=backup.id,
        href=f"{API}/vms/{backup.vm_id}/backups/{backup.id}",
        links=["disks"],
    )


def _snapshot(backup: Backup) -> Entity | None:
    """The snapshot of a hybrid backup."""
    return link_to("snapshot", backup.snapshot_id, href=f"vms/{backup.vm_id}/snapshots/{backup.snapshot_id}")


def show_checkpoint(checkpoint: Checkpoint) -> Entity:
    """A checkpoint as the API gives it."""
    return Entity(
        "checkpoint",
        {
            "description": checkpoint.description or None,
            "creation_date": checkpoint.creation_date,
            "parent_id": checkpoint.parent_id or None,
            "state": checkpoint.state,
            "vm": link_to("vm", checkpoint.vm_id),
        },
        id=checkpoint.id,
        href=f"{API}/vms/{checkpoint.vm_id}/checkpoints/{checkpoint.id}",
        links=["disks"],
    )


def _show_disk(call: Call, disk: Disk, backup: Backup) -> Entity:
    """A disk of a backup; its mode is told only while the backup runs."""
    return show_disk(call, disk, backup_mode=None if backup.phase in FINISHED else backup.modes[disk.id])


def read_origin(call: Call) -> Origin:
    """Who sent a request, as events name them."""
    name = Cause(call.user, call.correlation_id).name
    return Origin(user_id=call.user.id, user_name=name, correlation_id=call.correlation_id)


def _read_request(call: Call, vm: Vm) -> BackupRequest:
    ids = tuple(dict.fromkeys(disk.id for disk in call.body.list("disks", "disk") if disk.id))
    if not ids:
        raise incomplete("Backup", "disks", "add")
    since = call.body.text("from_checkpoint_id")
    return BackupRequest(
        vm_id=vm.id,
        disk_ids=ids,
        id=call.body.id or "",
        from_checkpoint_id=read_guid(since) if since else "",
        description=call.body.text("description") or "",
        require_consistency=call.flag("require_consistency"),
        origin=read_origin(call),
    )


def _vm(call: Call) -> Vm:
    vm = call.context.state.vm(call.id("vm"))
    if call.filtered and not sees(call.context.state, call.user, on=("vm", vm.id)):
        raise NotFound(vm.id)
    return vm


def _backup(call: Call) -> Backup:
    check_unfiltered(call)
    return commands.get(call.context.state, _vm(call).id, call.id("backup"))


def _checkpoint(call: Call) -> Checkpoint:
    check_unfiltered(call)
    return checkpoints.get(call.context.state, _vm(call).id, call.id("checkpoint"))


def _require(call: Call, vm: Vm, disk_ids: tuple[str, ...]) -> None:
    """The permit to back up, on the VM and on each of the disks that exist."""
    objects = [("vm", vm.id), *(("disk", disk_id) for disk_id in disk_ids if disk_id in call.context.state.disks)]
    if not all(call.may(PERMIT, on) for on in objects):
        raise Forbidden()
