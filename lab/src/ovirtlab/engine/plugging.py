# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks hung on VMs and taken off, also while the VM runs."""

from __future__ import annotations

from ovirtlab.engine import running
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import DiskAttachment
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import conflict, invalid
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.snapshots import rules, volumes
from ovirtlab.host.api import HostError

ATTACH = "Cannot attach Virtual Disk"
DETACH = "Cannot detach Virtual Disk"
PLUG = "Cannot hot plug Virtual Disk"
UNPLUG = "Cannot hot unplug Virtual Disk"


async def attach(context: Context, vm: Vm, attachment: DiskAttachment, *, cause: Cause) -> None:
    """Hang an existing disk on a VM and plug it when it is to be active."""
    disk = context.state.disk(attachment.disk_id)
    if disk.id in vm.attachments:
        raise conflict(f"{ATTACH}. The disk is already attached to VM.")
    if not disk.shareable and next(context.state.vms_of_disk(disk.id), None) is not None:
        raise conflict(f"{ATTACH}. The disk is not shareable and is already attached to a VM.")
    if disk.status == "locked":
        raise conflict(f"{ATTACH}: Disk is locked. Please try again later.")
    _check_vm(context, vm, ATTACH)
    check_boot(context, vm, attachment)
    rules.check_settled(context, vm, ATTACH)
    active, attachment.active = attachment.active, False
    context.state.attach(attachment)
    vm.generation += 1
    if active:
        await plug(context, vm, attachment)
    text = f"Disk {disk.alias} was successfully attached to VM {vm.name} by {cause.name}."
    _tell(context, vm, cause, 2016, text, disk.id)


async def attach_snapshot(context: Context, vm: Vm, attachment: DiskAttachment, *, cause: Cause) -> None:
    """Hang a disk on a VM as a snapshot of another VM has frozen it; what is written to it is not kept."""
    state, disk = context.state, context.state.disk(attachment.disk_id)
    snapshot = state.snapshots.get(attachment.snapshot_id)
    if snapshot is None or disk.id not in snapshot.volumes:
        raise invalid(f"{ATTACH}. VM's Snapshot does not exist.")
    rules.check_regular(snapshot, ATTACH)
    if snapshot.status != "ok":
        raise conflict(f"{ATTACH}. The snapshot is in {snapshot.status.upper()} status.")
    rules.check_unlocked(ATTACH, [(disk.alias, volumes.status_in(state, snapshot, disk))])
    if disk.id in vm.attachments or disk.id in vm.snapshot_disks:
        raise conflict(f"{ATTACH}. The disk is already attached to VM.")
    _check_vm(context, vm, ATTACH)
    check_boot(context, vm, attachment)
    rules.check_settled(context, vm, ATTACH)
    active, attachment.active = attachment.active, False
    vm.snapshot_disks[disk.id] = attachment
    if active:
        await plug(context, vm, attachment)
    text = f"Disk {disk.alias} was successfully attached to VM {vm.name} by {cause.name}."
    _tell(context, vm, cause, 2016, text, disk.id)


async def detach_snapshot(context: Context, vm: Vm, attachment: DiskAttachment, *, cause: Cause) -> None:
    """Take a disk of a snapshot off a VM."""
    _check_vm(context, vm, DETACH)
    if attachment.active:
        await unplug(context, vm, attachment)
    del vm.snapshot_disks[attachment.disk_id]
    disk = context.state.disk(attachment.disk_id)
    text = f"Disk {disk.alias} was successfully detached from VM {vm.name} by {cause.name}."
    _tell(context, vm, cause, 2018, text, disk.id)


async def detach(context: Context, vm: Vm, attachment: DiskAttachment, *, cause: Cause) -> None:
    """Take a disk off a VM; it stays as a floating disk."""
    disk = context.state.disk(attachment.disk_id)
    _check_vm(context, vm, DETACH)
    if disk.status == "locked":
        raise conflict(f"{DETACH}: Disk is locked. Please try again later.")
    if disk.volumes:
        raise conflict(
            f"{DETACH}. The disk is already configured in a snapshot. "
            "In order to detach it, remove the disk's snapshots."
        )
    if attachment.active:
        await unplug(context, vm, attachment)
    context.state.detach(vm.id, disk.id)
    vm.generation += 1
    text = f"Disk {disk.alias} was successfully detached from VM {vm.name} by {cause.name}."
    _tell(context, vm, cause, 2018, text, disk.id)


def check_plugging(context: Context, vm: Vm, action: str) -> None:
    """Refuse to `plug` or to `unplug` a disk of a VM that is busy, or of which a snapshot is."""
    _check_vm(context, vm, action)
    rules.check_settled(context, vm, action)


async def plug(context: Context, vm: Vm, attachment: DiskAttachment) -> None:
    """Make a disk active; in a running VM it is plugged into it."""
    attachment.active = True
    if vm.host_id:
        wanted = next(disk for disk in running.definition(context, vm).disks if disk.disk_id == attachment.disk_id)
        try:
            await context.host_of(vm).attach_disk(vm.id, wanted)
        except HostError as error:
            attachment.active = False
            raise conflict(f"{PLUG}. {error}") from error


async def unplug(context: Context, vm: Vm, attachment: DiskAttachment) -> None:
    """Make a disk inactive; it is unplugged from a running VM."""
    if vm.host_id:
        try:
            await context.host_of(vm).detach_disk(vm.id, attachment.disk_id)
        except HostError as error:
            raise conflict(f"{UNPLUG}. {error}") from error
    attachment.active, attachment.target = False, ""


def check_boot(context: Context, vm: Vm, attachment: DiskAttachment) -> None:
    """Refuse a second boot disk."""
    for other in vm.hung:
        if attachment.bootable and other.bootable and other.disk_id != attachment.disk_id:
            name = context.state.disks[other.disk_id].alias
            raise conflict(f"{ATTACH}. Disk {name} in VM {vm.name} is already marked as boot.")


def _check_vm(context: Context, vm: Vm, action: str) -> None:
    holder = context.state.locks.holder([("vm", vm.id)])
    if holder is not None:
        raise conflict(holder.refusal(action))
    if vm.status not in ("up", "down", "paused"):
        raise conflict(f"{action}. VM {vm.name} must be in status Down, Up or Paused.")


def _tell(context: Context, vm: Vm, cause: Cause, code: int, text: str, disk_id: str) -> None:
    context.state.events.add(
        code, "normal", text, correlation_id=cause.correlation_id, vm=vm.id, disk=disk_id, user=cause.user.id
    )
