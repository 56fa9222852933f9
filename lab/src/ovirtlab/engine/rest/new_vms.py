# SPDX-License-Identifier: GPL-3.0-or-later
"""`POST /vms`: from a template, from a snapshot, or from the configuration in an OVF."""

from __future__ import annotations

import copy

from ovirtlab.engine import machines, networks, ovf_reader, templates, unfreezing
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.vms import Template, Vm
from ovirtlab.engine.faults import Conflict, Fault, NotFound, conflict, incomplete, invalid
from ovirtlab.engine.machines import ImportOptions
from ovirtlab.engine.records import Snapshot
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.disks import find_domain, read_backup, read_format
from ovirtlab.engine.rest.routing import Call, Created, Routes
from ovirtlab.engine.rest.shapes import cause_of
from ovirtlab.engine.rest.vm_properties import change, give_sound
from ovirtlab.engine.rest.vms import show
from ovirtlab.engine.state import BLANK
from ovirtlab.engine.templates import Wish

routes = Routes()


@routes.post("vms")
async def add_vm(call: Call) -> Created:
    configuration = call.body.text("initialization", "configuration", "data")
    if configuration is not None:
        return _import(call, configuration)
    snapshots = call.body.list("snapshots", "snapshot")
    return _unfreeze(call, snapshots[0]) if snapshots else _add(call)


def _add(call: Call) -> Created:
    context, body = call.context, call.body
    for name in ("cluster", "template", "name"):
        if name not in body:
            raise incomplete("Vm", "name, cluster.id|name, template.id|name", "add")
    cluster_id = find_cluster(context, body)
    call.require("create_vm", ("cluster", cluster_id))
    template = find_template(context, body)
    vm = Vm(id=body.id or context.state.new_id(), name="", cluster_id=cluster_id, memory=template.memory)
    for name, value in template.settings.items():
        setattr(vm, name, copy.copy(value))
    machines.check_name(context, body.text("name") or "")
    change(context, vm, body)
    clone, wishes = bool(call.flag("clone")), read_wishes(context, body)
    if "soundcard_enabled" not in body:
        give_sound(context.state, vm, from_scratch=template.id == BLANK and not clone)
    copies = templates.plan_disks(context, vm, template, wishes=wishes, clone=clone)
    vm.nics = networks.copies(context.state, template.nics.values(), vm)
    machines.add(context, vm, cause=cause_of(call))
    vm.template_id = BLANK if clone else template.id
    give_to_creator(call, vm)
    if not copies:
        return Created(lambda: show(call, vm))
    work = templates.fill_vm(context, vm, template, copies, cause=cause_of(call))
    task = context.background.undertake(work, name=f"disks of VM {vm.name}")
    return Created(lambda: show(call, vm), work=task)


def _unfreeze(call: Call, chosen: Body) -> Created:
    """Make a VM from a snapshot, as it was then but for what the request says of it."""
    context, body = call.context, call.body
    for name in ("cluster", "name"):
        if name not in body:
            raise incomplete("Vm", "name, cluster.id|name", "add")
    snapshot = _snapshot(call, chosen)
    cluster_id = find_cluster(context, body)
    call.require("create_vm", ("cluster", cluster_id))
    call.require("create_vm", ("vm", snapshot.vm_id))
    unfreezing.check(context, snapshot)
    source = ovf_reader.read(snapshot.configuration)
    machines.check_name(context, body.text("name") or "")
    vm = machines.describe(source, id=body.id or context.state.new_id(), name="", cluster_id=cluster_id)
    change(context, vm, body)
    options = ImportOptions(cluster_id=cluster_id, regenerate_ids=True)
    vm.nics = {nic.id: nic for nic in machines.read_nics(context, vm, source.nics, options)}
    wishes = {disk.text("image_id") or "": _wish(context, disk) for disk in _disks(body)}
    pieces = unfreezing.pieces_of(context, snapshot, source, wishes)
    for piece in pieces:
        call.require("create_disk", ("storage_domain", piece.domain_id))
    making = unfreezing.begin(context, vm, snapshot, pieces, cause=cause_of(call))
    give_to_creator(call, vm)
    task = context.background.undertake(unfreezing.run(context, making), name=f"VM {vm.name} from a snapshot")
    return Created(lambda: show(call, vm), work=task)


def _snapshot(call: Call, chosen: Body) -> Snapshot:
    if chosen.id is None:
        raise incomplete("Snapshot", "id", "validateSnapshotExistence")
    snapshot = call.context.state.snapshots.get(chosen.id)
    if snapshot is None:
        raise NotFound(call.path)
    return snapshot


