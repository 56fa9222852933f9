# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine refuses when a snapshot is to be made, removed or gone back to, in the order in which it looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Conflict, InternalError, conflict, invalid
from ovirtlab.engine.locks import Lock
from ovirtlab.engine.records import Snapshot
from ovirtlab.engine.snapshots import volumes

CREATE = "Cannot create Snapshot"
REMOVE = "Cannot remove Snapshot"
REMOVE_DISK = "Cannot remove Disk Snapshot"
PREVIEW = "Cannot preview Snapshot"
REVERT = "Cannot revert to Snapshot"
PERMIT = "manipulate_vm_snapshots"
BUSY = "Related operation is currently in progress. Please try again later."
DURING_SNAPSHOT = (
    "The VM is performing an operation on a Snapshot. Please wait for the operation to finish, and try again."
)
_MERGES_LIVE = frozenset({"up", "powering_up", "paused", "reboot_in_progress"})
_WRITES = frozenset(
    {"up", "powering_down", "powering_up", "migrating", "wait_for_launch", "reboot_in_progress", "paused"}
)
_IN_BETWEEN = frozenset({"saving_state", "restoring_state"})
_ENDS_PREVIEWS = frozenset({"down", "up", "suspended", "unknown"})  # the engine's own choice
_CANNOT_BE_FROZEN = frozenset({"migrating", "suspended", "image_locked", "not_responding", "unassigned", "unknown"})


def merges_live(vm: Vm) -> bool:
    """Whether the VM's own QEMU merges a snapshot that is removed."""
    return vm.status in _MERGES_LIVE


def writes(vm: Vm) -> bool:
    """Whether a QEMU writes to the VM's disks, which must go on in the new volumes of a snapshot."""
    return vm.status in _WRITES and bool(vm.host_id)


def check_named(context: Context, vm: Vm, disk_ids: Iterable[str]) -> None:
    """Refuse disks that a client has named and of which this VM cannot have a snapshot."""
    disks = context.state.disks
    named = sorted(disk_ids)
    if missing := [disk_id for disk_id in named if disk_id not in disks]:
        raise invalid(f"{CREATE}. The following disk(s) ID(s) does not exist: {', '.join(missing)}.")
    hung = {attachment.disk_id for attachment in vm.hung}
    if shared := [disks[disk_id].alias for disk_id in named if disk_id in hung and disks[disk_id].shareable]:
        raise invalid(f"{CREATE}. Snapshot is not allowed for the following disk(s): {', '.join(shared)}.")
    if strange := [disks[disk_id].alias for disk_id in named if disk_id not in hung]:
        raise invalid(f"{CREATE}. The following disk(s) are not attached to the VM {vm.name}: {', '.join(strange)}.")


def check_creation(context: Context, vm: Vm, disks: list[Disk], image_ids: Mapping[str, str]) -> None:
    """Refuse a snapshot of these disks that cannot be made now; `image_ids` are new volumes' ids by disk."""
    if vm.status in _IN_BETWEEN:
        raise conflict(
            f"{CREATE}. VM is in saving/restoring state.\n-Please try again when the VM is either up or down."
        )
    if vm.status in _CANNOT_BE_FROZEN:
        raise wrong_status(vm, CREATE)
    check_settled(context, vm, CREATE)
    if writes(vm) and vm.kept.get("stateless") == "true":
        raise conflict(
            f"{CREATE}. The VM is running as Stateless. Please try again when VM is not running as Stateless."
        )
    if disks:
        check_unlocked(CREATE, ((disk.alias, disk.status) for disk in disks))
        check_legal(CREATE, ((disk.alias, disk.status) for disk in disks))
        if "localdisk" in vm.custom_properties:
            raise conflict(f"{CREATE}. VM is configured with 'localdisk' user property.")
        _check_image_ids(context, image_ids)
    _check_domains(context, disks, CREATE)


