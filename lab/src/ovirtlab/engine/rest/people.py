# SPDX-License-Identifier: GPL-3.0-or-later
"""`/users` and `/groups`, their roles and groups."""

from __future__ import annotations

from ovirtlab.engine import access
from ovirtlab.engine.entities.people import Group, User
from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.rest.documents import Collection, Entity, Value
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.roles import show_role
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import address
from ovirtlab.engine.state import EVERYONE

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
    return show_user(call, user_of(call))


@routes.get("users/{user}/roles")
async def list_roles_of_user(call: Call) -> Collection:
    state, user = call.context.state, user_of(call)
    held = {item.role_id for item in state.permissions.values() if item.user_id == user.id and item.on[0] == "system"}
    return Collection("roles", "role", [show_role(call, state.roles[role_id]) for role_id in held])


@routes.get("users/{user}/groups")
async def list_groups_of_user(call: Call) -> Collection:
    """What the directory says, without the group that everybody is in."""
    user, groups = user_of(call), call.context.state.groups
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
        "domain": show_domain(f"{user.domain}-authz", linked=True),
    }
    links = ("groups", "permissions", "roles", "sshpublickeys", "tags")
    return Entity("user", fields, id=user.id, href=address("users", user.id), links=links)


def show_group(group: Group) -> Entity:
    fields: dict[str, Value] = {"name": group.name, "domain_entry_id": group.id.replace("-", ""), "namespace": "*"}
    if group.domain:
        fields["domain"] = show_domain(group.domain, linked=True)
    links = ("permissions", "roles", "tags")
    return Entity("group", fields, id=group.id, href=address("groups", group.id), links=links)


def show_domain(name: str, *, linked: bool = False) -> Entity:
    """A directory, by itself or as users and groups have it; its id is its name in hexadecimal digits."""
    key = name.encode().hex().upper()
    return Entity("domain", {"name": name}, id=key, href=address("domains", key), reference=linked)


USERS: Kind[User] = Kind(
    tag="users",
    member="user",
    show=show_user,
    words={
        "name": lambda user: user.first_name or user.name,
        "usrname": lambda user: (user.login, f"{user.login}-authz"),
        "login": lambda user: user.name,
        "lastname": lambda user: user.last_name,
        "user_and_domain": lambda user: f"{user.login}-authz",
        "directory": lambda user: f"{user.domain}-authz",
        "department": lambda user: "",
        "type": lambda user: "user",
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


def _group(call: Call) -> Group:
    group = call.context.state.groups.get(call.id("group"))
    if group is None:
        raise NotFound(call.path)
    return group


def user_of(call: Call) -> User:
    """The user of the path."""
    user = call.context.state.users.get(call.id("user"))
    if user is None:
        raise NotFound(call.path)
    return user
