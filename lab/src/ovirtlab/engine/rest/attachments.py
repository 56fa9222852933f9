# SPDX-License-Identifier: GPL-3.0-or-later
"""`/vms/{vm}/diskattachments`: disks hung on VMs, new or existing ones, plugged and unplugged."""

from __future__ import annotations

from ovirtlab.engine import disks, plugging
from ovirtlab.engine.entities.disks import DiskAttachment
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import NotFound, incomplete, invalid
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.disks import change, read_spec
from ovirtlab.engine.rest.documents import API, Collection, Entity, Value, link_to
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, vm_of
from ovirtlab.engine.snapshots import rules

routes = Routes()


@routes.get("vms/{vm}/diskattachments")
async def list_attachments(call: Call) -> Collection:
    vm = vm_of(call)
    return Collection("disk_attachments", "disk_attachment", [show(vm, item) for item in vm.hung])


@routes.get("vms/{vm}/diskattachments/{attachment}")
async def get_attachment(call: Call) -> Entity:
    vm = vm_of(call)
    return show(vm, _find(call, vm))


@routes.post("vms/{vm}/diskattachments")
async def add_attachment(call: Call) -> Created:
    """Attach the disk whose id is given, as a snapshot has it when one is named, or make a new one for the VM."""
    vm, body = vm_of(call), call.body.child("disk")
    call.require("configure_vm_storage", ("vm", vm.id))
    if body is None:
        raise incomplete("DiskAttachment", "disk", "add")
    if body.id is not None:
        return await _attach(call, vm, body.id)
    return await _add_new(call, vm, body)


async def _attach(call: Call, vm: Vm, disk_id: str) -> Created:
    """An attached disk is active only when the request says so."""
    if disk_id not in call.context.state.disks:
        raise invalid(f"{plugging.ATTACH}. The specified disk does not exist.")
    call.require("attach_disk", ("disk", disk_id))
    attachment = _read(call.body, vm, disk_id)
    attachment.active = call.body.flag("active") or False
    disk = call.body.child("disk")
    attachment.snapshot_id = (disk.ref("snapshot") if disk else None) or ""
    step = plugging.attach_snapshot if attachment.snapshot_id else plugging.attach
    await step(call.context, vm, attachment, cause=cause_of(call))
    return Created(lambda: show(vm, attachment, fresh=True))


async def _add_new(call: Call, vm: Vm, body: Body) -> Created:
    """A new disk is active unless the request says otherwise; on a VM that runs only when the request says so."""
    context = call.context
    spec = read_spec(call, body, disk_id=context.state.new_id(), default_alias=_next_alias(vm))
    attachment = _read(call.body, vm, spec.id)
    disks.check_new(context, spec)
    plugging.check_boot(context, vm, attachment)
    rules.check_settled(context, vm, disks.ADD)
    disk = disks.register(context, spec)
    active = call.body.flag("active")
    attachment.active = vm.status == "down" and active is not False
    context.state.attach(attachment)
    vm.generation += 1

    async def work() -> None:
        await disks.make(context, disk, cause=cause_of(call))
        if active and not attachment.active and disk.id in vm.attachments:
            await plugging.plug(context, vm, attachment)

    task = context.background.undertake(work(), name=f"add disk {disk.alias}")
    return Created(lambda: show(vm, attachment, fresh=True), work=task)


@routes.put("vms/{vm}/diskattachments/{attachment}")
async def update_attachment(call: Call) -> Entity:
    context, vm = call.context, vm_of(call)
    attachment = _find(call, vm)
    call.require("configure_vm_storage", ("vm", vm.id))
    body = call.body
    if body.flag("bootable") and not attachment.bootable:
        wanted = DiskAttachment(disk_id=attachment.disk_id, vm_id=vm.id, bootable=True)
        plugging.check_boot(context, vm, wanted)
    _change(attachment, body)
    active = body.flag("active")
    if active is not None and active != attachment.active:
        plugging.check_plugging(context, vm, plugging.PLUG if active else plugging.UNPLUG)
        step = plugging.plug if active else plugging.unplug
        await step(context, vm, attachment)
    disk_body = body.child("disk")
    if disk_body is not None and not attachment.snapshot_id:
        await change(call, context.state.disk(attachment.disk_id), disk_body)
    vm.generation += 1
    return show(vm, attachment)


@routes.delete("vms/{vm}/diskattachments/{attachment}")
async def remove_attachment(call: Call) -> Done:
    """Detach a disk; with `detach_only=false` the disk is deleted as well."""
    context, vm = call.context, vm_of(call)
    attachment = _find(call, vm)
    call.require("configure_vm_storage", ("vm", vm.id))
    if attachment.snapshot_id:
        await plugging.detach_snapshot(context, vm, attachment, cause=cause_of(call))
        return Done()
    if call.flag("detach_only", default=True):
        await plugging.detach(context, vm, attachment, cause=cause_of(call))
        return Done()
    disk = context.state.disk(attachment.disk_id)
    disks.check_removal(context, disk)
    work = disks.delete(context, disk, cause=cause_of(call))
    return Done(work=context.background.undertake(work, name=f"remove disk {disk.alias}"))


def show(vm: Vm, attachment: DiskAttachment, *, fresh: bool = False) -> Entity:
    """How a disk hangs on a VM; what its guest calls it is told by an agent, and of a `fresh` one not yet."""
    named = attachment.target and not fresh and vm.status == "up" and vm.guest == "linux" and vm.agent
    fields: dict[str, Value] = {
        "active": attachment.active,
        "bootable": attachment.bootable,
        "interface": attachment.interface,
        "pass_discard": attachment.pass_discard,
        "read_only": attachment.read_only,
        "uses_scsi_reservation": attachment.uses_scsi_reservation,
        "logical_name": f"/dev/{attachment.target}" if named else None,
        "disk": link_to("disk", attachment.disk_id),
        "vm": link_to("vm", attachment.vm_id),
    }
    href = address("vms", attachment.vm_id, "diskattachments", attachment.disk_id)
    return Entity("disk_attachment", fields, id=attachment.disk_id, href=href)


def _find(call: Call, vm: Vm) -> DiskAttachment:
    key = call.id("attachment")
    attachment = vm.attachments.get(key) or vm.snapshot_disks.get(key)
    if attachment is None:
        raise NotFound(f"{API}/{call.path}")
    return attachment


def _read(body: Body, vm: Vm, disk_id: str) -> DiskAttachment:
    if "interface" not in body:
        raise incomplete("DiskAttachment", "interface", "add")
    attachment = DiskAttachment(disk_id=disk_id, vm_id=vm.id)
    _change(attachment, body)
    return attachment


def _change(attachment: DiskAttachment, body: Body) -> None:
    attachment.interface = body.text("interface") or attachment.interface
    for name in ("bootable", "read_only", "pass_discard", "uses_scsi_reservation"):
        value = body.flag(name)
        if value is not None:
            setattr(attachment, name, value)


def _next_alias(vm: Vm) -> str:
    return f"{vm.name}_Disk{len(vm.attachments) + 1}"
