# SPDX-License-Identifier: GPL-3.0-or-later
"""Orders about backups: start one, finalize one, and what the engine does with them when it starts."""

from __future__ import annotations

import logging
from typing import Literal

from ovirtlab.engine import checkpoints
from ovirtlab.engine.backups import audit, frozen, phases, rules
from ovirtlab.engine.backups.rules import BackupRequest
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import BadRequest, Fault, NotFound, conflict
from ovirtlab.engine.records import Backup
from ovirtlab.engine.state import State
from ovirtlab.host.api import HostError

log = logging.getLogger(__name__)


def get(state: State, vm_id: str, backup_id: str) -> Backup:
    """A backup of this VM, or `NotFound`."""
    backup = state.backups.get(backup_id)
    if backup is None or backup.vm_id != vm_id:
        raise NotFound(backup_id)
    return backup


async def start(context: Context, request: BackupRequest) -> Backup:
    """Begin a backup: live of a running VM, cold of one that is down; it goes on in the background.

    Raises the fault of the first rule that it breaks. A checkpoint that turns out to be broken takes every other of the
    VM with it: the request is refused without a word, and the backup, which is there, has failed a little later.
    """
    state = context.state
    rules.check_busy(state, request)
    rules.check(state, request)
    vm = state.vm(request.vm_id)
    backup = _record(context, vm, request, kind="live" if vm.status == "up" else "cold")
    _lock(state, backup)
    if backup.kind == "live" and not await checkpoints.redefine(context, vm, since=backup.from_checkpoint_id):
        audit.tell(context, backup, audit.FULL_NEEDED)
        audit.tell(context, backup, audit.STARTED)  # which is told of every order that was not refused by a rule
        await phases.release(context, backup)
        context.background.spawn(phases.fail_soon(context, backup), name=f"backup {backup.id}")
        raise BadRequest("[]")
    audit.tell(context, backup, audit.STARTED)
    checkpoints.create(context, backup)
    phases.enter(context, backup, "creating_scratch_disks" if backup.kind == "live" else "adding_bitmaps")
    context.background.spawn(phases.run(context, backup), name=f"backup {backup.id}")
    return backup


async def start_hybrid(context: Context, request: BackupRequest) -> Backup:
    """Begin a backup that reads a snapshot of the disks and leaves the VM unlocked.

    A checkpoint whose bitmap is of no use shows at the transfer only. A snapshot that is refused makes the backup fail,
    and its fault is raised.
    """
    state = context.state
    vm = state.vm(request.vm_id)
    locks = [rules.lock_disks(state, vm)]
    try:
        rules.check_hybrid(state, request)
    except Fault:
        locks[0].release()
        raise
    backup = _record(context, vm, request, kind="hybrid")
    backup.locks, backup.pending_checkpoint_id = locks, state.new_id()
    try:
        frozen.begin(context, vm, backup)
    except Fault:
        frozen.tell_refused(context, backup)
        audit.tell(context, backup, audit.STARTED)
        await phases.fail(context, backup)
        raise
    audit.tell(context, backup, audit.STARTED)
    phases.enter(context, backup, "starting")
    context.background.spawn(phases.run(context, backup), name=f"backup {backup.id}")
    return backup


async def finalize(context: Context, backup: Backup) -> None:
    """Stop a backup; its disks are released a little later.

    Raises `Conflict` while a transfer of it is under way, `BadRequest` when it is over already, when it was not ready
    yet, or when the host cannot stop it; in the last two cases it then fails. A hybrid one is only marked as stopped,
    also before it is ready, and goes on from there at its next poll.
    """
    if any(item.backup_id == backup.id and not item.has_ended for item in context.state.transfers.values()):
        raise conflict("Cannot stop VM backup. There is an active image transfer for VM backup")
    async with backup.guard:
        _check_running(context, backup)
        if backup.kind == "hybrid":
            backup.stopped = True
            audit.tell(context, backup, audit.STOPPED)
            return
        if not await _stop(context, backup):
            audit.tell(context, backup, audit.NOT_FINALIZED)
            phases.enter(context, backup, "finalizing_failure")
            raise BadRequest("[]")
        if backup.phase != "ready":
            text = f"Backup '{backup.id}' is in '{backup.phase.upper()}' phase, premature backup stop was initiated."
            audit.tell(context, backup, audit.NOT_FINALIZED)
            phases.enter(context, backup, "finalizing_failure")
            raise BadRequest(f"[{text}]")
        audit.tell(context, backup, audit.FINALIZED)
        phases.enter(context, backup, "finalizing")


