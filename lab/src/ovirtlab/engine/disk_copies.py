# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks copied, moved to another domain and sparsified: each makes a new volume through a host."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import suppress
from pathlib import Path

from ovirtlab.engine import disks, jobs
from ovirtlab.engine.context import Context
from ovirtlab.engine.disks import DiskSpec
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.faults import conflict
from ovirtlab.engine.jobs import Cause
from ovirtlab.host.api import HostError

log = logging.getLogger(__name__)


def check(context: Context, disk: Disk, *, action: str) -> None:
    """Refuse a disk that is busy, that a VM uses now, or that has snapshots."""
    disks.check_free(context, disk, action)
    for vm in context.state.vms_of_disk(disk.id):
        if vm.status != "down" and vm.attachments[disk.id].active:
            raise conflict(f"{action}. VM {vm.name} must be in status Down.")
    if disk.volumes:
        raise conflict(f"{action}. The disk has snapshots.")


def check_domain(context: Context, domain_id: str, *, action: str) -> None:
    """Refuse a domain that is not active."""
    domain = context.state.storage_domains[domain_id]
    if domain.status != "active":
        raise conflict(f"{action}. The relevant Storage Domain's status is {domain.status.capitalize()}.")


def register_copy(context: Context, disk: Disk, *, alias: str, domain_id: str, disk_id: str = "") -> Disk:
    """The record of a copy, locked until `copy` has made its volume."""
    spec = dataclasses.replace(spec_of_copy(disk), alias=alias or disk.alias, storage_domain_id=domain_id, id=disk_id)
    disks.check_new(context, spec)
    return disks.register(context, spec)


def spec_of_copy(disk: Disk) -> DiskSpec:
    """What a copy on the same domain is made of."""
    return DiskSpec(
        alias=disk.alias,
        size=disk.provisioned_size,
        format=disk.format,
        storage_domain_id=disk.storage_domain_id,
        description=disk.description,
        sparse=disk.sparse,
        backup=disk.backup,
        content_type=disk.content_type,
        wipe_after_delete=disk.wipe_after_delete,
    )


async def copy(context: Context, source: Disk, sink: Disk, *, cause: Cause) -> None:
    """Make the volume of a registered copy; the source is locked meanwhile, and a failed copy is forgotten.

    Bitmaps stay behind: a copy is another disk, with checkpoints of its own.
    """
    state = context.state
    source.status = "locked"
    domain = state.storage_domains[sink.storage_domain_id].name
    job = jobs.begin(state, f"Copying Disk {source.alias}", cause=cause)
    try:
        await context.any_host().copy_volume(source.path, sink.path, sink.volume_format)
    except HostError as error:
        log.warning("Disk %s cannot be copied: %s", source.id, error)
        state.disks.pop(sink.id, None)
        jobs.end(state, job, succeeded=False)
        text = f"User {cause.name} finished with error copying disk {source.alias} to domain {domain}."
        tell(context, cause, source, 2007, text, failed=True)
        return
    finally:
        source.status = "ok"
    sink.status = "ok"
    jobs.end(state, job, succeeded=True)
    tell(context, cause, sink, 2006, f"User {cause.name} finished copying disk {source.alias} to domain {domain}.")


async def move(context: Context, disk: Disk, *, domain_id: str, cause: Cause) -> None:
    """Put the volume of a disk into another domain, with its bitmaps; on failure it stays where it was."""
    path = context.state.storage_domains[domain_id].path / "images" / disk.id / disk.image_id
    old, domain = disk.path, context.state.storage_domains[domain_id].name
    if not await _rewrite(context, disk, path, cause=cause, what="Moving"):
        text = f"User {cause.name} has failed to move disk {disk.alias} to domain {domain}."
        tell(context, cause, disk, 2011, text, failed=True)
        return
    disk.path, disk.storage_domain_id, disk.status = path, domain_id, "ok"
    await context.any_host().delete_volume(old)
    with suppress(OSError):
        old.parent.rmdir()
    tell(context, cause, disk, 2010, f"User {cause.name} finished moving disk {disk.alias} to domain {domain}.")


async def sparsify(context: Context, disk: Disk, *, cause: Cause) -> None:
    """Give back what holds zeroes only: the volume is written anew without them, with its bitmaps."""
    new_id = context.state.new_id()
    path = disk.path.with_name(new_id)
    tell(context, cause, disk, 1325, f"Started to sparsify {disk.alias}")
    if not await _rewrite(context, disk, path, cause=cause, what="Sparsifying"):
        tell(context, cause, disk, 1327, f"Failed to sparsify {disk.alias}.", failed=True)
        return
    old, disk.path, disk.image_id = disk.path, path, new_id
    await context.any_host().delete_volume(old)
    disk.status = "ok"
    tell(context, cause, disk, 1326, f"{disk.alias} sparsified successfully.")


async def _rewrite(context: Context, disk: Disk, path: Path, *, cause: Cause, what: str) -> bool:
    """Write the volume of a disk to `path`, with its bitmaps; the disk stays locked when that worked."""
    disk.status = "locked"
    job = jobs.begin(context.state, f"{what} Disk {disk.alias}", cause=cause)
    try:
        await context.any_host().copy_volume(disk.path, path, disk.volume_format, bitmaps=True)
    except HostError as error:
        log.warning("Disk %s cannot be rewritten: %s", disk.id, error)
        disk.status = "ok"
        jobs.end(context.state, job, succeeded=False)
        return False
    jobs.end(context.state, job, succeeded=True)
    return True


def tell(context: Context, cause: Cause, disk: Disk, code: int, text: str, *, failed: bool = False) -> None:
    """An event about a disk."""
    context.state.events.add(
        code,
        "error" if failed else "normal",
        text,
        correlation_id=cause.correlation_id,
        disk=disk.id,
        storage_domain=disk.storage_domain_id,
        user=cause.user.id,
    )
