# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of templates that several domains have, so that VMs can be made from them on each of these domains."""

from __future__ import annotations

import logging
from pathlib import Path

from ovirtlab.engine import disk_copies, jobs
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Template
from ovirtlab.engine.faults import conflict, invalid
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.state import State
from ovirtlab.host.api import HostError

log = logging.getLogger(__name__)

COPY = "Cannot copy Virtual Disk"
MOVE = "Cannot move Virtual Disk"
REMOVE = "Cannot remove Virtual Disk"


def owner(state: State, disk: Disk) -> Template | None:
    """The template that a disk is of."""
    return next((item for item in state.templates.values() if disk.id in item.attachments), None)


def check_copy(context: Context, disk: Disk, template: Template, domain_id: str) -> None:
    """Refuse a domain that has the disk already, or that is not active."""
    if template.status != "ok":
        raise conflict(f"{COPY}. The Template is locked. Please try again later.")
    disk_copies.check_domain(context, domain_id, action=COPY)
    if domain_id in disk.domain_ids:
        raise conflict(f"{COPY}. One of the Template Images already exists.")


def check_move(state: State, disk: Disk) -> None:
    """Refuse to move the disk of a template."""
    if owner(state, disk) is not None:
        raise invalid(f"{MOVE}. The following disk(s) are not attached to any VM: {disk.alias}.")


async def copy(context: Context, disk: Disk, domain_id: str, *, cause: Cause) -> None:
    """Give another domain the disk; it is the same disk there, under the same id."""
    domain = context.state.storage_domains[domain_id]
    path = domain.path / "images" / disk.id / disk.image_id
    job = jobs.begin(context.state, f"Copying Disk {disk.alias}", cause=cause)
    try:
        await context.any_host().copy_volume(disk.path, path, disk.volume_format)
    except HostError as error:
        log.warning("Disk %s cannot be copied: %s", disk.id, error)
        jobs.end(context.state, job, succeeded=False)
        text = f"User {cause.name} finished with error copying disk {disk.alias} to domain {domain.name}."
        disk_copies.tell(context, cause, disk, 2007, text, failed=True)
        return
    finally:
        disk.status = "ok"
    disk.copies[domain_id] = path
    jobs.end(context.state, job, succeeded=True)
    text = f"User {cause.name} finished copying disk {disk.alias} to domain {domain.name}."
    disk_copies.tell(context, cause, disk, 2006, text)


def check_removal(state: State, disk: Disk, template: Template, domain_id: str) -> None:
    """Refuse to take the disk from the last domain that has it, and from one with VMs that are based on it."""
    if len(disk.domain_ids) == 1:
        raise conflict(f"{REMOVE}. The image is the only remaining copy of a Template disk.")
    if not domain_id:
        raise invalid(f"{REMOVE}. A storage domain must be specified when deleting one of a template's disk's copies.")
    based = [vm for vm in state.vms.values() if vm.template_id == template.id]
    there = [vm.name for vm in based if any(domain_id == own.storage_domain_id for own in state.disks_of(vm))]
    if there:
        raise conflict(f"Cannot delete Template. Template is being used by the following VMs: {', '.join(there)}.")


async def remove(context: Context, disk: Disk, domain_id: str, *, cause: Cause) -> None:
    """Take the disk from one of the domains that have it."""
    domain = context.state.storage_domains[domain_id]
    try:
        with jobs.job(context.state, f"Removing Disk {disk.alias} from domain {domain.name}", cause=cause):
            await context.any_host().delete_volume(_leave(disk, domain_id))
    except HostError as error:
        log.warning("Disk %s cannot be removed from domain %s: %s", disk.id, domain.name, error)
    finally:
        disk.status = "ok"
    text = f"Disk {disk.alias} was successfully removed from domain {domain.name} (User {cause.name})."
    disk_copies.tell(context, cause, disk, 2014, text)


def _leave(disk: Disk, domain_id: str) -> Path:
    """Forget the copy on a domain and return where it is; another one takes the place of the first."""
    if domain_id != disk.storage_domain_id:
        return disk.copies.pop(domain_id)
    path = disk.path
    disk.storage_domain_id = next(iter(disk.copies))
    disk.path = disk.copies.pop(disk.storage_domain_id)
    return path
