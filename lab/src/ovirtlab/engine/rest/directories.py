# SPDX-License-Identifier: GPL-3.0-or-later
"""`/domains`: whom the directory knows; users and groups added to the engine from there, and removed from it."""

from __future__ import annotations

from ovirtlab.engine.entities.people import Group, User
from ovirtlab.engine.faults import NotFound, conflict, incomplete, invalid
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import Collection, Entity
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.people import show_domain, show_group, show_user
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of
from ovirtlab.engine.state import EVERYONE, SYSTEM

routes = Routes()

_ADD = "add_users_and_groups_from_directory"
_REMOVE = "manipulate_users"


@routes.get("domains")
async def list_domains(call: Call) -> Collection:
    shown = [_show_domain(name) for name in _domains(call)]
    return Collection("domains", "domain", shown)


@routes.get("domains/{domain}")
async def get_domain(call: Call) -> Entity:
    return _show_domain(_domain(call))


@routes.get("domains/{domain}/users")
async def list_domain_users(call: Call) -> Collection:
    """All of the directory, whether the engine has them or not."""
    name = _domain(call)
    return _USERS.listing(call, [user for user in call.context.state.directory.users.values() if authz(user) == name])


@routes.get("domains/{domain}/users/{entry}")
async def get_domain_user(call: Call) -> Entity:
    name, wanted = _domain(call), call.segments["entry"]
    for user in call.context.state.directory.users.values():
        if authz(user) == name and entry_id(user.id) == wanted:
            return _show_user(call, user)
    raise NotFound(call.path)


@routes.get("domains/{domain}/groups")
async def list_domain_groups(call: Call) -> Collection:
    name = _domain(call)
    return _GROUPS.listing(call, [item for item in call.context.state.directory.groups.values() if item.domain == name])


@routes.get("domains/{domain}/groups/{entry}")
async def get_domain_group(call: Call) -> Entity:
    name, wanted = _domain(call), call.segments["entry"]
    for group in call.context.state.directory.groups.values():
        if group.domain == name and entry_id(group.id) == wanted:
            return _show_group(call, group)
    raise NotFound(call.path)


@routes.post("users")
async def add_user(call: Call) -> Created:
    """A user of the directory, named with the domain or beside it; one that is there already is given back."""
    state, body = call.context.state, call.body
    call.require(_ADD, ("system", SYSTEM))
    text = body.text("user_name")
    if not text:
        raise incomplete("User", "userName", "add")
    name, domain = _split(call, text, "User")
    wanted = _entry(body)
    for user in state.directory.users.values():
        found = entry_id(user.id) == wanted if wanted else (body.text("principal") or name) == user.name
        if authz(user) == domain and found:
            state.users.setdefault(user.id, user)
            _tell(call, 149, f"User '{user.name}' was added successfully to the system.")
            return Created(lambda user=user: show_user(call, user))  # type: ignore[misc]
    raise invalid(f"No such user: {text} in domain {domain}")


@routes.delete("users/{user}")
async def remove_user(call: Call) -> Done:
    """From the engine, with all permissions; the directory keeps them."""
    state, key = call.context.state, call.id("user")
    call.require(_REMOVE, ("system", SYSTEM))
    if key not in state.users:
        raise NotFound(call.path)
    if key == call.user.id:
        raise conflict("Cannot remove User. User is currently logged in.")
    user = state.users.pop(key)
    _drop_permissions(call, user_id=key)
    _tell(call, 325, f"User {user.name} was removed by {cause_of(call).name}.")
    return Done()


@routes.post("groups")
async def add_group(call: Call) -> Created:
    """A group of the directory, named with the domain or beside it; one that is there already is given back."""
    state, body = call.context.state, call.body
    call.require(_ADD, ("system", SYSTEM))
    text = body.text("name")
    if not text:
        raise incomplete("Group", "name", "add")
    name, domain = _split(call, text, "Group")
    wanted = _entry(body)
    for group in state.directory.groups.values():
        found = entry_id(group.id) == wanted if wanted else group.name == name
        if group.domain == domain and found:
            state.groups.setdefault(group.id, group)
            _tell(call, 149, f"User '{group.name}' was added successfully to the system.")
            return Created(lambda group=group: show_group(group))  # type: ignore[misc]
    raise invalid(f"No such group: {text} in directory {domain}")


