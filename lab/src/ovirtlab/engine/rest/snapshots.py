# SPDX-License-Identifier: GPL-3.0-or-later
"""`/vms/{vm}/snapshots`: made, listed with what they hold, removed, and gone back to."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.networks import Nic
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import NotFound, incomplete
from ovirtlab.engine.ovf import write as write_ovf
from ovirtlab.engine.records import FrozenVolume, Snapshot
from ovirtlab.engine.rest.bodies import read_guid
from ovirtlab.engine.rest.disks import show as show_disk
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, nothing, vm_of
from ovirtlab.engine.rest.vms import describe
from ovirtlab.engine.snapshots import creating, merging, reverting, rules, volumes
from ovirtlab.engine.snapshots.creating import SnapshotRequest

routes = Routes()


@routes.get("vms/{vm}/snapshots")
async def list_snapshots(call: Call) -> Collection:
    vm = vm_of(call)
    return Collection("snapshots", "snapshot", [show(call, snapshot) for snapshot in snapshots_of(call, vm)])


@routes.post("vms/{vm}/snapshots")
async def add_snapshot(call: Call) -> Created:
    context, vm = call.context, vm_of(call)
    call.require(rules.PERMIT, ("vm", vm.id))
    creation = creating.begin(context, vm, _read(call), cause=cause_of(call))
    task = context.background.undertake(creating.run(context, creation), name=f"snapshot of VM {vm.name}")
    return Created(lambda: show(call, creation.snapshot), work=task)


@routes.get("vms/{vm}/snapshots/{snapshot}")
async def get_snapshot(call: Call) -> Entity:
    return show(call, find(call, vm_of(call)))


@routes.delete("vms/{vm}/snapshots/{snapshot}")
async def remove_snapshot(call: Call) -> Done:
    """Start the removal; clients poll until the snapshot is gone, or is there with illegal images."""
    context, vm = call.context, vm_of(call)
    snapshot = find(call, vm)
    call.require(rules.PERMIT, ("vm", vm.id))
    removal = merging.begin(context, vm, snapshot, cause=cause_of(call))
    context.background.undertake(merging.run(context, removal), name=f"removal of snapshot {snapshot.id}")
    return Done()


@routes.action("vms/{vm}/snapshots/{snapshot}/restore")
async def restore_snapshot(call: Call) -> Done:
    """Let the disks of a VM that is down go back to a snapshot, for good."""
    context, vm = call.context, vm_of(call)
    snapshot = find(call, vm)
    call.require(rules.PERMIT, ("vm", vm.id))
    reverting.lock_for_preview(context, vm, snapshot)
    work = reverting.restore(context, vm, snapshot, cause=cause_of(call))
    return Done(work=context.background.undertake(work, name=f"restore of VM {vm.name}"))


@routes.action("vms/{vm}/previewsnapshot")
async def preview_snapshot(call: Call) -> Done:
    context, vm = call.context, vm_of(call)
    call.require(rules.PERMIT, ("vm", vm.id))
    wanted = call.body.ref("snapshot")
    if wanted is None:
        raise incomplete("Action", "snapshot.id", "previewSnapshot")
    snapshot = _known(call, vm, wanted)
    reverting.lock_for_preview(context, vm, snapshot)
    work = reverting.preview(context, vm, snapshot, cause=cause_of(call))
    return Done(work=context.background.undertake(work, name=f"preview of VM {vm.name}"))


@routes.action("vms/{vm}/commitsnapshot")
async def commit_snapshot(call: Call) -> Done:
    return _end_preview(call, reverting.commit, final=True)


@routes.action("vms/{vm}/undosnapshot")
async def undo_snapshot(call: Call) -> Done:
    return _end_preview(call, reverting.undo, final=False)


def _end_preview(call: Call, act: Callable[..., Coroutine[Any, Any, None]], *, final: bool) -> Done:
    context, vm = call.context, vm_of(call)
    call.require(rules.PERMIT, ("vm", vm.id))
    reverting.lock_for_end(context, vm, final=final)
    work = act(context, vm, cause=cause_of(call))
    return Done(work=context.background.undertake(work, name=f"end of the preview of VM {vm.name}"))


@routes.get("vms/{vm}/snapshots/{snapshot}/disks")
async def list_disks(call: Call) -> Collection:
    vm = vm_of(call)
    snapshot = find(call, vm)
    return Collection("disks", "disk", [_show_disk(call, snapshot, *pair) for pair in _frozen(call, vm, snapshot)])


@routes.get("vms/{vm}/snapshots/{snapshot}/disks/{disk}")
async def get_disk(call: Call) -> Entity:
    vm, disk_id = vm_of(call), call.id("disk")
    snapshot = find(call, vm)
    for disk, volume in _frozen(call, vm, snapshot):
        if disk.id == disk_id:
            return _show_disk(call, snapshot, disk, volume)
    raise NotFound(call.path)


@routes.get("vms/{vm}/snapshots/{snapshot}/nics")
async def list_nics(call: Call) -> Collection:
    vm = vm_of(call)
    snapshot = find(call, vm)
    nics = tuple(vm.nics.values()) if snapshot.type == "active" else snapshot.nics
    return Collection("nics", "nic", [_show_nic(snapshot, nic) for nic in nics])


serve_members(routes, "vms/{vm}/snapshots/{snapshot}/nics/{nic}", list_nics)


@routes.get("vms/{vm}/snapshots/{snapshot}/cdroms")
async def list_cdroms(call: Call) -> Collection:
    find(call, vm_of(call))
    return nothing("cdroms", "cdrom")


def snapshots_of(call: Call, vm: Vm) -> list[Snapshot]:
    """The active one, whose id is the VM's in this lab, and the real ones."""
    date = vm.creation_time or call.context.clock.now()
    active = Snapshot(id=vm.id, vm_id=vm.id, description="Active VM", date=date, type="active")
    return [active, *volumes.of_vm(call.context.state, vm.id)]


