# SPDX-License-Identifier: GPL-3.0-or-later
"""Clones of a VM that is down or runs: from a snapshot made for that and merged away again, or with all snapshots."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ovirtlab.engine import jobs, machines, networks, templates, vm_copies
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Fault, conflict
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.locks import Lock, releasing
from ovirtlab.engine.records import FrozenVolume, Snapshot
from ovirtlab.engine.snapshots import creating, merging, rules, volumes
from ovirtlab.engine.snapshots.creating import Creation, SnapshotRequest
from ovirtlab.engine.vm_copies import ADD, Copy, Piece

log = logging.getLogger(__name__)

DESCRIPTION = "Auto-generated for Clone VM"
_BEING_CLONED = "VM is being cloned."
_MORE_SETTINGS = (
    "affinity", "allowed_hosts", "cd_disk_id", "comment", "consoles", "delete_protected", "description", "numa_nodes",
    "origin",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CloneRequest:
    """What is asked for: a name, one domain for all disks or their own, and whether snapshots are cloned as well."""

    name: str
    domain_id: str = ""
    with_snapshots: bool = False


@dataclass(frozen=True, kw_only=True)
class Cloning:
    """A VM that becomes a clone of `source`, which is locked until the end: by way of a snapshot, or as it is."""

    vm: Vm
    source: Vm
    request: CloneRequest
    creation: Creation | None
    lock: Lock
    cause: Cause


def begin(context: Context, source: Vm, request: CloneRequest, *, cause: Cause) -> Cloning:
    """Lock, check and record a clone; `run` makes it."""
    lock = _lock(context, source)
    with releasing(lock):
        return _begin(context, source, request, cause, lock)


def _begin(context: Context, source: Vm, request: CloneRequest, cause: Cause, lock: Lock) -> Cloning:
    _check(context, source, request)
    vm = _twin(context, source, request.name)
    pieces = [_piece(context, source, disk, request) for disk in _own_disks(context, source)]
    vm_copies.check_pieces(context, vm, pieces)
    creation = None
    if not request.with_snapshots:
        wanted = SnapshotRequest(description=DESCRIPTION, quiet=True)
        creation = creating.begin_locked(context, source, wanted, cause=cause)
    vm_copies.record(context, vm, cause=cause)
    context.state.copy_stored(f"vms/{source.id}", f"vms/{vm.id}")
    return Cloning(vm=vm, source=source, request=request, creation=creation, lock=lock, cause=cause)


def _check(context: Context, source: Vm, request: CloneRequest) -> None:
    running = source.status != "down"
    if request.with_snapshots and running:
        raise conflict(f"{ADD}. At least one of the VMs is not down.")
    if source.kept.get("stateless") == "true" and running:
        raise conflict(f"{ADD}. The VM is running as Stateless. Please try again when VM is not running as Stateless.")
    rules.check_legal(ADD, [(disk.alias, disk.status) for disk in _own_disks(context, source)])
    vm_copies.check_source(context, source)
    machines.check_name(context, request.name)


def _lock(context: Context, source: Vm) -> Lock:
    disks = [("disk", disk.id) for disk in _own_disks(context, source)]
    return context.state.locks.take(exclusive=[("vm", source.id), *disks], why=_BEING_CLONED, action=ADD)


def _twin(context: Context, source: Vm, name: str) -> Vm:
    """The record of a clone: all settings of the VM, nothing of how it runs, and NICs with addresses of their own."""
    state = context.state
    vm = Vm(id=state.new_id(), name=name, cluster_id=source.cluster_id, memory=source.memory)
    for setting in (*templates.SETTINGS, *_MORE_SETTINGS):
        setattr(vm, setting, copy.deepcopy(getattr(source, setting)))
    vm.nics = networks.copies(state, source.nics.values(), vm)
    return vm


def _own_disks(context: Context, source: Vm) -> list[Disk]:
    return [disk for disk in context.state.disks_of(source) if not disk.shareable]


def _piece(context: Context, source: Vm, disk: Disk, request: CloneRequest) -> Piece:
    """A disk as the clone shall have it, with all its volumes or as one."""
    chain = [item.volume for item in volumes.chain(context.state, disk)]
    layers = tuple(chain[:-1]) if request.with_snapshots else ()
    return Piece(
        disk=disk,
        volume=chain[-1],
        hung=source.attachments[disk.id],
        domain_id=request.domain_id or disk.storage_domain_id,
        format=disk.format if layers else chain[0].format,
        layers=layers,
    )


async def run(context: Context, cloning: Cloning) -> None:
    """Copy the disks of the VM, which goes on meanwhile when it runs."""
    vm = cloning.vm
    text = f"Creating VM {vm.name} as a clone of VM {cloning.source.name}"
    job = jobs.begin(context.state, text, cause=cloning.cause)
    with cloning.lock:
        made = await (_clone_frozen(context, cloning) if cloning.creation else _clone_whole(context, cloning))
    jobs.end(context.state, job, succeeded=made)
    vm_copies.tell_end(context, vm, made=made, cause=cloning.cause)


async def _clone_frozen(context: Context, cloning: Cloning) -> bool:
    """Copy what a snapshot freezes."""
    creation, source = cloning.creation, cloning.source
    if creation is None or not await creating.run(context, creation):
        machines.forget(context, cloning.vm)
        return False
    snapshot = creation.snapshot
    snapshot.status = "locked"
    covered = [disk for disk in _own_disks(context, source) if disk.id in snapshot.volumes]
    pieces = [_piece(context, source, disk, cloning.request) for disk in covered]
    frozen = [replace(piece, volume=snapshot.volumes[piece.disk.id]) for piece in pieces]
    made = await _fill(context, cloning, frozen) is not None
    snapshot.status = "ok"
    try:
        await merging.run(context, merging.begin_locked(context, source, snapshot, cause=cloning.cause))
    except Fault as fault:
        log.info("The snapshot that VM %s was cloned from stays: %s", source.name, fault)
    return made


async def _clone_whole(context: Context, cloning: Cloning) -> bool:
    """Copy all volumes of all disks, and the snapshots that have frozen them."""
    source = cloning.source
    pieces = [_piece(context, source, disk, cloning.request) for disk in _own_disks(context, source)]
    copies = await _fill(context, cloning, pieces)
    if copies is not None:
        cloning.vm.template_id = source.template_id
        for snapshot in volumes.of_vm(context.state, source.id):
            _copy_snapshot(context, cloning, snapshot, copies)
    return copies is not None


async def _fill(context: Context, cloning: Cloning, pieces: Sequence[Piece]) -> list[Copy] | None:
    """Make the disks of a clone, and hang those on it that VMs share; None when it was given up."""
    state, vm, source = context.state, cloning.vm, cloning.source
    for disk in state.disks_of(source):
        if disk.shareable:
            state.attach(replace(source.attachments[disk.id], vm_id=vm.id, target=""))
    copies = vm_copies.register(context, vm, pieces, cause=cloning.cause)
    return copies if await vm_copies.fill(context, vm, copies) else None


def _copy_snapshot(context: Context, cloning: Cloning, snapshot: Snapshot, copies: Sequence[Copy]) -> None:
    """Write a snapshot down for a clone, with its copies of what it has frozen, under new names."""
    state, vm, source = context.state, cloning.vm, cloning.source
    names = {source.id: vm.id, f"<Name>{source.name}</Name>": f"<Name>{vm.name}</Name>"}
    frozen: dict[str, FrozenVolume] = {}
    for item in copies:
        volume = snapshot.volumes.get(item.piece.disk.id)
        if volume is not None:
            frozen[item.sink.id] = replace(volume, image_id=item.new_ids[volume.image_id])
        names |= {item.piece.disk.id: item.sink.id, **item.new_ids}
    nics = tuple(replace(nic, id=state.new_id(), vm_id=vm.id) for nic in snapshot.nics)
    names |= {old.id: new.id for old, new in zip(snapshot.nics, nics, strict=True)}
    configuration = snapshot.configuration
    for old, new in names.items():
        configuration = configuration.replace(old, new)
    twin = replace(snapshot, id=state.new_id(), vm_id=vm.id, configuration=configuration, nics=nics, volumes=frozen)
    state.snapshots[twin.id] = twin
