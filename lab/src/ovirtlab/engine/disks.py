# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine does with disks: make, extend, change, delete; the volumes are made by a host."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovirtlab.engine import access, jobs
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk, DiskBackup, DiskFormat
from ovirtlab.engine.entities.infrastructure import StorageDomain
from ovirtlab.engine.events import Severity
from ovirtlab.engine.faults import conflict, invalid
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.snapshots import rules, volumes
from ovirtlab.engine.state import State
from ovirtlab.host.api import HostError, VolumeFormat

log = logging.getLogger(__name__)

ADD = "Cannot add Virtual Disk"
EDIT = "Cannot edit Virtual Disk"
REMOVE = "Cannot remove Virtual Disk"
LARGEST = 128 << 40


@dataclass(frozen=True, kw_only=True)
class DiskSpec:
    """A disk as a client asks for it; empty ids are chosen by the engine, `size` is virtual, in bytes."""

    alias: str
    size: int
    format: DiskFormat
    storage_domain_id: str
    id: str = ""
    image_id: str = ""
    description: str = ""
    sparse: bool = True
    backup: DiskBackup = "none"
    content_type: str = "data"
    shareable: bool = False
    wipe_after_delete: bool = False
    propagate_errors: bool = False
    profile_id: str = ""
    kept: dict[str, Any] = field(default_factory=dict)


def check_new(context: Context, spec: DiskSpec, *, action: str = ADD) -> None:
    """Refuse what the engine refuses to make."""
    state = context.state
    if spec.size <= 0:
        raise invalid(f"{action}. Disk's provisioned size has to be greater than 0.")
    if spec.size > LARGEST:
        raise invalid(f"Cannot create disk more than {LARGEST >> 30} GiB")
    if spec.id in state.disks:
        alias = state.disks[spec.id].alias
        raise conflict(
            f"{action}. The selected disk ID: {spec.id} is already used by the following existing disk: {alias}."
        )
    if spec.image_id and any(spec.image_id in (disk.image_id, *disk.volumes) for disk in state.disks.values()):
        raise conflict(f"{action}. The selected image ID: {spec.image_id} is already in use.")
    if not _fits(spec):
        raise conflict(
            f"{action}. Disk configuration ({spec.format.upper()} {'Sparse' if spec.sparse else 'Preallocated'} "
            f"backup-{spec.backup.capitalize()}) is incompatible with the storage domain type."
        )
    if spec.shareable and spec.format == "cow":
        raise conflict(f"{action}. The disk's volume format is not supported for shareable disk.")
    _check_domain(state.storage_domains[spec.storage_domain_id], action)


def _fits(spec: DiskSpec) -> bool:
    if spec.format == "raw":
        return spec.backup == "none"
    return spec.sparse or spec.backup == "incremental"


def _check_domain(domain: StorageDomain, action: str) -> None:
    if domain.status != "active":
        raise conflict(
            f"{action}. The relevant Storage Domain's status is {domain.status.capitalize()}.",
        )


def register(context: Context, spec: DiskSpec) -> Disk:
    """Put a checked disk into the state, locked until `make` is done."""
    state = context.state
    disk_id = spec.id or state.new_id()
    image_id = spec.image_id or state.new_id()
    disk = Disk(
        id=disk_id,
        image_id=image_id,
        alias=spec.alias,
        description=spec.description,
        provisioned_size=spec.size,
        storage_domain_id=spec.storage_domain_id,
        path=state.storage_domains[spec.storage_domain_id].path / "images" / disk_id / image_id,
        format=spec.format,
        sparse=spec.sparse,
        backup=spec.backup,
        status="locked",
        content_type=spec.content_type,
        shareable=spec.shareable,
        wipe_after_delete=spec.wipe_after_delete,
        propagate_errors=spec.propagate_errors,
        profile_id=spec.profile_id,
        kept=dict(spec.kept),
        creation_date=context.clock.now(),
    )
    state.disks[disk.id] = disk
    return disk


async def make(context: Context, disk: Disk, *, cause: Cause) -> None:
    """Make the volume of a registered disk, its maker's; the disk becomes ok, or disappears when the host fails."""
    state = context.state
    access.give(state, cause.user, "DiskOperator", on=("disk", disk.id))
    state.events.add(
        2020,
        "normal",
        f"Add-Disk operation of '{disk.alias}' was initiated by {cause.name}.",
        correlation_id=cause.correlation_id,
        disk=disk.id,
        user=cause.user.id,
    )
    job = jobs.begin(state, f"Adding Disk {disk.alias}", cause=cause)
    try:
        await context.any_host().create_volume(
            disk.path, disk.volume_format, disk.provisioned_size, preallocate=not disk.sparse and disk.format == "raw"
        )
    except HostError as error:
        log.warning("Disk %s cannot be made: %s", disk.id, error)
        forget(state, disk)
        jobs.end(state, job, succeeded=False)
        _tell(context, cause, disk, 2022, "Add-Disk operation failed to complete.", severity="error")
        return
    disk.status = "ok"
    jobs.end(state, job, succeeded=True)
    _tell(context, cause, disk, 2021, f"The disk '{disk.alias}' was successfully added.")


def check_extend(context: Context, disk: Disk, size: int) -> None:
    """Refuse a size that is not larger."""
    if size < disk.provisioned_size:
        raise conflict(f"{EDIT}. New disk size must be larger than the current disk size.")
    check_free(context, disk, EDIT)


