# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots made: each disk goes on in a new volume over the one it had, in a running VM all in one moment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from ovirtlab.engine import jobs, ovf
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Fault
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.locks import releasing
from ovirtlab.engine.records import FrozenVolume, Snapshot
from ovirtlab.engine.snapshots import audit, rules, volumes
from ovirtlab.engine.snapshots.volumes import format_on_host
from ovirtlab.host.api import Host, HostError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SnapshotRequest:
    """What a client asks for. No `disk_ids` means all disks, plugged or not; `image_ids` are new volumes' ids by disk.

    `bitmap` is what the new volumes of qcow2 disks begin with: the checkpoint of a hybrid backup.
    """

    description: str
    disk_ids: tuple[str, ...] | None = None
    image_ids: Mapping[str, str] = field(default_factory=dict)
    memory: bool = False
    bitmap: str = ""
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class Creation:
    """A snapshot that is being made, with what it holds."""

    vm: Vm
    snapshot: Snapshot
    request: SnapshotRequest
    lock: AbstractContextManager[object]
    cause: Cause


def begin(context: Context, vm: Vm, request: SnapshotRequest, *, cause: Cause) -> Creation:
    """Lock, check and record a snapshot; `run` makes it. The VM is locked until then, and keeps its status."""
    lock = rules.take(context, vm, why=f"Snapshot is currently being created for VM {vm.name}.", action=rules.CREATE)
    with releasing(lock):
        return replace(begin_locked(context, vm, request, cause=cause), lock=lock)


def begin_locked(context: Context, vm: Vm, request: SnapshotRequest, *, cause: Cause) -> Creation:
    """Check and record a snapshot of a VM that its caller has locked, and keeps locked."""
    rules.check_named(context, vm, request.disk_ids or ())
    disks = _disks(context, vm, request)
    rules.check_creation(context, vm, disks, request.image_ids)
    state = context.state
    snapshot = Snapshot(
        id=state.new_id(),
        vm_id=vm.id,
        description=request.description,
        date=context.clock.now(),
        quiet=request.quiet,
        status="locked",
        configuration=ovf.write(state, vm),
        vm=replace(vm, status="down", host_id="", kept=dict(vm.kept), next_run={}),
        nics=tuple(replace(nic) for nic in vm.nics.values()),
        volumes={disk.id: volumes.active(disk) for disk in disks},
    )
    state.snapshots[snapshot.id] = snapshot
    for disk in disks:
        volumes.go_on(disk, request.image_ids.get(disk.id) or state.new_id())
        disk.status = "locked"
    audit.tell(context, snapshot, audit.CREATION_STARTED, cause=cause)
    return Creation(vm=vm, snapshot=snapshot, request=request, lock=nullcontext(), cause=cause)


async def run(context: Context, creation: Creation) -> bool:
    """Make a snapshot that was begun; False, and no snapshot left, when the host failed."""
    vm, snapshot, state = creation.vm, creation.snapshot, context.state
    text = f"Creating VM Snapshot {snapshot.description} for VM {vm.name}"
    job = jobs.begin(state, text, cause=creation.cause, listed=not snapshot.quiet)
    made = False
    with creation.lock:
        try:
            await _make(context, creation)
            made = True
        except (HostError, Fault) as error:
            log.info("Snapshot %s of VM %s was not made: %s", snapshot.id, vm.name, error)
            _go_back(context, snapshot)
        finally:
            _unlock(context, creation)
            jobs.end(state, job, succeeded=made)
    if made and creation.request.memory and rules.writes(vm):
        audit.tell(context, snapshot, audit.WITHOUT_MEMORY, cause=creation.cause)
    audit.tell(context, snapshot, audit.CREATED if made else audit.NOT_CREATED, cause=creation.cause)
    return made


def _disks(context: Context, vm: Vm, request: SnapshotRequest) -> list[Disk]:
    """The disks of the VM that are asked for; what no snapshot can hold, or is a snapshot itself, is left out."""
    own = [disk for disk in context.state.disks_of(vm) if not disk.shareable]
    return [disk for disk in own if request.disk_ids is None or disk.id in request.disk_ids]


async def _make(context: Context, creation: Creation) -> None:
    vm, snapshot = creation.vm, creation.snapshot
    host = context.host_of(vm) if rules.writes(vm) else context.any_host()
    disks = list(volumes.frozen_by(context.state, snapshot))
    try:
        for disk in disks:
            frozen = snapshot.volumes[disk.id]
            bitmaps = (creation.request.bitmap,) if creation.request.bitmap and frozen.format == "cow" else ()
            base = disk.path.with_name(frozen.image_id)
            await host.create_overlay(disk.path, base, format_on_host(frozen.format), bitmaps=bitmaps)
        plugged = [disk for disk in disks if vm.attachments[disk.id].active]  # nobody writes to the others
        if rules.writes(vm) and plugged:
            await _go_on(context, creation, {disk.id: disk.path for disk in plugged})
    except HostError:
        await _remove_overlays(host, disks)
        raise


async def _go_on(context: Context, creation: Creation, overlays: Mapping[str, Path]) -> None:
    """Let the running VM write to the new volumes from now on."""
    vm = creation.vm
    try:
        await context.host_of(vm).snapshot_vm(vm.id, overlays)
    except HostError:
        audit.tell(context, creation.snapshot, audit.NOT_LIVE, cause=creation.cause)
        raise


async def _remove_overlays(host: Host, disks: list[Disk]) -> None:
    for disk in disks:
        try:
            await host.delete_volume(disk.path)
        except HostError as error:
            log.info("The new volume of disk %s stays behind: %s", disk.alias, error)


def _go_back(context: Context, snapshot: Snapshot) -> None:
    """Forget a snapshot that was not made: its disks are in the volumes again that it was to freeze."""
    for disk in volumes.frozen_by(context.state, snapshot):
        volumes.go_back(disk, snapshot.volumes[disk.id])
    context.state.snapshots.pop(snapshot.id, None)


def _unlock(context: Context, creation: Creation) -> None:
    for disk in volumes.frozen_by(context.state, creation.snapshot):
        disk.status = "ok"
    creation.snapshot.status = "ok"


def covered(context: Context, vm: Vm) -> list[tuple[Disk, FrozenVolume]]:
    """The active volumes of a VM's disks, as the active snapshot has them."""
    return [(disk, volumes.chain(context.state, disk)[-1].volume) for disk in context.state.disks_of(vm)]
