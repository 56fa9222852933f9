# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine refuses when an image transfer is asked for, in the order in which it looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.faults import Fault, InternalError, conflict, invalid
from ovirtlab.engine.locks import Key
from ovirtlab.engine.records import Origin
from ovirtlab.engine.snapshots import volumes
from ovirtlab.engine.state import State

CANNOT = "Cannot transfer Virtual Disk"


@dataclass(frozen=True, kw_only=True)
class TransferRequest:
    """What a client asks for. `image_id` names a disk snapshot; `format` is empty when the client gave none."""

    disk_id: str
    direction: Literal["upload", "download"] = "upload"
    format: Literal["", "raw", "cow"] = ""
    timeout_policy: Literal["legacy", "pause", "cancel"] = "legacy"
    inactivity_timeout: int | None = None
    shallow: bool = False
    host_id: str = ""
    backup_id: str = ""
    image_id: str = ""
    origin: Origin = field(default_factory=Origin)


def needed_locks(state: State, request: TransferRequest) -> tuple[list[Key], list[Key]]:
    """What the transfer holds, exclusive and shared; a transfer of a backup relies on the locks of that."""
    if request.backup_id or request.disk_id not in state.disks:
        return [], []
    vms: list[Key] = [("vm", vm.id) for vm in state.vms_of_disk(request.disk_id)] if request.image_id else []
    disks: list[Key] = [("disk", request.disk_id)]
    return (disks, vms) if request.direction == "upload" else ([], disks + vms)


def image_of(state: State, request: TransferRequest) -> str:
    """The frozen volume that is read: of a disk snapshot, or of a hybrid backup's snapshot; empty for a disk."""
    backup = state.backups.get(request.backup_id)
    snapshot = state.snapshots.get(backup.snapshot_id) if backup is not None else None
    volume = snapshot.volumes.get(request.disk_id) if snapshot is not None else None
    return volume.image_id if volume is not None else request.image_id


def check(state: State, request: TransferRequest) -> None:
    """Raise the first refusal that applies."""
    if request.disk_id not in state.disks:
        raise invalid(f"{CANNOT}. The specified disk does not exist.")
    disk = state.disks[request.disk_id]
    fault = _unusable(state, request, disk) or (
        _backup_unusable(state, request) if request.backup_id else _disk_in_use(state, request, disk)
    )
    if fault is not None:
        raise fault


def _unusable(state: State, request: TransferRequest, disk: Disk) -> Fault | None:
    if _status(state, request, disk) == "illegal":
        return InternalError(
            f"[{CANNOT}. The following attached disks are in ILLEGAL status: {disk.alias}"
            " - please remove them and try again.]"
        )
    domain = state.storage_domains[disk.storage_domain_id]
    if domain.status != "active":
        return conflict(f"{CANNOT}. The relevant Storage Domain's status is {domain.status.capitalize()}.")
    return None


def _status(state: State, request: TransferRequest, disk: Disk) -> str:
    volume = volumes.find(state, disk, image_of(state, request) or disk.image_id)
    return volume.status if volume is not None else disk.status


def _backup_unusable(state: State, request: TransferRequest) -> Fault | None:
    backup = state.backups.get(request.backup_id)
    if backup is None:
        return invalid(f"{CANNOT}. The specified VM backup does not exist.")
    if backup.kind == "hybrid" and backup.snapshot_id not in state.snapshots:
        return invalid(f"{CANNOT}. VM's Snapshot does not exist.")
    if backup.phase != "ready":
        return conflict(f"{CANNOT}. The VM backup is not in READY phase, backup phase is {backup.phase.upper()}.")
    if request.format == "cow":
        return invalid(f"{CANNOT}. The specified format is not applicable for VM backup.")
    return None


def _disk_in_use(state: State, request: TransferRequest, disk: Disk) -> Fault | None:
    if not request.image_id:
        names = [
            vm.name
            for vm in state.vms_of_disk(disk.id)
            if vm.status not in ("down", "image_locked") and vm.attachments[disk.id].active
        ]
        if names:
            return conflict(f"{CANNOT}. The disk {disk.alias} is plugged to non-Down VMs: {', '.join(names)}")
    if _status(state, request, disk) == "locked":
        return conflict(f"{CANNOT}: The following disks are locked: {disk.alias}. Please try again in a few minutes.")
    return None
