# SPDX-License-Identifier: GPL-3.0-or-later
"""`/permissions`, and those of objects, of users and of groups: listed, given and taken away."""

from __future__ import annotations

from collections.abc import Iterable

from ovirtlab.engine import access, machines
from ovirtlab.engine.entities.people import Permission
from ovirtlab.engine.faults import NotFound, conflict, incomplete, invalid
from ovirtlab.engine.rest.documents import API, Collection, Entity, Value, link_to
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, check_seen
from ovirtlab.engine.state import EVERYONE, SYSTEM

routes = Routes()

Place = tuple[str, str]  # (kind, id)
SUPER_USER = "00000000-0000-0000-0000-000000000001"
ADD = "Cannot add Permission"
REMOVE = "Cannot remove Permission"

_PLACES = {
    "vms": "vm",
    "disks": "disk",
    "clusters": "cluster",
    "datacenters": "data_center",
    "hosts": "host",
    "storagedomains": "storage_domain",
    "networks": "network",
    "templates": "template",
    "vnicprofiles": "vnic_profile",
    "diskprofiles": "disk_profile",
    "cpuprofiles": "cpu_profile",
    "macpools": "mac_pool",
    "datacenters/{data_center}/quotas": "quota",
}
_ON_PRINCIPALS = ("data_center", "cluster", "host", "storage_domain", "vm", "template")


@routes.get("permissions")
async def list_system_permissions(call: Call) -> Collection:
    on_system = [item for item in call.context.state.permissions.values() if item.on[0] == "system"]
    return _collection(show(item) for item in on_system)


@routes.get("permissions/{permission}")
async def get_system_permission(call: Call) -> Entity:
    return show(_permission(call))


@routes.post("permissions")
async def add_system_permission(call: Call) -> Created:
    return _grant(call, ("system", SYSTEM))


@routes.delete("permissions/{permission}")
async def remove_system_permission(call: Call) -> Done:
    return _remove(call, ("system", SYSTEM))


def _place_routes(collection: str, kind: str) -> None:
    """The permissions of one kind of object."""
    pattern = f"{collection}/{{object}}/permissions"

    @routes.get(pattern)
    async def list_permissions(call: Call) -> Collection:
        """Those given on the object and those it inherits; all are shown as of this object, as the engine does."""
        place = _place(call, kind)
        return _collection(show(item, on=place) for item in access.permissions(call.context.state, None, on=place))

    @routes.get(f"{pattern}/{{permission}}")
    async def get_permission(call: Call) -> Entity:
        place = _place(call, kind)
        return show(_permission(call), on=place)

    @routes.post(pattern)
    async def add_permission(call: Call) -> Created:
        return _grant(call, _place(call, kind))

    @routes.delete(f"{pattern}/{{permission}}")
    async def remove_permission(call: Call) -> Done:
        return _remove(call, _place(call, kind))


for _collection_name, _kind in _PLACES.items():
    _place_routes(_collection_name, _kind)


def _principal_routes(collection: str, kind: str) -> None:
    """The permissions of a user or a group, on whatever they are."""
    pattern = f"{collection}/{{principal}}/permissions"

    @routes.get(pattern)
    async def list_permissions(call: Call) -> Collection:
        key = _principal(call, kind)
        return _collection(_show_of(item, kind, key) for item in _held(call, kind, key))

    @routes.get(f"{pattern}/{{permission}}")
    async def get_permission(call: Call) -> Entity:
        return _show_of(_permission(call), kind, _principal(call, kind))

    @routes.post(pattern)
    async def add_permission(call: Call) -> Created:
        """The object is named in the request."""
        key, place = _principal(call, kind), _named_place(call)
        permission = _give(call, place, **{f"{kind}_id": key})
        return Created(lambda: _show_of(permission, kind, key))

    @routes.delete(f"{pattern}/{{permission}}")
    async def remove_permission(call: Call) -> Done:
        key, permission = _principal(call, kind), _permission(call)
        if key not in (permission.user_id, permission.group_id):
            raise conflict(f"{REMOVE}. Inherited permissions cannot be removed.")
        return _remove(call, permission.on)


_principal_routes("users", "user")
_principal_routes("groups", "group")


