# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots made: each disk goes on in a new volume over the one it had, in a running VM all in one moment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ovirtlab.engine import jobs, ovf
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities import Disk, Vm
from ovirtlab.engine.faults import Fault, conflict, invalid
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.locks import Lock
from ovirtlab.engine.records import FrozenVolume, Snapshot
from ovirtlab.engine.snapshots import audit, rules, volumes
from ovirtlab.host.api import Host, HostError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SnapshotRequest:
    """What a client asks for. No `disk_ids` means all active disks; `image_ids` are new volumes' ids by disk.

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
    lock: Lock
    cause: Cause


def begin(context: Context, vm: Vm, request: SnapshotRequest, *, cause: Cause) -> Creation:
    """Check, lock and record a snapshot; `run` makes it."""
    disks = _disks(context, vm, request)
    rules.check_creation(context, vm, disks)
    why = f"Snapshot is currently being created for VM {vm.name}."
    lock = rules.take(context, vm, why=why, action=rules.CREATE)
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
        volumes={disk.id: FrozenVolume(image_id="", format=disk.format, size=disk.provisioned_size) for disk in disks},
    )
    state.snapshots[snapshot.id] = snapshot
    for disk in disks:
        disk.status = "locked"
    audit.tell(context, snapshot, audit.CREATION_STARTED, cause=cause)
    if vm.status == "down":
        vm.status = "image_locked"
    return Creation(vm=vm, snapshot=snapshot, request=request, lock=lock, cause=cause)


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
            state.snapshots.pop(snapshot.id, None)
        finally:
            _unlock(context, creation)
            jobs.end(state, job, succeeded=made)
    if made and creation.request.memory and rules.is_alive(vm):
        audit.tell(context, snapshot, audit.WITHOUT_MEMORY, cause=creation.cause)
    audit.tell(context, snapshot, audit.CREATED if made else audit.NOT_CREATED, cause=creation.cause)
    return made


def _disks(context: Context, vm: Vm, request: SnapshotRequest) -> list[Disk]:
    if request.disk_ids is None:
        mine = context.state.disks_of(vm)
        return [disk for disk in mine if vm.attachments[disk.id].active and not disk.shareable]
    missing = [disk_id for disk_id in request.disk_ids if disk_id not in context.state.disks]
    if missing:
        raise invalid(f"{rules.CREATE}. The following disk(s) ID(s) does not exist: {', '.join(missing)}.")
    for image_id in request.image_ids.values():
        if any(image_id in (disk.image_id, *disk.volumes) for disk in context.state.disks.values()):
            raise conflict(f"{rules.CREATE}. The selected image ID: {image_id} is already in use.")
    return [context.state.disks[disk_id] for disk_id in request.disk_ids]


async def _make(context: Context, creation: Creation) -> None:
    vm, request, state = creation.vm, creation.request, context.state
    host = context.host_of(vm) if rules.is_alive(vm) else context.any_host()
    disks = [state.disks[disk_id] for disk_id in creation.snapshot.volumes]
    new_ids = {disk.id: request.image_ids.get(disk.id) or state.new_id() for disk in disks}
    try:
        for disk in disks:
            bitmaps = (request.bitmap,) if request.bitmap and disk.format == "cow" else ()
            overlay = disk.path.with_name(new_ids[disk.id])
            await host.create_overlay(overlay, disk.path, disk.volume_format, bitmaps=bitmaps)
        if rules.is_alive(vm) and disks:
            await _go_on(context, creation, {disk.id: disk.path.with_name(new_ids[disk.id]) for disk in disks})
    except HostError:
        await _remove_overlays(host, disks, new_ids)
        raise
    for disk in disks:
        frozen = FrozenVolume(image_id=disk.image_id, format=disk.format, size=disk.provisioned_size)
        creation.snapshot.volumes[disk.id] = frozen
        disk.volumes.append(disk.image_id)
        disk.image_id = new_ids[disk.id]
        disk.path, disk.format, disk.sparse = disk.path.with_name(disk.image_id), "cow", True


async def _go_on(context: Context, creation: Creation, overlays: Mapping[str, Path]) -> None:
    """Let the running VM write to the new volumes from now on."""
    vm = creation.vm
    try:
        await context.host_of(vm).snapshot_vm(vm.id, overlays)
    except HostError:
        audit.tell(context, creation.snapshot, audit.NOT_LIVE, cause=creation.cause)
        raise


async def _remove_overlays(host: Host, disks: list[Disk], new_ids: Mapping[str, str]) -> None:
    for disk in disks:
        try:
            await host.delete_volume(disk.path.with_name(new_ids[disk.id]))
        except HostError as error:
            log.info("The new volume of disk %s stays behind: %s", disk.alias, error)


def _unlock(context: Context, creation: Creation) -> None:
    for disk_id in creation.snapshot.volumes:
        context.state.disks[disk_id].status = "ok"
    creation.snapshot.status = "ok"
    if creation.vm.status == "image_locked":
        creation.vm.status = "down"


def covered(context: Context, vm: Vm) -> list[tuple[Disk, FrozenVolume]]:
    """The active volumes of a VM's disks, as the active snapshot has them."""
    return [(disk, volumes.chain(context.state, disk)[-1].volume) for disk in context.state.disks_of(vm)]
