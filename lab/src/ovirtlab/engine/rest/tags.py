# SPDX-License-Identifier: GPL-3.0-or-later
"""`/tags`, a tree of them, and the tags of VMs, hosts, templates, users and groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ovirtlab.engine.entities.tags import Tag
from ovirtlab.engine.faults import NotFound, conflict, incomplete, invalid
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, check_seen
from ovirtlab.engine.state import BLANK, SYSTEM, State

routes = Routes()

ROOT_TAG = BLANK
_ATTACHED = {
    "template": (183, "Templates(s)"),
    "user": (436, "User(s)"),
    "group": (438, "Group(s)"),
    "vm": (440, "VM(s)"),
    "host": (442, "Host(s)"),
}


class Tagged(Protocol):
    """Whatever may have tags."""

    id: str
    name: str
    tags: set[str]


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
    tag = Tag(id=state.new_id(), name=name, description=body.text("description") or "")
    tag.parent_id = _parent(call) or ROOT_TAG
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
    _move(call, tag, _parent(call) or tag.parent_id)
    return show(call, tag)


def _move(call: Call, tag: Tag, parent_id: str) -> None:
    if tag.id in call.context.state.tags_above(parent_id):
        raise conflict("Cannot move Tag. A tag cannot be moved below itself.")
    tag.parent_id = parent_id


def _parent(call: Call) -> str | None:
    """The parent that the request names by id or name."""
    child = call.body.child("parent")
    if child is None:
        return None
    key, name = child.id, child.text("name")
    for tag in call.context.state.tags.values():
        if tag.name == name or (name is None and tag.id == key):
            return tag.id
    raise NotFound(name or key or "")


@routes.delete("tags/{tag}")
async def remove_tag(call: Call) -> Done:
    """With all tags below it."""
    state, tag = call.context.state, _tag(call)
    call.require("tag_management", ("system", SYSTEM))
    if tag.id == ROOT_TAG:
        raise conflict("Cannot remove Tag. The root tag is read-only.")
    doomed = {key for key in state.tags if tag.id in state.tags_above(key)}
    tables: tuple[Mapping[str, Tagged], ...] = (state.vms, state.hosts, state.templates, state.users, state.groups)
    for table in tables:
        for item in table.values():
            item.tags -= doomed
    for key in doomed:
        del state.tags[key]
    text = f"Tag {tag.name} was removed by {cause_of(call).name}."
    state.events.add(434, "normal", text, correlation_id=call.correlation_id, user=call.user.id)
    return Done()


def _tagged_routes(collection: str, kind: str, table: Callable[[State], Mapping[str, Tagged]]) -> None:
    """The tags of one kind of object."""
    pattern = f"{collection}/{{object}}/tags"

    def find(call: Call) -> Tagged:
        found = table(call.context.state).get(call.id("object"))
        if found is None:
            raise NotFound(call.path)
        check_seen(call, (kind, found.id))
        return found

    def shown(call: Call, item: Tagged, tag: Tag) -> Entity:
        entity = show(call, tag)
        entity.href = address(collection, item.id, "tags", tag.id)
        entity.fields = {**entity.fields, kind: link_to(kind, item.id)}
        return entity

    @routes.get(pattern)
    async def list_tags_of(call: Call) -> Collection:
        item, tags = find(call), call.context.state.tags
        return Collection("tags", "tag", [shown(call, item, tags[key]) for key in sorted(item.tags)])

    @routes.get(f"{pattern}/{{tag}}")
    async def get_tag_of(call: Call) -> Entity:
        item, tag = find(call), _tag(call)
        if tag.id not in item.tags:
            raise NotFound(call.path)
        return shown(call, item, tag)

    @routes.post(pattern)
    async def assign_tag(call: Call) -> Created:
        """Give it a tag, named by id or name."""
        item = find(call)
        call.require("tag_management", ("system", SYSTEM))
        tag = _wanted(call)
        item.tags.add(tag.id)
        _tell(call, kind, item, tag)
        return Created(lambda: shown(call, item, tag))

    @routes.delete(f"{pattern}/{{tag}}")
    async def unassign_tag(call: Call) -> Done:
        item, tag = find(call), _tag(call)
        call.require("tag_management", ("system", SYSTEM))
        if tag.id not in item.tags:
            raise NotFound(call.path)
        item.tags.discard(tag.id)
        return Done()


_tagged_routes("vms", "vm", lambda state: state.vms)
_tagged_routes("hosts", "host", lambda state: state.hosts)
_tagged_routes("templates", "template", lambda state: state.templates)
_tagged_routes("users", "user", lambda state: state.users)
_tagged_routes("groups", "group", lambda state: state.groups)


def _wanted(call: Call) -> Tag:
    key, name = call.body.id, call.body.text("name")
    if key is None and name is None:
        raise incomplete("Tag", "id|name", "add")
    for tag in call.context.state.tags.values():
        if tag.id == key or (key is None and tag.name == name):
            return tag
    raise invalid("The specified Tag does not exist.")


def _tell(call: Call, kind: str, item: Tagged, tag: Tag) -> None:
    code, what = _ATTACHED[kind]
    text = f"Tag {tag.name} was attached to {what} {item.name} by {cause_of(call).name}."
    ids = {kind: item.id, "user": call.user.id}
    call.context.state.events.add(code, "normal", text, correlation_id=call.correlation_id, **ids)


def show(call: Call, tag: Tag) -> Entity:
    fields: dict[str, Value] = {
        "name": tag.name,
        "description": tag.description,
        "parent": link_to("tag", tag.parent_id),
    }
    return Entity("tag", fields, id=tag.id, href=address("tags", tag.id))


TAGS: Kind[Tag] = Kind(tag="tags", member="tag", show=show, words={"name": lambda tag: tag.name})


def _tag(call: Call) -> Tag:
    tag = call.context.state.tags.get(call.id("tag"))
    if tag is None:
        raise NotFound(call.path)
    return tag


def _check_name(call: Call, name: str) -> None:
    if any(tag.name == name for tag in call.context.state.tags.values()):
        raise conflict("The specified Tag name already exists.")