def fail_unmonitored(context: Context) -> None:
    """Mark backups that ran when the engine stopped as failed; locked disks, scratch disks and QEMU's job remain."""
    for backup in context.state.backups.values():
        if backup.phase not in rules.FINISHED:
            for lock in backup.locks:
                lock.release()  # locks lived in the memory of the engine that stopped
            backup.locks.clear()
            backup.abandoned = True
            audit.tell(context, backup, audit.UNMONITORED)
            phases.enter(context, backup, "failed")


async def clear_leftovers(context: Context, vm_id: str) -> None:
    """What an administrator does after an engine was restarted in the middle of a backup: stop it and unlock.

    There is no call for this in the API; `unlock_entity.sh` on the engine's machine and `virsh domjobabort` on the
    host do it in real life.
    """
    for backup in context.state.backups.values():
        if backup.vm_id == vm_id and backup.abandoned:
            backup.abandoned = False
            await _stop(context, backup)
            await phases.release(context, backup)


def _record(context: Context, vm: Vm, request: BackupRequest, *, kind: Literal["live", "cold", "hybrid"]) -> Backup:
    state = context.state
    now = state.clock.now()
    backup = Backup(
        id=request.id or state.new_id(),
        vm_id=vm.id,
        kind=kind,
        creation_date=now,
        modification_date=now,
        description=request.description,
        from_checkpoint_id=request.from_checkpoint_id,
        host_id=vm.host_id if kind == "live" else "",
        modes={disk_id: _mode(state, request, disk_id) for disk_id in request.disk_ids},
        require_consistency=request.require_consistency,
        origin=request.origin,
    )
    state.backups[backup.id] = backup
    return backup


def _mode(state: State, request: BackupRequest, disk_id: str) -> Literal["full", "incremental"]:
    checkpoint = state.checkpoints.get(request.from_checkpoint_id)
    return "incremental" if checkpoint is not None and disk_id in checkpoint.disk_ids else "full"


def _lock(state: State, backup: Backup) -> None:
    vm, disks = ("vm", backup.vm_id), [("disk", disk_id) for disk_id in backup.modes]
    backup.locks = [
        state.locks.take(exclusive=[vm], why=rules.DURING_BACKUP, action=rules.CANNOT),
        state.locks.take(exclusive=disks, why=rules.DISK_LOCKED, action=rules.CANNOT),
    ]
    for disk_id in backup.modes:
        state.disks[disk_id].lock_volumes()


def _check_running(context: Context, backup: Backup) -> None:
    over = backup.phase in rules.FINISHED | phases.FINALIZING
    if not over and not backup.stopped:
        return
    if backup.kind != "hybrid":
        audit.tell(context, backup, audit.NOT_FINALIZED)
    how = f"already in '{backup.phase.upper()}' phase" if over else "already stopped"
    what = f"VM '{backup.vm_id}' backup '{backup.id}'"
    raise BadRequest(f"[{what} is {how}, no need to stop the backup again]")


async def _stop(context: Context, backup: Backup) -> bool:
    """End the job in the VM's QEMU; False when it is not there any more, as after a crash of the VM."""
    if backup.kind != "live":
        return True
    host = context.hosts[backup.host_id]
    alive = host.vm_state(backup.vm_id) != "down"
    try:
        await host.stop_backup(backup.vm_id, backup.id)
    except HostError as error:
        log.info("Backup %s was not stopped on the host: %s", backup.id, error)
        return False
    return alive
