# SPDX-License-Identifier: GPL-3.0-or-later
"""`/vms/{vm}/diskattachments`: disks hung on VMs, new or existing ones, plugged and unplugged."""

from __future__ import annotations

from ovirtlab.engine import disks, plugging
from ovirtlab.engine.entities import DiskAttachment, Vm
from ovirtlab.engine.faults import NotFound, incomplete
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.disks import change, read_spec
from ovirtlab.engine.rest.documents import API, Collection, Entity, Value, link_to
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, vm_of

routes = Routes()


@routes.get("vms/{vm}/diskattachments")
async def list_attachments(call: Call) -> Collection:
    vm = vm_of(call)
    return Collection("disk_attachments", "disk_attachment", [show(item) for item in vm.attachments.values()])


@routes.get("vms/{vm}/diskattachments/{attachment}")
async def get_attachment(call: Call) -> Entity:
    return show(_find(call, vm_of(call)))


@routes.post("vms/{vm}/diskattachments")
async def add_attachment(call: Call) -> Created:
    """Attach an existing disk (its id is given and known) or make a new one for the VM."""
    context, vm = call.context, vm_of(call)
    call.require("configure_vm_storage", ("vm", vm.id))
    body = call.body.child("disk")
    if body is None:
        raise incomplete("DiskAttachment", "disk", "add")
    known = body.id in context.state.disks and "provisioned_size" not in body
    if not known and body.id is not None and "provisioned_size" not in body:
        raise NotFound(body.id)
    attachment = _read(call.body, vm, body.id or context.state.new_id())
    if known:
        call.require("attach_disk", ("disk", attachment.disk_id))
        await plugging.attach(context, vm, attachment, cause=cause_of(call))
        return Created(lambda: show(attachment))
    return await _add_new(call, vm, attachment, body)


async def _add_new(call: Call, vm: Vm, attachment: DiskAttachment, body: Body) -> Created:
    context = call.context
    spec = read_spec(call, body, disk_id=attachment.disk_id, default_alias=_next_alias(vm))
    disks.check_new(context, spec)
    plugging.check_boot(context, vm, attachment)
    disk = disks.register(context, spec)
    active, attachment.active = attachment.active, False
    context.state.attach(attachment)
    vm.generation += 1

    async def work() -> None:
        await disks.make(context, disk, cause=cause_of(call))
        if active and disk.id in vm.attachments:
            await plugging.plug(context, vm, attachment)

    task = context.background.spawn(work(), name=f"add disk {disk.alias}")
    return Created(lambda: show(attachment), work=task)


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
        step = plugging.plug if active else plugging.unplug
        await step(context, vm, attachment)
    disk_body = body.child("disk")
    if disk_body is not None:
        await change(call, context.state.disk(attachment.disk_id), disk_body)
    vm.generation += 1
    return show(attachment)


@routes.delete("vms/{vm}/diskattachments/{attachment}")
async def remove_attachment(call: Call) -> Done:
    """Detach a disk; with `detach_only=false` the disk is deleted as well."""
    context, vm = call.context, vm_of(call)
    attachment = _find(call, vm)
    call.require("configure_vm_storage", ("vm", vm.id))
    if call.flag("detach_only", default=True):
        await plugging.detach(context, vm, attachment, cause=cause_of(call))
        return Done()
    disk = context.state.disk(attachment.disk_id)
    disks.check_removal(context, disk)
    work = disks.delete(context, disk, cause=cause_of(call))
    return Done(work=context.background.spawn(work, name=f"remove disk {disk.alias}"))


def show(attachment: DiskAttachment) -> Entity:
    fields: dict[str, Value] = {
        "active": attachment.active,
        "bootable": attachment.bootable,
        "interface": attachment.interface,
        "pass_discard": attachment.pass_discard,
        "read_only": attachment.read_only,
        "uses_scsi_reservation": attachment.uses_scsi_reservation,
        "logical_name": f"/dev/{attachment.target}" if attachment.target else None,
        "disk": link_to("disk", attachment.disk_id),
        "vm": link_to("vm", attachment.vm_id),
    }
    href = address("vms", attachment.vm_id, "diskattachments", attachment.disk_id)
    return Entity("disk_attachment", fields, id=attachment.disk_id, href=href)


def _find(call: Call, vm: Vm) -> DiskAttachment:
    attachment = vm.attachments.get(call.id("attachment"))
    if attachment is None:
        raise NotFound(f"{API}/{call.path}")
    return attachment


def _read(body: Body, vm: Vm, disk_id: str) -> DiskAttachment:
    if "interface" not in body:
        raise incomplete("DiskAttachment", "interface", "add")
    attachment = DiskAttachment(disk_id=disk_id, vm_id=vm.id)
    _change(attachment, body)
    active = body.flag("active")
    attachment.active = True if active is None else active
    return attachment


def _change(attachment: DiskAttachment, body: Body) -> None:
    attachment.interface = body.text("interface") or attachment.interface
    for name in ("bootable", "read_only", "pass_discard", "uses_scsi_reservation"):
        value = body.flag(name)
        if value is not None:
            setattr(attachment, name, value)


def _next_alias(vm: Vm) -> str:
    return f"{vm.name}_Disk{len(vm.attachments) + 1}"
