# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of a VM that is made from another: each is copied, whole or volume by volume, while the other VM goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ovirtlab.engine import access, disks, machines
from ovirtlab.engine.context import Context
from ovirtlab.engine.disks import DiskSpec
from ovirtlab.engine.entities.disks import Disk, DiskAttachment, DiskFormat
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Fault, conflict
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.records import FrozenVolume
from ovirtlab.engine.running import VM_LOCKED
from ovirtlab.engine.snapshots import rules
from ovirtlab.engine.snapshots.volumes import format_on_host
from ovirtlab.host.api import HostError

log = logging.getLogger(__name__)

ADD = "Cannot add VM"
_STARTED, _DONE, _FAILED = 37, 53, 60


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A disk that the new VM shall have: the volume that is copied, and how and where its copy shall be.

    `layers` are volumes below it that are copied as they are, the oldest first; without them all becomes one volume.
    """

    disk: Disk
    volume: FrozenVolume
    hung: DiskAttachment
    domain_id: str
    format: DiskFormat
    layers: tuple[FrozenVolume, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A piece and the disk that it becomes; `new_ids` are those of the copied layers, by the old ones."""

    piece: Piece
    sink: Disk
    new_ids: Mapping[str, str]

    def path(self, image_id: str) -> Path:
        """Where the copy of one of the piece's volumes lies."""
        return self.sink.path.with_name(self.new_ids.get(image_id, self.sink.image_id))


def check_source(context: Context, vm: Vm) -> None:
    """Refuse to copy the disks of a VM when it is being made itself, or one of its disks is busy."""
    state = context.state
    found = state.disks_of(vm)
    rules.check_unlocked(ADD, [(disk.alias, disk.status) for disk in found])
    for disk in found:
        domain = state.storage_domains[disk.storage_domain_id]
        if domain.status != "active":
            raise conflict(f"{ADD}. The relevant Storage Domain's status is {domain.status.capitalize()}.")
    if vm.image_locked:
        raise conflict(f"{ADD}: {VM_LOCKED}")


def record(context: Context, vm: Vm, *, cause: Cause) -> None:
    """Put the new VM into the state, locked until `fill` is done."""
    vm.status, vm.creation_time = "image_locked", context.clock.now()
    context.state.vms[vm.id] = vm
    machines.tell(context, vm, cause, _STARTED, f"VM {vm.name} creation was initiated by {cause.name}.")


def tell_end(context: Context, vm: Vm, *, made: bool, cause: Cause) -> None:
    """Tell how the making of a VM ended."""
    if made:
        machines.tell(context, vm, cause, _DONE, f"VM {vm.name} creation has been completed.")
    else:
        machines.tell(context, vm, cause, _FAILED, f"Failed to complete VM {vm.name} creation.", severity="error")


def check_pieces(context: Context, vm: Vm, pieces: Sequence[Piece]) -> None:
    """Refuse disks that the engine would not make, such as on a domain that is not active."""
    for piece in pieces:
        disks.check_new(context, _spec(vm, piece))


def register(context: Context, vm: Vm, pieces: Sequence[Piece], *, cause: Cause) -> list[Copy]:
    """Put the disks of the new VM into the state, locked and hung on it; `fill` makes their volumes."""
    return [_register(context, vm, piece, cause) for piece in pieces]


def _spec(vm: Vm, piece: Piece) -> DiskSpec:
    disk = piece.disk
    return DiskSpec(
        alias=f"{disk.alias}_{vm.name}",
        size=piece.volume.size,
        format=piece.format,
        storage_domain_id=piece.domain_id,
        description=disk.description,
        sparse=disk.sparse,
        backup=disk.backup if piece.format == "cow" else "none",
        content_type=disk.content_type,
        wipe_after_delete=disk.wipe_after_delete,
        propagate_errors=disk.propagate_errors,
        profile_id=disk.profile_id if piece.domain_id == disk.storage_domain_id else "",
    )


def _register(context: Context, vm: Vm, piece: Piece, cause: Cause) -> Copy:
    sink = disks.register(context, _spec(vm, piece))
    new_ids = {layer.image_id: context.state.new_id() for layer in piece.layers}
    context.state.attach(replace(piece.hung, disk_id=sink.id, vm_id=vm.id, target=""))
    access.give(context.state, cause.user, "DiskOperator", on=("disk", sink.id))
    return Copy(piece=piece, sink=sink, new_ids=new_ids)


async def fill(context: Context, vm: Vm, copies: Sequence[Copy]) -> bool:
    """Make the volumes of the new VM's disks, and unlock it; False, and nothing left of it, when a host fails."""
    try:
        for copy in copies:
            await _copy(context, copy)
            copy.sink.status = "ok"
    except (HostError, Fault) as error:
        log.warning("The disks of VM %s were not copied: %s", vm.name, error)
        for copy in copies:
            await _drop(context, copy)
        machines.forget(context, vm)
        return False
    vm.status = "down"
    return True


async def _copy(context: Context, copy: Copy) -> None:
    """Copy a disk as one volume, or its layers one over the other."""
    host, piece = context.any_host(), copy.piece
    below: FrozenVolume | None = None
    for layer in (*piece.layers, piece.volume):
        source, sink = piece.disk.path.with_name(layer.image_id), copy.path(layer.image_id)
        if below is None:
            fmt = layer.format if piece.layers else copy.sink.format
            await host.copy_volume(source, sink, format_on_host(fmt))
        else:
            await host.copy_layer(source, sink, backing=copy.path(below.image_id), fmt=format_on_host(below.format))
        below = layer
    copy.sink.volumes = [copy.new_ids[layer.image_id] for layer in piece.layers]


async def _drop(context: Context, copy: Copy) -> None:
    for layer in (*copy.piece.layers, copy.piece.volume):
        try:
            await context.any_host().delete_volume(copy.path(layer.image_id))
        except (HostError, Fault) as error:
            log.info("A volume of disk %s stays behind: %s", copy.sink.alias, error)
    disks.forget(context.state, copy.sink)