async def extend(context: Context, disk: Disk, size: int, *, cause: Cause) -> None:
    """Grow a disk, through the host of its VM when that runs; the disk is locked meanwhile."""
    disk.status = "locked"
    with jobs.job(context.state, f"Extending Disk {disk.alias}", cause=cause):
        try:
            host_id = next((vm.host_id for vm in context.state.vms_of_disk(disk.id) if vm.host_id), "")
            host = context.hosts[host_id] if host_id else context.any_host()
            await host.resize_volume(disk.path, disk.volume_format, size)
            disk.provisioned_size = size
        except HostError as error:
            log.warning("Disk %s cannot be extended: %s", disk.id, error)
        finally:
            disk.status = "ok"
    text = f"Size of the disk '{disk.alias}' was successfully updated to {size >> 30} GB by {cause.name}."
    _tell(context, cause, disk, 371, text)


def check_free(context: Context, disk: Disk, action: str) -> None:
    """Refuse a disk that is locked, by its status or in the lock table."""
    holder = context.state.locks.holder([("disk", disk.id)])
    if holder is not None:
        raise conflict(holder.refusal(action))
    rules.check_unlocked(action, [(disk.alias, disk.status)])


def check_removal(context: Context, disk: Disk) -> None:
    """Refuse to delete a disk that is busy, plugged to a VM that is not down, or of a VM whose snapshots are busy."""
    holder = context.state.locks.holder([("disk", disk.id)])
    if holder is not None:
        raise conflict(holder.refusal(REMOVE))
    if any(disk.id in template.attachments for template in context.state.templates.values()):
        raise conflict(f"{REMOVE}. The disk belongs to a Template.")
    if any(disk.id in vm.memory_disks for vm in context.state.vms.values()):
        raise conflict(f"{REMOVE}. The disk holds the memory of a suspended VM.")
    for vm in context.state.vms_of_disk(disk.id):
        if vm.status != "down" and vm.attachments[disk.id].active:
            raise conflict(f"{REMOVE}. At least one of the VMs is not down.")
    if disk.status == "locked":
        raise conflict(f"{REMOVE}. {rules.BUSY}")
    for vm in context.state.vms_of_disk(disk.id):
        rules.check_settled(context, vm, REMOVE)


async def delete(context: Context, disk: Disk, *, cause: Cause) -> None:
    """Delete a disk with all its volumes and forget it; a host's failure leaves it illegal."""
    state = context.state
    disk.status = "locked"
    with jobs.job(state, f"Removing Disk {disk.alias}", cause=cause):
        try:
            for image_id in sorted(volumes.all_of(state, disk)):
                await context.any_host().delete_volume(disk.path.with_name(image_id))
            for path in disk.copies.values():
                await context.any_host().delete_volume(path)
        except HostError as error:
            log.warning("Disk %s cannot be removed: %s", disk.id, error)
            disk.status = "illegal"
            name = state.storage_domains[disk.storage_domain_id].name
            text = f"Failed to remove disk {disk.alias} from storage domain {name} (User: {cause.name})."
            _tell(context, cause, disk, 2015, text, severity="warning")
            return
    drop_folder(disk)
    domain = state.storage_domains[disk.storage_domain_id].name
    forget(state, disk)
    text = f"Disk {disk.alias} was successfully removed from domain {domain} (User {cause.name})."
    _tell(context, cause, disk, 2014, text)


def forget(state: State, disk: Disk) -> None:
    """Take a disk that is no more off its VMs, and the permissions on it away."""
    for vm in list(state.vms_of_disk(disk.id)):
        state.detach(vm.id, disk.id)
    state.disks.pop(disk.id, None)
    for key in [key for key, permission in state.permissions.items() if permission.on == ("disk", disk.id)]:
        del state.permissions[key]


def drop_folder(disk: Disk) -> None:
    """Remove the folder of a disk when its last volume has gone."""
    for path in (disk.path, *disk.copies.values()):
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


async def convert(context: Context, disk: Disk, spec: DiskSpec, *, cause: Cause) -> None:
    """Give a disk another format: a new volume is made from the old one and takes its place."""
    old, new_id = disk.path, context.state.new_id()
    disk.status = "locked"
    with jobs.job(context.state, f"Converting Disk {disk.alias}", cause=cause):
        try:
            fmt: VolumeFormat = "qcow2" if spec.format == "cow" else "raw"
            await context.any_host().copy_volume(old, old.with_name(new_id), fmt)
            disk.path, disk.image_id = old.with_name(new_id), new_id
            disk.format, disk.sparse, disk.backup = spec.format, spec.sparse, spec.backup
            await context.any_host().delete_volume(old)
        except HostError as error:
            log.warning("Disk %s cannot be converted: %s", disk.id, error)
        finally:
            disk.status = "ok"


def size_on_storage(disk: Disk) -> int:
    """Bytes that the disk's volumes take on the domain now."""
    return sum(size_of_volume(disk.path.with_name(image_id)) for image_id in (*disk.volumes, disk.image_id))


def size_of_volume(path: Path) -> int:
    """Bytes that a volume takes on the domain now; 0 for one that is not there."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _tell(context: Context, cause: Cause, disk: Disk, code: int, text: str, *, severity: Severity = "normal") -> None:
    context.state.events.add(
        code,
        severity,
        text,
        correlation_id=cause.correlation_id,
        disk=disk.id,
        storage_domain=disk.storage_domain_id,
        user=cause.user.id,
    )