def show(permission: Permission, *, on: Place | None = None) -> Entity:
    """A permission as its object has it, or as another that inherits it does."""
    kind, key = on or permission.on
    fields: dict[str, Value] = {
        "role": link_to("role", permission.role_id),
        "user": link_to("user", permission.user_id),
        "group": link_to("group", permission.group_id),
    }
    base = "permissions"
    if kind in _LINKED:
        target = link_to(kind, key)
        fields[kind] = target
        base = f"{target.href.removeprefix(API + '/')}/permissions" if target and target.href else base
    return Entity("permission", fields, id=permission.id, href=address(base, permission.id))


_LINKED = ("vm", "disk", "cluster", "data_center", "host", "storage_domain", "template")  # others are not told


def _show_of(permission: Permission, kind: str, key: str) -> Entity:
    entity = show(permission)
    entity.href = address(f"{kind}s", key, "permissions", permission.id)
    return entity


def _collection(entities: Iterable[Entity]) -> Collection:
    return Collection("permissions", "permission", list(entities))


def _grant(call: Call, place: Place) -> Created:
    user_id, group_id = call.body.ref("user"), call.body.ref("group")
    if user_id is None and group_id is None:
        raise incomplete("Permission", "user|group.id", "add")
    permission = _give(call, place, user_id=user_id or "", group_id="" if user_id else group_id or "")
    return Created(lambda: show(permission))


def _give(call: Call, place: Place, *, user_id: str = "", group_id: str = "") -> Permission:
    """The permission that the request asks for: a new one, or the same that there is already."""
    state = call.context.state
    call.require("manipulate_permissions", place)
    role_id = _role(call)
    if user_id not in state.users and group_id not in state.groups:
        raise conflict(f"{ADD}. The user or group does not exist.")
    if state.roles[role_id].administrative and not _is_super_user(call):
        raise conflict(f"{ADD}. Only users with the role SuperUser on the system can give administrative roles.")
    for item in state.permissions.values():
        if (item.user_id, item.group_id, item.role_id, item.on) == (user_id, group_id, role_id, place):
            return item
    return machines.grant(call.context, user_id, role_id, on=place, group_id=group_id)


def _remove(call: Call, place: Place) -> Done:
    state, permission = call.context.state, _permission(call)
    call.require("manipulate_permissions", place)
    if permission.role_id == SUPER_USER and sum(item.role_id == SUPER_USER for item in state.permissions.values()) == 1:
        raise conflict(f"{REMOVE}. The last user with the role SuperUser cannot lose it.")
    if state.roles[permission.role_id].administrative and not _is_super_user(call):
        raise conflict(f"{REMOVE}. Only users with the role SuperUser on the system can take administrative roles.")
    if permission.group_id == EVERYONE and permission.on[0] == "system":
        raise conflict(f"{REMOVE}. Permissions of everyone on the system cannot be removed.")
    del state.permissions[permission.id]
    return Done()


def _is_super_user(call: Call) -> bool:
    held = access.permissions(call.context.state, call.user, on=("system", SYSTEM))
    return any(item.role_id == SUPER_USER for item in held)


def _role(call: Call) -> str:
    roles, key, name = call.context.state.roles, call.body.ref("role"), call.body.text("role", "name")
    if key is None and name is None:
        raise incomplete("Permission", "role.id|name", "add")
    for role in roles.values():
        if role.id == key or (key is None and role.name == name):
            return role.id
    raise invalid(f"{ADD}. The role does not exist.")


def _named_place(call: Call) -> Place:
    for kind in _ON_PRINCIPALS:
        key = call.body.ref(kind)
        if key is not None:
            _check_exists(call, (kind, key))
            return (kind, key)
    raise incomplete("Permission", "dataCenter|cluster|host|storageDomain|vm|vmPool|template.id", "add")


def _held(call: Call, kind: str, key: str) -> list[Permission]:
    """What counts for a user, by groups too; for a group its own."""
    state = call.context.state
    if kind == "user":
        return [item for item in state.permissions.values() if access.holds(state.users[key], item)]
    return [item for item in state.permissions.values() if item.group_id == key]


def _place(call: Call, kind: str) -> Place:
    place = (kind, call.id("object"))
    _check_exists(call, place)
    check_seen(call, place)
    return place


def _check_exists(call: Call, place: Place) -> None:
    if not call.context.state.has(*place):
        raise NotFound(place[1])


def _principal(call: Call, kind: str) -> str:
    key = call.id("principal")
    if key not in (call.context.state.users if kind == "user" else call.context.state.groups):
        raise NotFound(call.path)
    return key


def _permission(call: Call) -> Permission:
    found = call.context.state.permissions.get(call.id("permission"))
    if found is None:
        raise NotFound(call.path)
    return found