@routes.delete("groups/{group}")
async def remove_group(call: Call) -> Done:
    state, key = call.context.state, call.id("group")
    call.require(_REMOVE, ("system", SYSTEM))
    if key not in state.groups:
        raise NotFound(call.path)
    if key == EVERYONE:
        raise conflict('Cannot remove the built-in group "Everyone".')
    group = state.groups.pop(key)
    _drop_permissions(call, group_id=key)
    _tell(call, 408, f"Group {group.name} was removed by {cause_of(call).name}.")
    return Done()


def authz(user: User) -> str:
    """The name of the domain a user is in."""
    return f"{user.domain}-authz"


def entry_id(key: str) -> str:
    """How the directory names what the engine knows by an id."""
    return key.replace("-", "")


def _domains(call: Call) -> list[str]:
    directory = call.context.state.directory
    names = {authz(user) for user in directory.users.values()} | {group.domain for group in directory.groups.values()}
    return sorted(names)


def _domain(call: Call) -> str:
    """The name of the domain of the path."""
    for name in _domains(call):
        if show_domain(name).id == call.segments["domain"]:
            return name
    raise NotFound(call.path)


def _split(call: Call, text: str, entity: str) -> tuple[str, str]:
    """The name and the domain of somebody to be added."""
    known = _domains(call)
    wanted = call.body.child("domain") or Body()
    key, domain = wanted.text("id"), wanted.text("name")
    if key is not None and domain is None:
        domain = next((name for name in known if show_domain(name).id == key), None)
        if domain is None:
            raise invalid(f"Domain: '{key}' does not exist.")
    name, _, inside = text.rpartition("@")
    if inside in known and name:
        return name, domain or inside
    if domain is None:
        raise incomplete(entity, "domain.id|name", "add")
    return text, domain


def _entry(body: Body) -> str:
    """The directory's id that a request names somebody by, which may be written as the engine's; empty for none."""
    return (body.text("domain_entry_id") or body.text("id") or "").replace("-", "")


def _drop_permissions(call: Call, *, user_id: str = "", group_id: str = "") -> None:
    permissions = call.context.state.permissions
    for key, permission in list(permissions.items()):
        if (permission.user_id, permission.group_id) == (user_id, group_id):
            del permissions[key]


def _show_domain(name: str) -> Entity:
    entity = show_domain(name)
    entity.links = ("users", "groups")
    return entity


def _show_user(call: Call, user: User) -> Entity:
    """As the directory has them: without what the engine alone knows."""
    shown = show_user(call, user)
    return _of_directory(shown, user.id, where=show_domain(authz(user)), collection="users")


def _show_group(call: Call, group: Group) -> Entity:
    return _of_directory(show_group(group), group.id, where=show_domain(group.domain), collection="groups")


def _of_directory(shown: Entity, key: str, *, where: Entity, collection: str) -> Entity:
    shown.id = entry_id(key)
    shown.href = address("domains", where.id or "", collection, shown.id)
    shown.links = ()
    return shown


def _tell(call: Call, code: int, text: str) -> None:
    state = call.context.state
    state.events.add(code, "normal", text, correlation_id=call.correlation_id, user=call.user.id)


_USERS: Kind[User] = Kind(
    tag="users",
    member="user",
    show=_show_user,
    words={
        "name": lambda user: user.first_name or user.name,
        "username": lambda user: user.name,
        "allnames": lambda user: (user.name, user.first_name, user.last_name),
    },
)
_GROUPS: Kind[Group] = Kind(tag="groups", member="group", show=_show_group, words={"name": lambda group: group.name})