def check_removal(context: Context, vm: Vm, snapshot: Snapshot) -> None:
    """Refuse the removal of a snapshot that cannot be done now; a running VM is what mends illegal images."""
    if _is_being_merged(context, vm, snapshot):
        raise conflict(f"{REMOVE}. {DURING_SNAPSHOT}")
    check_not_in_preview(context, vm, REMOVE)
    check_regular(snapshot, REMOVE)
    check_mergeable(vm, REMOVE)
    check_not_elsewhere(context, REMOVE, [disk.id for disk in context.state.disks_of(vm)])
    disks = list(volumes.frozen_by(context.state, snapshot))
    changed = [(item.disk.alias, item.status) for item in volumes.in_removal(context.state, snapshot)]
    check_unlocked(REMOVE, changed)
    if merges_live(vm):
        _check_plugged(vm, disks)
    else:
        check_legal(REMOVE, changed)
    _check_domains(context, disks, REMOVE)


def check_disk_removal(context: Context, vm: Vm, snapshot: Snapshot, disk: Disk) -> None:
    """Refuse to remove one disk of a snapshot when that cannot be done now."""
    whole = [(disk.alias, item.status) for item in volumes.chain(context.state, disk)]
    check_unlocked(REMOVE_DISK, whole)
    check_legal(REMOVE_DISK, whole)
    check_not_elsewhere(context, REMOVE_DISK, [disk.id])
    if vm.attachments[disk.id].active:
        check_mergeable(vm, REMOVE_DISK)
    check_settled(context, vm, REMOVE_DISK)
    check_regular(snapshot, REMOVE_DISK)
    _check_domains(context, [disk], REMOVE_DISK)


def check_preview(context: Context, vm: Vm, snapshot: Snapshot) -> None:
    """Refuse to go back to a snapshot when the VM is not down or something is in the way."""
    if vm.status != "down":
        raise conflict(f"{PREVIEW}. At least one of the VMs is not down.")
    check_settled(context, vm, PREVIEW)
    own = [disk for disk in context.state.disks_of(vm) if not disk.shareable]
    back = [(disk.alias, volumes.status_in(context.state, snapshot, disk)) for disk in own]
    for images in ([(disk.alias, disk.status) for disk in own], back):
        check_legal(PREVIEW, images)
        check_unlocked(PREVIEW, images)
    check_regular(snapshot, PREVIEW)
    _check_domains(context, own, PREVIEW)


def check_preview_ends(context: Context, vm: Vm) -> None:
    """Refuse to commit or to undo a preview that there is not, or that cannot end now."""
    if preview_of(context, vm) is None:
        raise invalid(f"{REVERT}. VM's Snapshot does not exist.")
    own = [disk for disk in context.state.disks_of(vm) if not disk.shareable]
    _check_domains(context, own, REVERT)
    check_unlocked(REVERT, [(disk.alias, disk.status) for disk in own])
    if vm.status not in _ENDS_PREVIEWS:
        raise wrong_status(vm, REVERT)


def check_not_elsewhere(context: Context, action: str, disk_ids: Iterable[str]) -> None:
    """Refuse while snapshots of these disks hang on VMs."""
    found = volumes.attached_elsewhere(context.state, disk_ids)
    if found:
        info = "%n".join(found)  # as the engine leaves it
        raise conflict(
            f"{action}. The following VM's disks snapshots are attached to other VMs (Disk Alias/Snapshot "
            f"Description/VM attached to):\n\n {info} \n\nPlease detach them from those VMs and try again."
        )


def check_no_backup(context: Context, vm: Vm, action: str) -> None:
    """Refuse while a backup of the VM is under way."""
    if any(backup.vm_id == vm.id and not backup.has_ended for backup in context.state.backups.values()):
        raise conflict(f"{action}. The VM is during a backup operation.")


def check_idle(context: Context, vm: Vm, action: str) -> None:
    """Refuse while a snapshot of the VM is made, removed, or copied."""
    if any(item.status == "locked" for item in volumes.of_vm(context.state, vm.id)):
        raise conflict(f"{action}. {DURING_SNAPSHOT}")


