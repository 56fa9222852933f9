# SPDX-License-Identifier: GPL-3.0-or-later
"""Suspended VMs: their memory on a storage domain, in two disks, until they go on or are powered off."""

from __future__ import annotations

import dataclasses
import json
import logging

from ovirtlab.engine import disks, jobs
from ovirtlab.engine.context import Context
from ovirtlab.engine.disks import DiskSpec
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.infrastructure import StorageDomain
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import conflict
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.locks import Lock
from ovirtlab.engine.snapshots import rules, volumes
from ovirtlab.host.api import HostError

log = logging.getLogger(__name__)

CANNOT = "Cannot hibernate VM"
_METADATA_SIZE = 10240


def check(context: Context, vm: Vm) -> None:
    """Refuse a VM that is not up, in a backup or in preview, or busy, and one whose memory no domain can take."""
    if vm.status != "up":
        raise conflict(f"{CANNOT}. VM is not up.")
    if any(backup.vm_id == vm.id and not backup.has_ended for backup in context.state.backups.values()):
        raise conflict(f"{CANNOT}. The VM is during a backup operation.")
    if any(item.status == "locked" for item in volumes.of_vm(context.state, vm.id)):
        raise conflict("Cannot suspend VM. VM has asynchronous running tasks, please retry later.")
    if _domain(context, vm) is None:
        raise conflict(f"{CANNOT}. There is no suitable Storage Domain for the VM's memory.")
    rules.check_not_in_preview(context, vm, CANNOT)


async def suspend(context: Context, vm: Vm, *, cause: Cause, lock: Lock) -> None:
    """Write the memory of a checked VM to its domain and end it; on failure it goes on. Releases the lock."""
    host = context.state.hosts[vm.host_id]
    text = f"Suspending VM {vm.name} was initiated by User {cause.name} (Host: {host.name})."
    _tell(context, vm, cause, 501, text)
    with lock, jobs.job(context.state, f"Suspending VM {vm.name}", cause=cause):
        try:
            await _save(context, vm)
        except HostError as error:
            log.warning("VM %s cannot be suspended: %s", vm.name, error)
            await forget(context, vm)
            vm.status = context.hosts[host.id].vm_state(vm.id)
            _tell(context, vm, cause, 521, f"Failed to complete suspending of VM {vm.name}.", failed=True)
            return
        vm.status, vm.host_id = "suspended", ""
    _tell(context, vm, cause, 503, f"VM {vm.name} on Host {host.name} is suspended.")


async def power_off(context: Context, vm: Vm, *, cause: Cause) -> None:
    """Let a suspended VM be down, without its memory."""
    vm.suspended = None
    vm.status, vm.stop_time = "down", context.clock.now()
    await forget(context, vm)
    _tell(context, vm, cause, 111, f"Suspended VM {vm.name} has had its save state cleared by {cause.name}.")


async def forget(context: Context, vm: Vm) -> None:
    """Delete the memory of a VM that needs it no more."""
    vm.suspended = None
    doomed, vm.memory_disks = vm.memory_disks, ()
    for key in doomed:
        disk = context.state.disks.pop(key)
        await context.any_host().delete_volume(disk.path)
        disks.drop_folder(disk)


async def _save(context: Context, vm: Vm) -> None:
    domain = _domain(context, vm)
    if domain is None:
        raise HostError("no storage domain is active")
    memory = await _add_disk(context, vm, domain, "memory_dump_volume", size=vm.memory)
    metadata = await _add_disk(context, vm, domain, "memory_metadata_volume", size=_METADATA_SIZE)
    vm.suspended = await context.host_of(vm).suspend_vm(vm.id, memory.path)
    metadata.path.write_text(json.dumps(dataclasses.asdict(vm.suspended), default=str))


async def _add_disk(context: Context, vm: Vm, domain: StorageDomain, content: str, *, size: int) -> Disk:
    alias = f"{vm.name}_hibernation_{content.split('_')[1].replace('dump', 'memory')}"
    spec = DiskSpec(alias=alias, size=size, format="raw", storage_domain_id=domain.id, content_type=content)
    disk = disks.register(context, spec)
    vm.memory_disks = (*vm.memory_disks, disk.id)
    await context.any_host().create_volume(disk.path, "raw", size)
    disk.status = "ok"
    return disk


def _domain(context: Context, vm: Vm) -> StorageDomain | None:
    """Where the VM's disks are, else the first domain that is active."""
    domains = context.state.storage_domains
    own = [domains[disk.storage_domain_id] for disk in context.state.disks_of(vm)]
    return next((domain for domain in (*own, *domains.values()) if domain.status == "active"), None)


def _tell(context: Context, vm: Vm, cause: Cause, code: int, text: str, *, failed: bool = False) -> None:
    context.state.events.add(
        code,
        "error" if failed else "normal",
        text,
        correlation_id=cause.correlation_id,
        vm=vm.id,
        host=vm.host_id,
        cluster=vm.cluster_id,
        user=cause.user.id,
    )
