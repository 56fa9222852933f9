# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of a backup and what is done in each when the engine polls it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from ovirtlab.engine import checkpoints
from ovirtlab.engine.backups import audit, frozen, scratch
from ovirtlab.engine.backups.rules import FINISHED
from ovirtlab.engine.context import Context
from ovirtlab.engine.faults import Fault
from ovirtlab.engine.records import Backup
from ovirtlab.engine.timers import Pace
from ovirtlab.host.api import BackupDisk, HostError

log = logging.getLogger(__name__)

Step = Callable[[Context, Backup], Awaitable[None]]

FINALIZING = frozenset({"finalizing", "finalizing_failure", "removing_snapshot"})
_SHOWN = {
    "creating_scratch_disks": "initializing",
    "adding_bitmaps": "initializing",
    "waiting_for_bitmaps": "initializing",
    "finalizing_failure": "finalizing",
    "removing_snapshot": "finalizing",
}


def shown(backup: Backup) -> str:
    """The phase as the API gives it."""
    return _SHOWN.get(backup.phase, backup.phase)


def enter(context: Context, backup: Backup, phase: str) -> None:
    """Change the phase, and with it the time of the last change."""
    log.info("Backup %s of VM %s: %s -> %s", backup.id, backup.vm_id, backup.phase, phase)
    backup.phase = phase
    backup.modification_date = context.clock.now()


async def run(context: Context, backup: Backup) -> None:
    """Poll a backup until it has ended."""
    pace = Pace(context.state.settings)
    while backup.phase not in FINISHED:
        await context.clock.sleep(pace.next())
        await advance(context, backup)


async def advance(context: Context, backup: Backup) -> None:
    """Do what the backup's phase asks for; one poll."""
    async with backup.guard:
        step = _STEPS.get(backup.phase)
        if step is not None:
            await step(context, backup)


async def fail_soon(context: Context, backup: Backup) -> None:
    """End a backup whose order has failed when the engine first looks at it; until then it seems to be a new one."""
    await context.clock.sleep(context.state.settings.poll_first)
    async with backup.guard:
        await fail(context, backup)


async def fail(context: Context, backup: Backup) -> None:
    """End a backup as failed: its checkpoint is dropped, its bitmaps stay behind."""
    if backup.kind == "hybrid":
        await frozen.remove(context, backup)
    checkpoints.forget(context.state, backup.pending_checkpoint_id)
    await release(context, backup)
    audit.tell(context, backup, audit.FAILED)
    enter(context, backup, "failed")


async def _start(context: Context, backup: Backup) -> None:
    if backup.kind == "hybrid":
        _await_snapshot(context, backup)
    else:
        await _start_live(context, backup)


def _await_snapshot(context: Context, backup: Backup) -> None:
    """Wait for the snapshot, which has begun already; the checkpoint is there when it is."""
    made = frozen.made(context, backup)
    if made:
        checkpoints.create(context, backup)
        _ready(context, backup)
    elif made is not None:
        enter(context, backup, "finalizing_failure")


async def _while_ready(context: Context, backup: Backup) -> None:
    """Nothing to do, until a hybrid backup has been stopped."""
    if backup.stopped:
        enter(context, backup, "removing_snapshot")


async def _create_scratch_disks(context: Context, backup: Backup) -> None:
    created = await scratch.create(context, backup)
    enter(context, backup, "starting" if created else "finalizing_failure")


async def _start_live(context: Context, backup: Backup) -> None:
    """Let the VM's QEMU export its disks as they are now; checkpoint and export begin in the same moment."""
    state = context.state
    disks = tuple(
        BackupDisk(
            disk_id=disk_id,
            scratch=state.disks[backup.scratch[disk_id]].path,
            from_checkpoint=backup.from_checkpoint_id if mode == "incremental" else None,
            to_checkpoint=backup.pending_checkpoint_id if state.disks[disk_id].format == "cow" else None,
        )
        for disk_id, mode in backup.modes.items()
    )
    try:
        urls = await context.hosts[backup.host_id].start_backup(
            backup.vm_id, backup.id, disks, require_consistency=backup.require_consistency
        )
    except HostError as error:
        log.info("Backup %s did not start on the host: %s", backup.id, error)
        enter(context, backup, "finalizing_failure")
        return
    backup.urls = dict(urls)
    _ready(context, backup)


async def _add_bitmaps(context: Context, backup: Backup) -> None:
    """Mark the time of a cold backup in the volumes themselves, by any host that is up."""
    try:
        host = context.any_host()
        for disk_id in backup.modes:
            disk = context.state.disks[disk_id]
            if disk.format == "cow":
                await host.add_bitmap(context.volume_path(disk), backup.pending_checkpoint_id)
    except (HostError, Fault) as error:
        log.info("Bitmaps of backup %s were not added: %s", backup.id, error)
        enter(context, backup, "finalizing_failure")
        return
    backup.to_checkpoint_id = backup.pending_checkpoint_id
    enter(context, backup, "waiting_for_bitmaps")


async def _bitmaps_added(context: Context, backup: Backup) -> None:
    _ready(context, backup)


async def _finalize(context: Context, backup: Backup) -> None:
    await _succeed(context, backup)


async def _remove_snapshot(context: Context, backup: Backup) -> None:
    await frozen.remove(context, backup)
    await _succeed(context, backup)


async def _succeed(context: Context, backup: Backup) -> None:
    await release(context, backup)
    audit.tell(context, backup, audit.SUCCEEDED)
    enter(context, backup, "succeeded")


def _ready(context: Context, backup: Backup) -> None:
    backup.to_checkpoint_id = backup.pending_checkpoint_id
    enter(context, backup, "ready")


async def release(context: Context, backup: Backup) -> None:
    """Give back what a backup holds: its locks, its disks and its scratch disks; a hybrid one has only locks."""
    for lock in backup.locks:
        lock.release()
    backup.locks.clear()
    if backup.kind == "hybrid":
        return
    for disk_id in backup.modes:
        disk = context.state.disks.get(disk_id)
        if disk is not None:
            disk.unlock_volumes()
    await scratch.remove(context, backup)


_STEPS: dict[str, Step] = {
    "creating_scratch_disks": _create_scratch_disks,
    "starting": _start,
    "adding_bitmaps": _add_bitmaps,
    "waiting_for_bitmaps": _bitmaps_added,
    "ready": _while_ready,
    "finalizing": _finalize,
    "removing_snapshot": _remove_snapshot,
    "finalizing_failure": fail,
}
