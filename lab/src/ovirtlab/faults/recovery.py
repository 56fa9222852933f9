# SPDX-License-Identifier: GPL-3.0-or-later
"""What clearing does once a broken part is mended: VMs that ran run again, backups that lost their VM are ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable

from ovirtlab.engine import faults, running, seed
from ovirtlab.engine.backups import commands
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.records import Backup, Snapshot
from ovirtlab.engine.snapshots import merging, rules, volumes
from ovirtlab.engine.transfers import polling, session
from ovirtlab.faults.base import FaultError, Lab

LIMIT = 60.0  # real seconds for work of the engine that is under way
_POLL = 0.02


async def run_again(lab: Lab, vm_ids: Iterable[str]) -> str:
    """Bring VMs up that a fault has ended or paused; return the sentences for those that stay as they are."""
    said = [await _run_again(lab, vm_id) for vm_id in vm_ids]
    return " ".join(filter(None, said))


async def end_orphans(lab: Lab, vm: Vm) -> None:
    """End backups that wait for nothing any more: their VM's QEMU, or the engine that watched them, has gone."""
    context = lab.engine.context
    await commands.clear_leftovers(context, vm.id)
    for backup in [item for item in context.state.backups.values() if item.vm_id == vm.id and item.kind == "live"]:
        await _until(lambda item=backup: item.phase == "ready" or item.has_ended, f"backup {backup.id}")  # type: ignore[misc]
        if not backup.has_ended and _lost(context, backup):
            await _end(context, backup)


async def merge_again(lab: Lab, vm_id: str = "") -> str:
    """Try again to remove snapshots that could not be merged, of one VM or of all; return what is not done."""
    context = lab.engine.context
    left = [item for item in context.state.snapshots.values() if item.merge_failed and vm_id in ("", item.vm_id)]
    said = [await _merge(context, snapshot) for snapshot in left]
    return " ".join(filter(None, said))


async def stop_sessions(context: Context) -> None:
    """Stop what transfers that were given up have left behind: tickets, NBD servers, locked disks."""
    for transfer in list(context.state.transfers.values()):
        if transfer.has_ended and transfer.ticket_id and await session.stop(context, transfer):
            polling.set_status(context, transfer, "illegal" if transfer.direction == "upload" else "ok")


async def _merge(context: Context, snapshot: Snapshot) -> str:
    vm = context.state.vms[snapshot.vm_id]
    await _until(lambda: snapshot.status != "locked", f"snapshot {snapshot.description!r} of VM {vm.name}")
    if not rules.merges_live(vm):
        _allow_cold_merge(context, snapshot)
    try:
        removal = merging.begin(context, vm, snapshot, cause=_cause(context))
        done = await merging.run(context, removal)
    except faults.Fault as refusal:
        return f"snapshot {snapshot.description!r} of VM {vm.name} is not merged: {refusal.detail.strip('[]')}"
    return "" if done else f"snapshot {snapshot.description!r} of VM {vm.name} is not merged; see its events."


def _allow_cold_merge(context: Context, snapshot: Snapshot) -> None:
    """What an administrator does with `unlock_entity.sh` when a VM went down with illegal images: they are ok again."""
    for disk in volumes.frozen_by(context.state, snapshot):
        disk.troubled.pop(snapshot.volumes[disk.id].image_id, None)


def _cause(context: Context) -> Cause:
    return Cause(context.state.users[seed.ADMIN_ID], "fault-clear")


async def _run_again(lab: Lab, vm_id: str) -> str:
    context = lab.engine.context
    vm = context.state.vms.get(vm_id)
    if vm is None:
        return ""
    await end_orphans(lab, vm)
    cause = _cause(context)
    try:
        if vm.status == "paused":
            await running.resume(context, vm, cause=cause)
        elif vm.status == "down":
            running.check_start(context, vm)
            lock = running.take_vm(context, vm, action="Cannot run VM")
            await running.start(context, vm, cause=cause, lock=lock)
    except faults.Fault as refusal:
        return f"VM {vm.name} stays {vm.status}: {refusal.detail.strip('[]')}"
    await _until(lambda: vm.status in ("up", "down", "paused"), f"VM {vm.name}")
    return "" if vm.status == "up" else f"VM {vm.name} is {vm.status}; see its events."


def _lost(context: Context, backup: Backup) -> bool:
    """Whether the QEMU that a live backup reads is gone."""
    return context.hosts[backup.host_id].vm_state(backup.vm_id) == "down"


async def _end(context: Context, backup: Backup) -> None:
    """What a client has to do: cancel the transfers, and finalize, which is an error and frees what is held."""
    ours = [item for item in context.state.transfers.values() if item.backup_id == backup.id]
    for transfer in ours:
        polling.enter(context, transfer, "cancelled_user")
    await _until(lambda: all(item.has_ended for item in ours), f"the transfers of backup {backup.id}")
    with contextlib.suppress(faults.Fault):  # said to whoever finalizes a backup without a VM, which then fails
        await commands.finalize(context, backup)
    await _until(lambda: backup.has_ended, f"the end of backup {backup.id}")


async def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise FaultError(f"{what} took longer than {LIMIT:g} s; see `ovirtlab logs`, and clear again")
        await asyncio.sleep(_POLL)