def _import(call: Call, configuration: str) -> Created:
    """Make a VM from an OVF: 201 at once, the VM is image_locked until the import is done."""
    context, body = call.context, call.body
    kind = body.text("initialization", "configuration", "type")
    if kind not in (None, "ovf"):
        raise invalid(f"Cannot import VM. The configuration type {kind} is not supported.")
    source = ovf_reader.read(configuration)
    cluster_id = find_cluster(context, body) if "cluster" in body else _cluster_of(context, source.cluster)
    call.require("import_export_vm", ("cluster", cluster_id))
    call.require("create_vm", ("cluster", cluster_id))
    options = ImportOptions(
        cluster_id=cluster_id,
        name=body.text("name") or "",
        regenerate_ids=body.flag("initialization", "regenerate_ids") or call.flag("clone"),
        profiles=_profiles(body),
        reassign_bad_macs=_reassign(body),
    )
    vm = machines.import_vm(context, source, options, cause=cause_of(call))
    give_to_creator(call, vm)
    work = machines.finish_import(context, vm, cause=cause_of(call))
    context.background.undertake(work, name=f"import VM {vm.name}")
    return Created(lambda: show(call, vm))


def find_cluster(context: Context, body: Body) -> str:
    """The id of the cluster a request names by id or name."""
    clusters = context.state.clusters
    cluster_id, name = body.ref("cluster"), body.text("cluster", "name")
    if cluster_id in clusters:
        return cluster_id or ""
    for cluster in clusters.values():
        if cluster_id is None and cluster.name == name:
            return cluster.id
    raise _unknown_cluster(cluster_id or name or "")


def _cluster_of(context: Context, name: str) -> str:
    for cluster in context.state.clusters.values():
        if cluster.name == name:
            return cluster.id
    raise _unknown_cluster(name)


def _unknown_cluster(name: str) -> Fault:
    return Conflict(f"[Cannot add VM. Cluster {name} does not exist.]")


def find_template(context: Context, body: Body) -> Template:
    """The template a request names by id, or by name and then its newest version; one that is made yet is refused."""
    key, name = body.ref("template"), body.text("template", "name")
    known = context.state.templates.values()
    found = [item for item in known if item.id == key or (key is None and item.name == name)]
    if not found:
        raise invalid("Cannot add VM. The specified Template doesn't exist.")
    template = max(found, key=lambda item: item.version)
    if template.status != "ok":
        raise conflict("Cannot add VM. The Template is locked. Please try again later.")
    return template


def read_wishes(context: Context, body: Body) -> dict[str, Wish]:
    """What a request wants of the copies of disks, by id of the disk they are copied from."""
    return {disk.id: _wish(context, disk) for disk in _disks(body) if disk.id is not None}


def _disks(body: Body) -> list[Body]:
    return [item.child("disk") or Body() for item in body.list("disk_attachments", "disk_attachment")]


def _wish(context: Context, disk: Body) -> Wish:
    form, backup = disk.text("format"), disk.text("backup")
    placed = "storage_domains" in disk or "storage_domain" in disk
    return Wish(
        domain_id=find_domain(context, disk) if placed else "",
        alias=disk.text("alias") or disk.text("name") or "",
        format=None if form is None else read_format(form),
        sparse=disk.flag("sparse"),
        backup=None if backup is None else read_backup(backup),
    )


def _profiles(body: Body) -> dict[tuple[str, str], str]:
    """Mappings of vNIC profiles: `registration_configuration` or the older `vnic_profile_mappings`."""
    mappings = body.list("vnic_profile_mappings", "vnic_profile_mapping")
    found = {}
    for mapping in mappings:
        source = (mapping.text("source_network_name") or "", mapping.text("source_network_profile_name") or "")
        target = mapping.ref("target_vnic_profile")
        if target:
            found[source] = target
    registration = body.child("initialization") or Body()
    for mapping in (registration.child("registration_configuration") or Body()).list(
        "vnic_profile_mappings", "registration_vnic_profile_mapping"
    ):
        source = (
            mapping.text("from", "network", "name") or "",
            mapping.text("from", "name") or "",
        )
        target = (mapping.child("to") or Body()).id
        if target:
            found[source] = target
    return found


def _reassign(body: Body) -> bool:
    return bool(body.flag("initialization", "registration_configuration", "reassign_bad_macs"))


def give_to_creator(call: Call, vm: Vm) -> None:
    """Note who made a VM; a user without rights over the cluster gets those of its owner, as the engine gives them."""
    state = call.context.state
    vm.creator_id = call.user.id
    role = next((role for role in state.roles.values() if role.name == "UserVmManager"), None)
    if role is None or call.may("delete_vm", ("vm", vm.id)):
        return
    machines.grant(call.context, call.user.id, role.id, on=("vm", vm.id))
