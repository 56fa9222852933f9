# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs made from what a snapshot has frozen: its disks are copied, and the VM is as it was then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ovirtlab.engine import jobs, vm_copies
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk, DiskAttachment, DiskFormat
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import conflict
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.locks import Lock
from ovirtlab.engine.ovf_reader import OvfVm
from ovirtlab.engine.records import FrozenVolume, Snapshot
from ovirtlab.engine.snapshots import rules, volumes
from ovirtlab.engine.templates import Wish, Wishes
from ovirtlab.engine.vm_copies import ADD, Copy, Piece


@dataclass(frozen=True, kw_only=True)
class Making:
    """A VM that is being made, with what it holds."""

    vm: Vm
    snapshot: Snapshot
    copies: Sequence[Copy]
    lock: Lock
    cause: Cause


def check(context: Context, snapshot: Snapshot) -> None:
    """Refuse a snapshot from which no VM can be made now."""
    source = context.state.vms[snapshot.vm_id]
    holder = context.state.locks.holder([("vm", source.id)])
    if holder is not None:
        raise conflict(holder.refusal(ADD))
    rules.check_idle(context, source, ADD)
    rules.check_regular(snapshot, ADD)
    rules.check_not_in_preview(context, source, ADD)
    vm_copies.check_source(context, source)


def pieces_of(context: Context, snapshot: Snapshot, ovf: OvfVm, wishes: Wishes) -> list[Piece]:
    """What a VM from a snapshot has of its disks; `wishes` are by image id. Illegal volumes are left out."""
    pieces = []
    for described in ovf.disks:
        disk, volume = context.state.disks.get(described.id), snapshot.volumes.get(described.id)
        if disk is None or volume is None or volumes.is_illegal(snapshot, disk):
            continue
        wish = wishes.get(volume.image_id, Wish())
        pieces.append(
            Piece(
                disk=disk,
                volume=volume,
                hung=DiskAttachment(
                    disk_id=disk.id,
                    vm_id=snapshot.vm_id,
                    interface=described.interface,
                    bootable=described.bootable,
                    active=described.active,
                    read_only=described.read_only,
                    pass_discard=described.pass_discard,
                ),
                domain_id=wish.domain_id or disk.storage_domain_id,
                format=_format(context, disk, volume, wish),
            )
        )
    return pieces


def _format(context: Context, disk: Disk, volume: FrozenVolume, wish: Wish) -> DiskFormat:
    """What is asked for, when that is another than the volume has; else that of the volume at the bottom."""
    if wish.format and wish.format != volume.format:
        return wish.format
    return volumes.chain(context.state, disk)[0].volume.format


def begin(context: Context, vm: Vm, snapshot: Snapshot, pieces: Sequence[Piece], *, cause: Cause) -> Making:
    """Lock a checked snapshot and record the VM that `run` makes of pieces of it."""
    vm_copies.check_pieces(context, vm, pieces)
    held = [("vm", snapshot.vm_id), *(("disk", piece.disk.id) for piece in pieces)]
    lock = context.state.locks.take(exclusive=held, why=rules.DURING_SNAPSHOT, action=ADD)
    vm_copies.record(context, vm, cause=cause)
    copies = vm_copies.register(context, vm, pieces, cause=cause)
    snapshot.status = "locked"
    return Making(vm=vm, snapshot=snapshot, copies=copies, lock=lock, cause=cause)


async def run(context: Context, making: Making) -> None:
    """Copy what the snapshot has frozen."""
    vm, snapshot = making.vm, making.snapshot
    cluster = context.state.clusters[vm.cluster_id].name
    text = f"Creating VM {vm.name} from Snapshot {snapshot.description} in Cluster {cluster}"
    job = jobs.begin(context.state, text, cause=making.cause)
    with making.lock:
        made = await vm_copies.fill(context, vm, making.copies)
        snapshot.status = "ok"
    jobs.end(context.state, job, succeeded=made)
    vm_copies.tell_end(context, vm, made=made, cause=making.cause)
