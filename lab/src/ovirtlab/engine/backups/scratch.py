# SPDX-License-Identifier: GPL-3.0-or-later
"""Scratch disks of a live backup: where the VM's QEMU keeps old data that the guest overwrites meanwhile."""

from __future__ import annotations

import logging

from ovirtlab.engine.backups import audit
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.records import Backup
from ovirtlab.host.api import HostError

log = logging.getLogger(__name__)


async def create(context: Context, backup: Backup) -> bool:
    """Make a scratch disk for each disk, beside it in its domain; False when one could not be made."""
    for disk_id in backup.modes:
        audit.tell(context, backup, audit.SCRATCH_STARTED, disk_id=disk_id)
        try:
            await _create_one(context, backup, disk_id)
        except HostError as error:
            log.info("No scratch disk for disk %s of backup %s: %s", disk_id, backup.id, error)
            audit.tell(context, backup, audit.SCRATCH_FAILED, disk_id=disk_id)
            return False
        audit.tell(context, backup, audit.SCRATCH_SUCCEEDED, disk_id=disk_id)
    return True


async def remove(context: Context, backup: Backup) -> None:
    """Remove them all, as far as that works."""
    for scratch_id in backup.scratch.values():
        disk = context.state.disks.pop(scratch_id, None)
        if disk is None:
            continue
        try:
            await context.any_host(backup.host_id).delete_volume(disk.path)
            disk.path.parent.rmdir()
        except FileNotFoundError:
            continue
        except (HostError, OSError) as error:
            log.info("Scratch disk %s of backup %s stays behind: %s", scratch_id, backup.id, error)
    backup.scratch.clear()


async def _create_one(context: Context, backup: Backup, disk_id: str) -> None:
    """Make a scratch disk; it is locked as long as the backup lasts, or illegal when its volume cannot be made."""
    made = _register(context, backup, context.state.disks[disk_id])
    backup.scratch[disk_id] = made.id
    try:
        await context.hosts[backup.host_id].create_volume(made.path, "qcow2", made.provisioned_size)
    except HostError:
        made.status = "illegal"
        raise


def _register(context: Context, backup: Backup, disk: Disk) -> Disk:
    state = context.state
    scratch_id, image_id = state.new_id(), state.new_id()
    path = state.storage_domains[disk.storage_domain_id].path / "images" / scratch_id / image_id
    state.disks[scratch_id] = Disk(
        id=scratch_id,
        image_id=image_id,
        alias=f"VM {state.vm(backup.vm_id).name} backup {backup.id} scratch disk for {disk.alias}",
        provisioned_size=disk.provisioned_size,
        storage_domain_id=disk.storage_domain_id,
        path=path,
        description=f"Backup {backup.id} scratch disk",
        status="locked",
        content_type="backup_scratch",
        wipe_after_delete=disk.wipe_after_delete,
        creation_date=state.clock.now(),
    )
    return state.disks[scratch_id]
