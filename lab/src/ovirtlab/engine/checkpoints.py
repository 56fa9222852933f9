# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of a VM: points in time since which its qcow2 disks remember what was written."""

from __future__ import annotations

import logging
from pathlib import Path

from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Conflict, NotFound, conflict
from ovirtlab.engine.locks import Lock
from ovirtlab.engine.records import Backup, Checkpoint, Origin
from ovirtlab.engine.state import State
from ovirtlab.host.api import Host, HostError

log = logging.getLogger(__name__)

CANNOT = "Cannot remove checkpoint"
_DELETED = 10797
_NOT_DELETED = 10798
_ONE_SINCE = (4, 6)
_ALIVE = frozenset({"up", "paused", "powering_up", "reboot_in_progress"})


def of_vm(state: State, vm_id: str) -> list[Checkpoint]:
    """The checkpoints of a VM, the oldest (root) first."""
    return [checkpoint for checkpoint in state.checkpoints.values() if checkpoint.vm_id == vm_id]


def get(state: State, vm_id: str, checkpoint_id: str) -> Checkpoint:
    """A checkpoint of this VM, or `NotFound`."""
    checkpoint = state.checkpoints.get(checkpoint_id)
    if checkpoint is None or checkpoint.vm_id != vm_id:
        raise NotFound(checkpoint_id)
    return checkpoint


def create(context: Context, backup: Backup) -> None:
    """Make the checkpoint of a backup, over its qcow2 disks; a live or cold one of raw disks alone makes none."""
    state = context.state
    disk_ids = tuple(disk_id for disk_id in backup.modes if _records(state, backup, disk_id))
    if not disk_ids and backup.kind != "hybrid":
        return
    chain = of_vm(state, backup.vm_id)
    checkpoint = Checkpoint(
        id=backup.pending_checkpoint_id or state.new_id(),
        vm_id=backup.vm_id,
        creation_date=state.clock.now(),
        parent_id=chain[-1].id if chain else "",
        description=backup.description,
        disk_ids=disk_ids,
    )
    state.checkpoints[checkpoint.id] = checkpoint
    backup.pending_checkpoint_id = checkpoint.id


def _records(state: State, backup: Backup, disk_id: str) -> bool:
    """Whether the volume that a backup reads is qcow2, and so remembers what is written from now on."""
    snapshot = state.snapshots.get(backup.snapshot_id)
    volume = snapshot.volumes.get(disk_id) if snapshot is not None else None
    return (volume or state.disks[disk_id]).format == "cow"


def forget(state: State, checkpoint_id: str) -> None:
    """Take a checkpoint out of the chain: its child is hung on its parent. Bitmaps stay as they are."""
    gone = state.checkpoints.pop(checkpoint_id, None)
    if gone is None:
        return
    for checkpoint in of_vm(state, gone.vm_id):
        if checkpoint.parent_id == gone.id:
            checkpoint.parent_id = gone.parent_id


async def redefine(context: Context, vm: Vm, *, since: str) -> bool:
    """Tell the host of a running VM which checkpoints there are; False, and no checkpoint left, when one is broken.

    From level 4.6 on only the checkpoint a backup starts from is told (`since`, empty for none), before that all are.
    Of a host that does not even tell which it knows it is False, too, and the checkpoints stay.
    """
    state = context.state
    wanted = {
        checkpoint.id: [disk_id for disk_id in checkpoint.disk_ids if disk_id in vm.attachments]
        for checkpoint in of_vm(state, vm.id)
        if checkpoint.id == since or state.level_of(vm) < _ONE_SINCE
    }
    if not wanted:
        return True
    host = context.hosts[vm.host_id]
    try:
        await host.redefine_checkpoints(vm.id, wanted)
    except HostError as error:
        log.info("Checkpoints of VM %s cannot be redefined: %s", vm.name, error)
        await _drop_chain(state, host, vm)
        return False
    return True


async def forget_disk(context: Context, disk: Disk) -> None:
    """Take a disk that was detached out of all checkpoints, and its bitmaps away; empty checkpoints go with it."""
    state = context.state
    for checkpoint in [checkpoint for checkpoint in state.checkpoints.values() if disk.id in checkpoint.disk_ids]:
        checkpoint.disk_ids = tuple(disk_id for disk_id in checkpoint.disk_ids if disk_id != disk.id)
        if not checkpoint.disk_ids:
            forget(state, checkpoint.id)
    try:
        host = context.any_host()
        for path in _volumes(context, disk):
            for name in await host.bitmaps(path):
                await host.remove_bitmap(path, name)
    except (HostError, Conflict) as error:
        log.info("Bitmaps of disk %s stay behind: %s", disk.alias, error)


