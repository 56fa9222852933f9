# SPDX-License-Identifier: GPL-3.0-or-later
"""`/vms/{vm}/snapshots`, to be read: the active one and those that backups leave."""

from __future__ import annotations

from ovirtlab.engine.entities import Vm
from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.records import Snapshot
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import address, vm_of

routes = Routes()


@routes.get("vms/{vm}/snapshots")
async def list_snapshots(call: Call) -> Collection:
    vm = vm_of(call)
    return Collection("snapshots", "snapshot", [show(snapshot) for snapshot in snapshots_of(call, vm)])


@routes.get("vms/{vm}/snapshots/{snapshot}")
async def get_snapshot(call: Call) -> Entity:
    vm, wanted = vm_of(call), call.id("snapshot")
    for snapshot in snapshots_of(call, vm):
        if snapshot.id == wanted:
            return show(snapshot)
    raise NotFound(call.path)


def snapshots_of(call: Call, vm: Vm) -> list[Snapshot]:
    """The active one, whose id is the VM's in this lab, and the real ones."""
    date = vm.creation_time or call.context.clock.now()
    active = Snapshot(id=vm.id, vm_id=vm.id, description="Active VM", date=date, type="active")
    return [active, *(item for item in call.context.state.snapshots.values() if item.vm_id == vm.id)]


def show(snapshot: Snapshot) -> Entity:
    fields: dict[str, Value] = {
        "description": snapshot.description,
        "date": snapshot.date,
        "persist_memorystate": False,
        "snapshot_status": snapshot.status,
        "snapshot_type": snapshot.type,
        "vm": link_to("vm", snapshot.vm_id),
    }
    href = address("vms", snapshot.vm_id, "snapshots", snapshot.id)
    return Entity("snapshot", fields, id=snapshot.id, href=href, links=("cdroms", "disks", "nics"))
