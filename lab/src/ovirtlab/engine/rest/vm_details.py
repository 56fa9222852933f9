# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies below a VM besides disks and NICs: CD-ROM, NUMA nodes, statistics and reported devices."""

from __future__ import annotations

import uuid

from ovirtlab.engine.entities.vms import NumaNode, Vm
from ovirtlab.engine.faults import NotFound, conflict, incomplete, invalid
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import Collection, Entity, Items, Value, link_to
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, statistic, vm_of
from ovirtlab.engine.rest.stored import StoredKind, serve

routes = Routes()

_NAMESPACE = uuid.UUID("7a0b3b9e-6f5d-4a55-8b1e-9d1f6f5b2c41")


@routes.get("vms/{vm}/cdroms")
async def list_cdroms(call: Call) -> Collection:
    return Collection("cdroms", "cdrom", [_show_cdrom(vm_of(call))])


@routes.get("vms/{vm}/cdroms/{cdrom}")
async def get_cdrom(call: Call) -> Entity:
    return _show_cdrom(_with_cdrom(call))


@routes.post("vms/{vm}/cdroms")
async def add_cdrom(call: Call) -> Created:
    """What is put into the one drive that each VM has."""
    vm = vm_of(call)
    if not call.body.text("file", "id"):
        raise incomplete("Cdrom", "file.id", "add")
    _insert(call, vm)
    return Created(lambda: _show_cdrom(vm))


@routes.put("vms/{vm}/cdroms/{cdrom}")
async def update_cdrom(call: Call) -> Entity:
    """Insert a disk of ISO content, or eject with an empty id; the lab's guests do not see it."""
    vm = _with_cdrom(call)
    if call.flag("current") and not vm.host_id:
        raise conflict("Cannot change CD. VM is not running.")
    _insert(call, vm)
    return _show_cdrom(vm)


def _insert(call: Call, vm: Vm) -> None:
    call.require("change_vm_cd", ("vm", vm.id))
    key = call.body.text("file", "id") or ""
    if key:
        disk = call.context.state.disks.get(key)
        if disk is None or disk.content_type != "iso":
            raise invalid("Cannot change CD. The specified ISO disk does not exist.")
    vm.cd_disk_id = key


@routes.get("vms/{vm}/numanodes")
async def list_numa_nodes(call: Call) -> Collection:
    vm = vm_of(call)
    return Collection("vm_numa_nodes", "vm_numa_node", [_show_node(vm, node) for node in vm.numa_nodes])


serve_members(routes, "vms/{vm}/numanodes/{node}", list_numa_nodes)


@routes.post("vms/{vm}/numanodes")
async def add_numa_node(call: Call) -> Created:
    vm, body = vm_of(call), call.body
    call.require("edit_vm_properties", ("vm", vm.id))
    wanted = body.integer("index")
    index = len(vm.numa_nodes) if wanted is None else wanted
    if any(other.index == index for other in vm.numa_nodes):
        raise conflict("Cannot add NUMA node. The index is already in use.")
    cores = (body.child("cpu") or Body()).list("cores", "core")
    node = NumaNode(
        id=call.context.state.new_id(),
        index=index,
        memory=body.integer("memory") or 0,
        cores=tuple(core.integer("index") or 0 for core in cores),
    )
    vm.numa_nodes.append(node)
    return Created(lambda: _show_node(vm, node))


@routes.delete("vms/{vm}/numanodes/{node}")
async def remove_numa_node(call: Call) -> Done:
    """Nodes go from the highest index down."""
    vm, key = vm_of(call), call.id("node")
    call.require("edit_vm_properties", ("vm", vm.id))
    found = next((node for node in vm.numa_nodes if node.id == key), None)
    if found is None:
        raise NotFound(call.path)
    if found.index != max(node.index for node in vm.numa_nodes):
        raise conflict("Cannot remove NUMA node. Only the node with the highest index can be removed.")
    vm.numa_nodes.remove(found)
    return Done()