def find(call: Call, vm: Vm) -> Snapshot:
    """The snapshot of the path."""
    return _known(call, vm, call.id("snapshot"))


def _known(call: Call, vm: Vm, wanted: str) -> Snapshot:
    for snapshot in snapshots_of(call, vm):
        if snapshot.id == wanted:
            return snapshot
    raise NotFound(call.path)


def show(call: Call, snapshot: Snapshot) -> Entity:
    """A snapshot; with `all_content` also the VM's configuration as it was, once the snapshot is made."""
    fields: dict[str, Value] = {
        "description": snapshot.description,
        "date": snapshot.date,
        "initialization": _initialization(call, snapshot) if call.flag("all_content") else None,
        "persist_memorystate": False,
        "snapshot_status": snapshot.status,
        "snapshot_type": snapshot.type,
        "vm": _vm_then(call, snapshot),
    }
    href = address("vms", snapshot.vm_id, "snapshots", snapshot.id)
    links = ("cdroms", "disks", "nics")
    return Entity("snapshot", fields, id=snapshot.id, href=href, links=links)


def _vm_then(call: Call, snapshot: Snapshot) -> Entity | None:
    """The VM as it was, which has no address; of the active one a link."""
    if snapshot.vm is None:
        return link_to("vm", snapshot.vm_id)
    return Entity("vm", describe(call, snapshot.vm), id=snapshot.vm_id)


def _initialization(call: Call, snapshot: Snapshot) -> Entity | None:
    if snapshot.status == "locked":
        return None
    state = call.context.state
    text = write_ovf(state, state.vms[snapshot.vm_id]) if snapshot.type == "active" else snapshot.configuration
    return Entity("initialization", {"configuration": Entity("configuration", {"data": text, "type": "ovf"})})


def _frozen(call: Call, vm: Vm, snapshot: Snapshot) -> list[tuple[Disk, FrozenVolume]]:
    if snapshot.type == "active":
        return creating.covered(call.context, vm)
    disks = call.context.state.disks
    return [(disks[disk_id], volume) for disk_id, volume in snapshot.volumes.items() if disk_id in disks]


def _show_disk(call: Call, snapshot: Snapshot, disk: Disk, volume: FrozenVolume) -> Entity:
    """A disk as a snapshot has it: its image is the disk snapshot to be downloaded."""
    entity = show_disk(call, disk)
    entity.fields = {
        **entity.fields,
        "format": volume.format,
        "image_id": volume.image_id or None,
        "provisioned_size": volume.size,
        "status": volumes.status_in(call.context.state, snapshot, disk),
        "snapshot": None if snapshot.type == "active" else _link(snapshot),
    }
    entity.href = address("vms", snapshot.vm_id, "snapshots", snapshot.id, "disks", disk.id)
    entity.links = ()
    return entity


def _show_nic(snapshot: Snapshot, nic: Nic) -> Entity:
    fields: dict[str, Value] = {
        "name": nic.name,
        "interface": nic.interface,
        "linked": nic.linked,
        "mac": Entity("mac", {"address": nic.mac}),
        "plugged": nic.plugged,
        "vm": link_to("vm", snapshot.vm_id),
        "vnic_profile": link_to("vnic_profile", nic.vnic_profile_id),
    }
    return Entity(
        "nic", fields, id=nic.id, href=address("vms", snapshot.vm_id, "snapshots", snapshot.id, "nics", nic.id)
    )


def _link(snapshot: Snapshot) -> Entity | None:
    return link_to("snapshot", snapshot.id, href=f"vms/{snapshot.vm_id}/snapshots/{snapshot.id}")


def _read(call: Call) -> SnapshotRequest:
    body = call.body
    description = body.text("description")
    if description is None:
        raise incomplete("Snapshot", "description", "add")
    disks = [item.child("disk") for item in body.list("disk_attachments", "disk_attachment")]
    named = {disk.id: disk.text("image_id") for disk in disks if disk is not None and disk.id}
    memory = body.flag("persist_memorystate")
    return SnapshotRequest(
        description=description,
        disk_ids=tuple(named) if "disk_attachments" in body else None,
        image_ids={disk_id: read_guid(image) for disk_id, image in named.items() if image},
        memory=True if memory is None else memory,
    )
