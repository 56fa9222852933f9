# SPDX-License-Identifier: GPL-3.0-or-later
"""`/tags` and the tags of VMs."""

from __future__ import annotations

from ovirtlab.engine.entities import Tag
from ovirtlab.engine.faults import NotFound, conflict, incomplete, invalid
from ovirtlab.engine.machines import tell
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, vm_of
from ovirtlab.engine.state import BLANK, SYSTEM

routes = Routes()

ROOT_TAG = BLANK


@routes.get("tags")
async def list_tags(call: Call) -> Collection:
    return TAGS.listing(call, call.context.state.tags.values())


@routes.get("tags/{tag}")
async def get_tag(call: Call) -> Entity:
    return show(call, _tag(call))


@routes.post("tags")
async def add_tag(call: Call) -> Created:
    state, body = call.context.state, call.body
    call.require("tag_management", ("system", SYSTEM))
    name = body.text("name")
    if not name:
        raise incomplete("Tag", "name", "add")
    _check_name(call, name)
    parent = body.ref("parent") or ROOT_TAG
    if parent not in state.tags:
        raise invalid("The specified Tag does not exist.")
    tag = Tag(id=state.new_id(), name=name, description=body.text("description") or "", parent_id=parent)
    state.tags[tag.id] = tag
    text = f"New Tag {tag.name} was created by {cause_of(call).name}."
    state.events.add(432, "normal", text, correlation_id=call.correlation_id, user=call.user.id)
    return Created(lambda: show(call, tag))


@routes.put("tags/{tag}")
async def update_tag(call: Call) -> Entity:
    tag = _tag(call)
    call.require("tag_management", ("system", SYSTEM))
    name = call.body.text("name")
    if name and name != tag.name:
        _check_name(call, name)
        tag.name = name
    description = call.body.text("description")
    tag.description = tag.description if description is None else description
    return show(call, tag)


@routes.delete("tags/{tag}")
async def remove_tag(call: Call) -> Done:
    state, tag = call.context.state, _tag(call)
    call.require("tag_management", ("system", SYSTEM))
    if tag.id == ROOT_TAG:
        raise conflict("Cannot remove Tag. The root tag is read-only.")
    for vm in state.vms.values():
        vm.tags.discard(tag.id)
    del state.tags[tag.id]
    text = f"Tag {tag.name} was removed by {cause_of(call).name}."
    state.events.add(434, "normal", text, correlation_id=call.correlation_id, user=call.user.id)
    return Done()


@routes.get("vms/{vm}/tags")
async def list_tags_of_vm(call: Call) -> Collection:
    vm = vm_of(call)
    tags = [call.context.state.tags[tag_id] for tag_id in sorted(vm.tags)]
    return Collection("tags", "tag", [_show_on_vm(call, vm.id, tag) for tag in tags])


@routes.get("vms/{vm}/tags/{tag}")
async def get_tag_of_vm(call: Call) -> Entity:
    vm, tag = vm_of(call), _tag(call)
    if tag.id not in vm.tags:
        raise NotFound(call.path)
    return _show_on_vm(call, vm.id, tag)


@routes.post("vms/{vm}/tags")
async def assign_tag(call: Call) -> Created:
    """Give a VM a tag, named by id or name."""
    state, vm = call.context.state, vm_of(call)
    call.require("tag_management", ("system", SYSTEM))
    tag_id, name = call.body.id, call.body.text("name")
    if tag_id is None and name is None:
        raise incomplete("Tag", "id|name", "add")
    tag = next((tag for tag in state.tags.values() if tag.id == tag_id or (tag_id is None and tag.name == name)), None)
    if tag is None:
        raise invalid("The specified Tag does not exist.")
    vm.tags.add(tag.id)
    tell(call.context, vm, cause_of(call), 440, f"Tag {tag.name} was attached to VM(s) {vm.name} by {call.user.login}.")
    return Created(lambda: _show_on_vm(call, vm.id, tag))


@routes.delete("vms/{vm}/tags/{tag}")
async def unassign_tag(call: Call) -> Done:
    vm, tag = vm_of(call), _tag(call)
    call.require("tag_management", ("system", SYSTEM))
    if tag.id not in vm.tags:
        raise NotFound(call.path)
    vm.tags.discard(tag.id)
    return Done()


def show(call: Call, tag: Tag) -> Entity:
    fields: dict[str, Value] = {
        "name": tag.name,
        "description": tag.description,
        "parent": link_to("tag", tag.parent_id),
    }
    return Entity("tag", fields, id=tag.id, href=address("tags", tag.id))


def _show_on_vm(call: Call, vm_id: str, tag: Tag) -> Entity:
    entity = show(call, tag)
    entity.href = address("vms", vm_id, "tags", tag.id)
    entity.fields = {**entity.fields, "vm": link_to("vm", vm_id)}
    return entity


TAGS: Kind[Tag] = Kind(tag="tags", member="tag", show=show, words={"name": lambda tag: tag.name})


def _tag(call: Call) -> Tag:
    tag = call.context.state.tags.get(call.id("tag"))
    if tag is None:
        raise NotFound(call.path)
    return tag


def _check_name(call: Call, name: str) -> None:
    if any(tag.name == name for tag in call.context.state.tags.values()):
        raise conflict("The specified Tag name already exists.")