def _place(call: Call) -> tuple[str, str]:
    return ("vm", vm_of(call).id)


WATCHDOGS = StoredKind(
    tag="watchdogs",
    member="watchdog",
    keeps=("action", "model"),
    needs=("action", "model"),
    permit="edit_vm_properties",
    place=_place,
    single=True,
)
serve(routes, WATCHDOGS, "vms/{vm}/watchdogs")


@routes.get("vms/{vm}/statistics")
async def list_statistics(call: Call) -> Collection:
    """Memory and disks as they are; load and traffic of a guest are not measured and stand at zero."""
    vm = vm_of(call)
    base = address("vms", vm.id)
    memory, on = float(vm.memory), bool(vm.host_id)
    values = [
        ("memory.installed", "Total memory configured", "bytes", memory),
        ("memory.used", "Memory used (agent)", "bytes", memory if on else 0.0),
        ("cpu.current.guest", "CPU used by guest", "percent", 0.0),
        ("cpu.current.hypervisor", "CPU overhead", "percent", 0.0),
        ("cpu.current.total", "Total CPU used", "percent", 0.0),
        ("migration.progress", "Migration Progress", "percent", float(vm.migration_progress)),
        ("elapsed.time", "Elapsed VM runtime", "seconds", _runtime(call, vm)),
    ]
    link = link_to("vm", vm.id)
    shown = [statistic(base, name, text, unit=unit, value=value, owner=link) for name, text, unit, value in values]
    return Collection("statistics", "statistic", shown)


serve_members(routes, "vms/{vm}/statistics/{statistic}", list_statistics)


@routes.get("vms/{vm}/reporteddevices")
async def list_reported_devices(call: Call) -> Collection:
    """What a guest's agent reports: its interfaces by address; the lab's guests have no IP addresses."""
    vm = vm_of(call)
    seen = [nic for nic in vm.nics.values() if nic.plugged] if vm.status == "up" and vm.agent else []
    shown = []
    for number, nic in enumerate(seen):
        key = str(uuid.uuid5(_NAMESPACE, nic.mac))
        fields: dict[str, Value] = {
            "name": f"eth{number}",
            "description": "guest reported data",
            "mac": Entity("mac", {"address": nic.mac}),
            "type": "network",
            "vm": link_to("vm", vm.id),
        }
        href = address("vms", vm.id, "reporteddevices", key)
        shown.append(Entity("reported_device", fields, id=key, href=href))
    return Collection("reported_devices", "reported_device", shown)


serve_members(routes, "vms/{vm}/reporteddevices/{device}", list_reported_devices)


def _runtime(call: Call, vm: Vm) -> float:
    if not vm.host_id or vm.start_time is None:
        return 0.0
    return (call.context.clock.now() - vm.start_time).total_seconds()


def _show_cdrom(vm: Vm) -> Entity:
    key = str(uuid.uuid5(_NAMESPACE, f"cdrom/{vm.id}"))
    fields: dict[str, Value] = {
        "file": Entity("file", id=vm.cd_disk_id) if vm.cd_disk_id else None,
        "vm": link_to("vm", vm.id),
    }
    return Entity("cdrom", fields, id=key, href=address("vms", vm.id, "cdroms", key))


def _with_cdrom(call: Call) -> Vm:
    vm = vm_of(call)
    if _show_cdrom(vm).id != call.id("cdrom"):
        raise NotFound(call.path)
    return vm


def _show_node(vm: Vm, node: NumaNode) -> Entity:
    cores = Items("core", [Entity("core", {"index": core}) for core in node.cores])
    fields: dict[str, Value] = {
        "cpu": Entity("cpu", {"cores": cores}) if node.cores else None,
        "index": node.index,
        "memory": node.memory,
        "vm": link_to("vm", vm.id),
    }
    return Entity("vm_numa_node", fields, id=node.id, href=address("vms", vm.id, "numanodes", node.id))
