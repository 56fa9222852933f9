# SPDX-License-Identifier: GPL-3.0-or-later
"""`/templates`: Blank, and those made from VMs, with their versions and disks."""

from __future__ import annotations

from ovirtlab.engine import machines, templates
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import DiskAttachment
from ovirtlab.engine.entities.vms import Template, Vm
from ovirtlab.engine.faults import NotFound, conflict, incomplete, invalid
from ovirtlab.engine.locks import releasing
from ovirtlab.engine.rest import search_keys
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.new_vms import read_wishes
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of
from ovirtlab.engine.rest.vm_properties import change, shown

routes = Routes()

LINKS = ("cdroms", "diskattachments", "graphicsconsoles", "mediateddevices", "nics", "permissions", "tags", "watchdogs")


@routes.get("templates")
async def list_templates(call: Call) -> Collection:
    return kind(call.context).listing(call, call.context.state.templates.values())


@routes.get("templates/{template}")
async def get_template(call: Call) -> Entity:
    return show(call, template_of(call))


@routes.post("templates")
async def add_template(call: Call) -> Created:
    """From a VM that is down; naming a base template makes another version of that."""
    context, body = call.context, call.body
    name, vm = body.text("name"), _source(call)
    if not name:
        raise incomplete("Template", "name, vm.id|name", "add")
    call.require("create_template", ("vm", vm.id))
    lock = templates.lock_source(context, vm)
    with releasing(lock):
        template = Template(id=context.state.new_id(), name=name, cluster_id=vm.cluster_id)
        _set_version(context, template, body)
        wishes = read_wishes(context, body.child("vm") or Body())
        copies = templates.register(context, vm, template, wishes=wishes)
        _change(context, template, body)
    making = templates.Making(source=vm, lock=lock, cause=cause_of(call))
    work = templates.fill_template(context, template, copies, making)
    task = context.background.undertake(work, name=f"add template {name}")
    return Created(lambda: show(call, template), work=task)


@routes.put("templates/{template}")
async def update_template(call: Call) -> Entity:
    template, body = template_of(call), call.body
    call.require("edit_template_properties", ("template", template.id))
    name = body.text("name")
    if name and name != template.name:
        _check_name(call.context, name)
        template.name = name
    _change(call.context, template, body)
    return show(call, template)


def _change(context: Context, template: Template, body: Body) -> None:
    description, comment = body.text("description"), body.text("comment")
    template.description = template.description if description is None else description
    template.comment = template.comment if comment is None else comment
    settings = _settings(template)
    change(context, settings, Body(fields={key: value for key, value in body.fields.items() if key != "name"}))
    template.memory = settings.memory
    template.settings = templates.settings_of(settings)


@routes.delete("templates/{template}")
async def remove_template(call: Call) -> Done:
    template = template_of(call)
    call.require("delete_template", ("template", template.id))
    templates.check_removal(call.context, template)
    work = templates.remove(call.context, template, cause=cause_of(call))
    return Done(work=call.context.background.undertake(work, name=f"remove template {template.name}"))


@routes.get("templates/{template}/diskattachments")
async def list_attachments(call: Call) -> Collection:
    template = template_of(call)
    shown = [_show_attachment(template, item) for item in template.attachments.values()]
    return Collection("disk_attachments", "disk_attachment", shown)


serve_members(routes, "templates/{template}/diskattachments/{attachment}", list_attachments)


def show(call: Call, item: Template) -> Entity:
    version: dict[str, Value] = {
        "version_name": item.version_name or "base version",
        "version_number": item.version,
        "base_template": link_to("template", item.base_id or item.id),
    }
    fields: dict[str, Value] = {
        **shown(call.context.state, _settings(item)),
        "name": item.name,
        "description": item.description,
        "comment": item.comment,
        "creation_time": item.creation_time,
        "status": item.status,
        "version": Entity("version", version),
        "cluster": link_to("cluster", item.cluster_id),
    }
    return Entity("template", fields, id=item.id, href=address("templates", item.id), links=LINKS)


def _settings(item: Template) -> Vm:
    """A VM that is what the template says, to read and change that by."""
    return Vm(id=item.id, name=item.name, cluster_id=item.cluster_id, memory=item.memory, **item.settings)


def kind(context: Context) -> Kind[Template]:
    """How templates are listed and found."""
    return Kind(tag="templates", member="template", show=show, words=search_keys.of_templates(context.state))


def _show_attachment(template: Template, item: DiskAttachment) -> Entity:
    fields: dict[str, Value] = {
        "active": item.active,
        "bootable": item.bootable,
        "interface": item.interface,
        "disk": link_to("disk", item.disk_id),
        "template": link_to("template", template.id),
    }
    href = address("templates", template.id, "diskattachments", item.disk_id)
    return Entity("disk_attachment", fields, id=item.disk_id, href=href)


def _source(call: Call) -> Vm:
    key, name = call.body.ref("vm"), call.body.text("vm", "name")
    if key is None and name is None:
        raise incomplete("Template", "name, vm.id|name", "add")
    for vm in call.context.state.vms.values():
        if vm.id == key or (key is None and vm.name == name):
            return vm
    raise NotFound(key or name or "")


def _set_version(context: Context, template: Template, body: Body) -> None:
    version = body.child("version") or Body()
    base_id = version.ref("base_template")
    if base_id is None:
        _check_name(context, template.name)
        return
    if base_id not in context.state.templates:
        raise invalid(f"{templates.ADD}. The base Template does not exist.")
    family = [item for item in context.state.templates.values() if base_id in (item.id, item.base_id)]
    template.base_id, template.version = base_id, max(item.version for item in family) + 1
    template.name = context.state.templates[base_id].name
    template.version_name = version.text("version_name") or ""


def _check_name(context: Context, name: str) -> None:
    machines.check_characters(name, action=templates.ADD)
    if any(item.name == name for item in context.state.templates.values()):
        raise conflict(f"{templates.ADD}. The Template name is already in use.")


def template_of(call: Call) -> Template:
    """The template of the path."""
    template = call.context.state.templates.get(call.id("template"))
    if template is None:
        raise NotFound(call.path)
    return template