async def drop_all(context: Context, vm: Vm) -> None:
    """Forget all checkpoints of a VM that is down, with their bitmaps, as after going back to a snapshot."""
    for checkpoint in of_vm(context.state, vm.id):
        await _remove_cold(context, checkpoint)
        context.state.checkpoints.pop(checkpoint.id, None)


async def remove(context: Context, checkpoint: Checkpoint, *, origin: Origin) -> None:
    """Remove a checkpoint and its bitmaps; the outcome is an event, a failed one leaves the checkpoint invalid."""
    state = context.state
    vm = state.vm(checkpoint.vm_id)
    removed = False
    try:
        if vm.status in _ALIVE:
            removed = await _remove_live(context, vm, checkpoint)
        else:
            checkpoint.state = "invalid"
            removed = await _remove_cold(context, checkpoint)
        if removed:
            forget(state, checkpoint.id)
    finally:
        _tell(state, vm, checkpoint.id, removed=removed, origin=origin)


def take_for_removal(state: State, checkpoint: Checkpoint) -> Lock:
    """Refuse what may not be removed now, else return the lock that the removal holds."""
    vm_id = checkpoint.vm_id
    holder = state.locks.holder([("vm", vm_id)])
    if holder is not None:
        raise conflict(holder.refusal(CANNOT))
    if any(b.vm_id == vm_id and b.phase not in ("succeeded", "failed") for b in state.backups.values()):
        raise conflict(f"{CANNOT}. The VM is during a backup operation.")
    disks = [state.disks[disk_id] for disk_id in checkpoint.disk_ids if disk_id in state.disks]
    locked = [disk.alias for disk in disks if disk.status == "locked"]
    if locked:
        raise conflict(
            f"{CANNOT}: The following disks are locked: {', '.join(locked)}. Please try again in a few minutes."
        )
    return state.locks.take(
        exclusive=[("vm", vm_id)], why="The VM is during a checkpoint removal operation.", action=CANNOT
    )


async def _remove_live(context: Context, vm: Vm, checkpoint: Checkpoint) -> bool:
    """Remove through the running VM; a checkpoint that cannot be defined any more takes the chain with it."""
    if not await redefine(context, vm, since=checkpoint.id):
        return False
    try:
        await context.hosts[vm.host_id].delete_checkpoint(vm.id, checkpoint.id)
    except HostError as error:
        log.info("Checkpoint %s of VM %s was not removed: %s", checkpoint.id, vm.name, error)
        return False
    return True


async def _remove_cold(context: Context, checkpoint: Checkpoint) -> bool:
    """Remove the bitmaps from every volume of every disk of the checkpoint that still exists."""
    disks = [context.state.disks.get(disk_id) for disk_id in checkpoint.disk_ids]
    try:
        for path in [path for disk in disks if disk is not None for path in _volumes(context, disk)]:
            await context.any_host().remove_bitmap(path, checkpoint.id)
    except (HostError, Conflict) as error:
        log.info("Checkpoint %s was not removed: %s", checkpoint.id, error)
        return False
    return True


def _volumes(context: Context, disk: Disk) -> list[Path]:
    return [context.volume_path(disk, image_id) for image_id in (*disk.volumes, disk.image_id)]


async def _drop_chain(state: State, host: Host, vm: Vm) -> None:
    """Forget all checkpoints of a VM; bitmaps of those that its host knows are removed as far as that works."""
    try:
        known = await host.list_checkpoints(vm.id)
    except HostError as error:
        log.info("Host %s does not tell the checkpoints of VM %s: %s", host.name, vm.name, error)
        return
    for checkpoint in of_vm(state, vm.id):
        try:
            if checkpoint.id in known:
                await host.delete_checkpoint(vm.id, checkpoint.id)
        except HostError as error:
            log.info("Checkpoint %s of VM %s is only forgotten: %s", checkpoint.id, vm.name, error)
        state.checkpoints.pop(checkpoint.id, None)


def _tell(state: State, vm: Vm, checkpoint_id: str, *, removed: bool, origin: Origin) -> None:
    text = (
        f"Checkpoint {checkpoint_id} for VM {vm.name} deleted (User: {origin.user_name})."
        if removed
        else f"Failed to delete checkpoint {checkpoint_id} for VM {vm.name} (User: {origin.user_name})."
    )
    state.events.add(
        _DELETED if removed else _NOT_DELETED,
        "normal" if removed else "error",
        text,
        correlation_id=origin.correlation_id,
        vm=vm.id,
        user=origin.user_id,
    )
