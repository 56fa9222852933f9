# SPDX-License-Identifier: GPL-3.0-or-later
"""`/users`, `/groups` and `/roles`."""

from __future__ import annotations

from ovirtlab.engine import access
from ovirtlab.engine.entities import Group, Role, User
from ovirtlab.engine.faults import NotFound, conflict, incomplete
from ovirtlab.engine.rest.catalogue import show_permit
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address
from ovirtlab.engine.roles import PERMITS
from ovirtlab.engine.state import EVERYONE, SYSTEM

routes = Routes()


@routes.get("users")
async def list_users(call: Call) -> Collection:
    """A user sees themselves and those who have a role on the same objects."""
    state = call.context.state
    if not call.filtered:
        return USERS.listing(call, state.users.values())
    places = {item.on for item in state.permissions.values() if access.holds(call.user, item)}
    seen = {item.user_id for item in state.permissions.values() if item.on in places} | {call.user.id}
    return USERS.listing(call, [user for user in state.users.values() if user.id in seen])


@routes.get("users/{user}")
async def get_user(call: Call) -> Entity:
    return show_user(call, _user(call))


@routes.get("users/{user}/roles")
async def list_roles_of_user(call: Call) -> Collection:
    state, user = call.context.state, _user(call)
    held = {item.role_id for item in state.permissions.values() if item.user_id == user.id and item.on[0] == "system"}
    return Collection("roles", "role", [show_role(call, state.roles[role_id]) for role_id in held])


@routes.get("users/{user}/groups")
async def list_groups_of_user(call: Call) -> Collection:
    """What the directory says, without the group that everybody is in."""
    user, groups = _user(call), call.context.state.groups
    return Collection("groups", "group", [show_group(groups[key]) for key in user.group_ids if key in groups])


@routes.get("groups")
async def list_groups(call: Call) -> Collection:
    groups = call.context.state.groups.values()
    mine = [item for item in groups if not call.filtered or item.id in (EVERYONE, *call.user.group_ids)]
    return GROUPS.listing(call, mine)


@routes.get("groups/{group}")
async def get_group(call: Call) -> Entity:
    return show_group(_group(call))


@routes.get("groups/{group}/roles")
async def list_roles_of_group(call: Call) -> Collection:
    state, group = call.context.state, _group(call)
    held = {item.role_id for item in state.permissions.values() if (item.group_id, item.on[0]) == (group.id, "system")}
    return Collection("roles", "role", [show_role(call, state.roles[role_id]) for role_id in held])


@routes.get("roles")
async def list_roles(call: Call) -> Collection:
    return ROLES.listing(call, call.context.state.roles.values())


@routes.get("roles/{role}")
async def get_role(call: Call) -> Entity:
    return show_role(call, _role(call))


@routes.get("roles/{role}/permits")
async def list_permits(call: Call) -> Collection:
    role = _role(call)
    return Collection("permits", "permit", [_show_permit(role, name) for name in sorted(role.permits)])


def _show_permit(role: Role, name: str) -> Entity:
    entity = show_permit(name)
    entity.fields = {**entity.fields, "role": link_to("role", role.id)}
    entity.href = address("roles", role.id, "permits", str(PERMITS[name]))
    return entity


serve_members(routes, "roles/{role}/permits/{permit}", list_permits)


@routes.post("roles")
async def add_role(call: Call) -> Created:
    state, body = call.context.state, call.body
    call.require("manipulate_roles", ("system", SYSTEM))
    name, permits = body.text("name"), body.list("permits", "permit")
    if not name or not permits:
        raise incomplete("Role", "name, permits.id|name", "add")
    if any(role.name == name for role in state.roles.values()):
        raise conflict("Cannot add Role. The role name is already in use.")
    by_number = {str(number): permit for permit, number in PERMITS.items()}
    wanted = {by_number.get(item.text("id") or "", item.text("name") or "") for item in permits}
    unknown = wanted - PERMITS.keys()
    if unknown:
        raise conflict(f"Cannot add Role. The permit {sorted(unknown)[0]} does not exist.")
    role = Role(
        id=state.new_id(),
        name=name,
        administrative=body.flag("administrative") or False,
        permits=frozenset(wanted | {"login"}),
        description=body.text("description") or "",
        mutable=True,
    )
    state.roles[role.id] = role
    return Created(lambda: show_role(call, role))


@routes.delete("roles/{role}")
async def remove_role(call: Call) -> Done:
    state, role = call.context.state, _role(call)
    call.require("manipulate_roles", ("system", SYSTEM))
    if not role.mutable:
        raise conflict("Cannot remove Role. Predefined roles cannot be removed.")
    if any(item.role_id == role.id for item in state.permissions.values()):
        raise conflict("Cannot remove Role. The role is assigned to users.")
    del state.roles[role.id]
    return Done()


def show_user(call: Call, user: User) -> Entity:
    fields: dict[str, Value] = {
        "name": user.first_name or user.name,
        "department": "",
        "domain_entry_id": user.id.replace("-", ""),
        "email": user.email,
        "last_name": user.last_name,
        "namespace": "*",
        "principal": user.name,
        "user_name": f"{user.login}-authz",
        "domain": show_domain(f"{user.domain}-authz"),
    }
    links = ("groups", "permissions", "roles", "sshpublickeys", "tags")
    return Entity("user", fields, id=user.id, href=address("users", user.id), links=links)


def show_group(group: Group) -> Entity:
    fields: dict[str, Value] = {"name": group.name, "domain_entry_id": group.id.replace("-", ""), "namespace": "*"}
    if group.domain:
        fields["domain"] = show_domain(group.domain)
    links = ("permissions", "roles", "tags")
    return Entity("group", fields, id=group.id, href=address("groups", group.id), links=links)


def show_domain(name: str) -> Entity:
    """A directory as users and groups have it; its id is its name in hexadecimal digits."""
    key = name.encode().hex().upper()
    return Entity("domain", {"name": name}, id=key, href=address("domains", key))


def show_role(call: Call, role: Role) -> Entity:
    fields: dict[str, Value] = {
        "name": role.name,
        "description": role.description,
        "administrative": role.administrative,
        "mutable": role.mutable,
    }
    return Entity("role", fields, id=role.id, href=address("roles", role.id), links=("permits",))


USERS: Kind[User] = Kind(
    tag="users",
    member="user",
    show=show_user,
    words={
        "name": lambda user: user.first_name or user.name,
        "usrname": lambda user: (user.login, f"{user.login}-authz"),
        "login": lambda user: user.name,
        "id": lambda user: user.id,
        "email": lambda user: user.email,
    },
)
GROUPS: Kind[Group] = Kind(
    tag="groups",
    member="group",
    show=lambda call, group: show_group(group),
    words={"name": lambda group: group.name, "id": lambda group: group.id, "domain": lambda group: group.domain},
)
ROLES: Kind[Role] = Kind(
    tag="roles",
    member="role",
    show=show_role,
    words={"name": lambda role: role.name, "id": lambda role: role.id},
)


def _group(call: Call) -> Group:
    group = call.context.state.groups.get(call.id("group"))
    if group is None:
        raise NotFound(call.path)
    return group


def _user(call: Call) -> User:
    user = call.context.state.users.get(call.id("user"))
    if user is None:
        raise NotFound(call.path)
    return user


def _role(call: Call) -> Role:
    role = call.context.state.roles.get(call.id("role"))
    if role is None:
        raise NotFound(call.path)
    return role
