# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine refuses when a snapshot is to be made, removed or gone back to."""

from __future__ import annotations

from ovirtlab.engine.context import Context
from ovirtlab.engine.entities import Disk, Vm
from ovirtlab.engine.faults import conflict, invalid
from ovirtlab.engine.locks import Lock
from ovirtlab.engine.records import Snapshot
from ovirtlab.engine.snapshots import volumes

CREATE = "Cannot create Snapshot"
REMOVE = "Cannot remove Snapshot"
PREVIEW = "Cannot preview Snapshot"
REVERT = "Cannot revert to Snapshot"
PERMIT = "manipulate_vm_snapshots"
_ALIVE = frozenset({"up", "paused"})


def is_alive(vm: Vm) -> bool:
    """Whether the VM's own QEMU does the work."""
    return vm.status in _ALIVE


def check_creation(context: Context, vm: Vm, disks: list[Disk]) -> None:
    """Refuse a snapshot that cannot be made now; the disks are those it shall cover."""
    _check_vm(context, vm, CREATE, alive=True)
    check_not_in_preview(context, vm, CREATE)
    for disk in disks:
        if disk.shareable:
            raise conflict(f"{CREATE}. Shareable disks are not supported: {disk.alias}.")
        if disk.id not in vm.attachments or not vm.attachments[disk.id].active:
            raise conflict(f"{CREATE}. The following disks are not active on VM {vm.name}: {disk.id}")
    _check_disks(context, disks, CREATE)
    illegal = [disk.alias for disk in volumes.illegal_disks(context.state, vm.id)]
    if illegal or any(disk.status == "illegal" for disk in disks):
        names = ", ".join(illegal or [disk.alias for disk in disks if disk.status == "illegal"])
        raise conflict(
            f"{CREATE}. The following attached disks are in ILLEGAL status: {names} - please remove them and try again."
        )


def check_removal(context: Context, vm: Vm, snapshot: Snapshot) -> None:
    """Refuse a removal that cannot be done now; one of a snapshot with illegal images is what mends it."""
    _check_vm(context, vm, REMOVE, alive=True)
    check_not_in_preview(context, vm, REMOVE)
    _check_regular(snapshot, REMOVE)
    disks = [context.state.disks[disk_id] for disk_id in snapshot.volumes if disk_id in context.state.disks]
    check_not_elsewhere(context, vm, REMOVE)
    _check_disks(context, disks, REMOVE)
    if is_alive(vm):
        unplugged = [disk.alias for disk in disks if not vm.attachments[disk.id].active]
        if unplugged:
            raise conflict(f"{REMOVE}. The following disks are not plugged to the VM: {', '.join(unplugged)}.")


def check_not_elsewhere(context: Context, vm: Vm, action: str) -> None:
    """Refuse while snapshots of the VM's disks hang on other VMs."""
    found = volumes.attached_elsewhere(context.state, vm.attachments)
    if found:
        info = "\n".join(found)
        raise conflict(
            f"{action}. The following VM's disks snapshots are attached to other VMs (Disk Alias/Snapshot "
            f"Description/VM attached to):\n\n {info} \n\nPlease detach them from those VMs and try again."
        )


def check_no_backup(context: Context, vm: Vm, action: str) -> None:
    """Refuse while a backup of the VM is under way."""
    if any(backup.vm_id == vm.id and not backup.has_ended for backup in context.state.backups.values()):
        raise conflict(f"{action}. The VM is during a backup operation.")


def check_revert(context: Context, vm: Vm, snapshot: Snapshot, action: str) -> None:
    """Refuse to go back to a snapshot when the VM is not down or something is in the way."""
    _check_vm(context, vm, action, alive=False)
    check_not_in_preview(context, vm, action)
    _check_regular(snapshot, action)
    if snapshot.illegal:
        raise conflict(f"{action}. The snapshot has images in ILLEGAL status; remove the snapshot instead.")
    check_not_elsewhere(context, vm, action)
    _check_disks(context, context.state.disks_of(vm), action)


def check_not_in_preview(context: Context, vm: Vm, action: str) -> None:
    if preview_of(context, vm) is not None:
        raise conflict(f"{action}. VM is previewing a Snapshot.")


def preview_of(context: Context, vm: Vm) -> Snapshot | None:
    """What keeps the VM as it was before the preview it is in."""
    return next((item for item in volumes.of_vm(context.state, vm.id) if item.type == "preview"), None)


def take(context: Context, vm: Vm, *, why: str, action: str) -> Lock:
    """The lock of the VM while its volumes change."""
    return context.state.locks.take(exclusive=[("vm", vm.id)], why=why, action=action)


def _check_vm(context: Context, vm: Vm, action: str, *, alive: bool) -> None:
    holder = context.state.locks.holder([("vm", vm.id)])
    if holder is not None:
        raise conflict(holder.refusal(action))
    if vm.status == "image_locked":
        raise conflict(f"{action}: VM is locked. Please try again in a few minutes.")
    if vm.status != "down" and not (alive and is_alive(vm)):
        wanted = "Up, Paused or Down" if alive else "Down"
        raise conflict(f"{action}. VM must be in status {wanted}.")


def _check_regular(snapshot: Snapshot, action: str) -> None:
    if snapshot.type != "regular":
        raise invalid(f"{action}. The {snapshot.type} snapshot cannot be used for this.")
    if snapshot.status == "locked":
        raise conflict(f"{action}. The Snapshot is locked. Please try again in a few minutes.")


def _check_disks(context: Context, disks: list[Disk], action: str) -> None:
    locked = [disk.alias for disk in disks if disk.status == "locked"]
    if locked:
        names = ", ".join(locked)
        raise conflict(f"{action}: The following disks are locked: {names}. Please try again in a few minutes.")
    for disk in disks:
        domain = context.state.storage_domains[disk.storage_domain_id]
        if domain.status != "active":
            raise conflict(f"{action}. The relevant Storage Domain's status is {domain.status.capitalize()}.")