def check_not_in_preview(context: Context, vm: Vm, action: str) -> None:
    """Refuse while a snapshot of the VM is previewed."""
    if preview_of(context, vm) is not None:
        raise conflict(f"{action}. VM is previewing a Snapshot.")


def check_settled(context: Context, vm: Vm, action: str) -> None:
    """Refuse while a snapshot of the VM is made, removed, copied or previewed."""
    check_idle(context, vm, action)
    check_not_in_preview(context, vm, action)


def check_regular(snapshot: Snapshot, action: str) -> None:
    """Refuse the active snapshot, and what a preview has put aside."""
    if snapshot.type != "regular":
        raise conflict(f"{action}. The operation is only allowed for regular snapshots.")


def check_mergeable(vm: Vm, action: str) -> None:
    """Refuse a VM in a status in which its snapshots are merged neither live nor cold."""
    if vm.status != "down" and not merges_live(vm):
        raise conflict(f"{action}. VM {vm.name} must be in status Down, Up or Paused.")


def check_unlocked(action: str, images: Iterable[tuple[str, str]]) -> None:
    """Refuse images, as (alias, status), of which one is locked."""
    locked = [alias for alias, status in images if status == "locked"]
    if locked:
        names = ", ".join(locked)
        raise conflict(f"{action}: The following disks are locked: {names}. Please try again in a few minutes.")


def check_legal(action: str, images: Iterable[tuple[str, str]]) -> None:
    """Refuse images, as (alias, status), of which one is illegal; the engine takes that for an error of its own."""
    illegal = [alias for alias, status in images if status == "illegal"]
    if illegal:
        raise InternalError(
            f"[{action}. The following attached disks are in ILLEGAL status: {', '.join(illegal)}"
            " - please remove them and try again.]"
        )


def preview_of(context: Context, vm: Vm) -> Snapshot | None:
    """What keeps the VM as it was before the preview it is in."""
    return next((item for item in volumes.of_vm(context.state, vm.id) if item.type == "preview"), None)


def take(context: Context, vm: Vm, *, action: str, why: str = BUSY) -> Lock:
    """The lock of the VM, for the time of a request or of a whole act."""
    return context.state.locks.take(exclusive=[("vm", vm.id)], why=why, action=action)


def wrong_status(vm: Vm, action: str) -> Conflict:
    """The refusal for a VM in a status in which an act is never possible."""
    words = " ".join(word if word in ("for", "in") else word.capitalize() for word in vm.status.split("_"))
    return conflict(f"{action} because the VM is in {words} status.")


def _is_being_merged(context: Context, vm: Vm, snapshot: Snapshot) -> bool:
    busy = [item for item in volumes.of_vm(context.state, vm.id) if item.status == "locked"]
    return any(disk_id in item.volumes or disk_id in item.stash for item in busy for disk_id in snapshot.volumes)


def _check_plugged(vm: Vm, disks: list[Disk]) -> None:
    loose = [disk.alias for disk in disks if disk.id not in vm.attachments or not vm.attachments[disk.id].active]
    if loose:
        names = "\n".join(loose)
        raise conflict(f"{REMOVE}. The following disks are either unplugged or unattached: \n {names}")


def _check_image_ids(context: Context, image_ids: Mapping[str, str]) -> None:
    known = {image_id for disk in context.state.disks.values() for image_id in (disk.image_id, *disk.volumes)}
    taken = [image_id for image_id in image_ids.values() if image_id in known]
    if taken:
        names = ",\n".join(f"\t{image_id}" for image_id in taken)
        raise conflict(f"{CREATE}. Image IDs {names} are already used by a snapshot.")


def _check_domains(context: Context, disks: list[Disk], action: str) -> None:
    for disk in disks:
        domain = context.state.storage_domains[disk.storage_domain_id]
        if domain.status != "active":
            raise conflict(f"{action}. The relevant Storage Domain's status is {domain.status.capitalize()}.")
