# SPDX-License-Identifier: GPL-3.0-or-later
"""`/roles` and their permits: those that every engine has are read-only, others are made, changed and removed."""

from __future__ import annotations

from ovirtlab.engine.entities.people import Role
from ovirtlab.engine.faults import NotFound, conflict, incomplete, invalid
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.catalogue import show_permit
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address
from ovirtlab.engine.roles import ADMIN_PERMITS, PERMITS, shows_children
from ovirtlab.engine.state import SYSTEM

routes = Routes()

_BY_NUMBER = {str(number): name for name, number in PERMITS.items()}


@routes.get("roles")
async def list_roles(call: Call) -> Collection:
    return ROLES.listing(call, call.context.state.roles.values())


@routes.get("roles/{role}")
async def get_role(call: Call) -> Entity:
    return show_role(call, _role(call))


@routes.post("roles")
async def add_role(call: Call) -> Created:
    state, body = call.context.state, call.body
    call.require("manipulate_roles", ("system", SYSTEM))
    name, permits = body.text("name"), body.list("permits", "permit")
    if not name or not permits:
        raise incomplete("Role", "name, permits.id|name", "add")
    _check_name(call, name, action="add")
    wanted = frozenset({_permit(item) for item in permits} | {"login"})
    role = Role(
        id=state.new_id(),
        name=name,
        administrative=body.flag("administrative") or False,
        permits=wanted,
        description=body.text("description") or "",
        mutable=True,
        shows_children=shows_children(wanted),
    )
    _check_kind(role, wanted)
    state.roles[role.id] = role
    _tell(call, 864, f"Role {name} was added by {call.user.login}-authz")
    return Created(lambda: show_role(call, role))


@routes.put("roles/{role}")
async def update_role(call: Call) -> Entity:
    """Name and description; whether it is administrative stays as it was made."""
    role, body = _changeable(call, action="update"), call.body
    name = body.text("name")
    if name is not None and name != role.name:
        _check_name(call, name, action="update")
        role.name = name
    administrative = body.flag("administrative")
    if administrative is not None and administrative != role.administrative:
        raise invalid("Cannot update Role. Changing Role type is not allowed.")
    description = body.text("description")
    role.description = role.description if description is None else description
    _tell(call, 856, f"{call.user.login}-authz Role was updated to the {role.name} Role")
    return show_role(call, role)


@routes.delete("roles/{role}")
async def remove_role(call: Call) -> Done:
    role = _changeable(call, action="remove")
    state = call.context.state
    if any(item.role_id == role.id for item in state.permissions.values()):
        raise conflict("One or more Permissions is still associated with Role.\n- Please remove all Permissions first.")
    del state.roles[role.id]
    _tell(call, 858, f"Role {role.name} removed from {call.user.login}-authz")
    return Done()


@routes.get("roles/{role}/permits")
async def list_permits(call: Call) -> Collection:
    role = _role(call)
    return Collection("permits", "permit", [_show_permit(role, name) for name in sorted(role.permits)])


@routes.get("roles/{role}/permits/{permit}")
async def get_permit(call: Call) -> Entity:
    """Any permit there is, whether the role has it or not, as in the engine."""
    return _show_permit(_role(call), _permit_of(call))


@routes.post("roles/{role}/permits")
async def add_permit(call: Call) -> Created:
    role = _changeable(call, action="attach")
    if "id" not in call.body and "name" not in call.body:
        raise incomplete("Permit", "name|id", "add")
    name = _permit(call.body)
    if name in role.permits:
        raise conflict("Cannot attach action group to Role. This action group is already attached to Role.")
    _check_kind(role, frozenset({name}))
    _change_permits(role, role.permits | {name})
    _tell(call, 860, f"Action group {name.upper()} was attached to Role {role.name} by {call.user.login}-authz")
    return Created(lambda: _show_permit(role, name))


@routes.delete("roles/{role}/permits/{permit}")
async def remove_permit(call: Call) -> Done:
    role, name = _changeable(call, action="detach"), _permit_of(call)
    if name not in role.permits:
        raise invalid("Cannot detach action group from Role. This action group is not attached to this Role.")
    _change_permits(role, role.permits - {name})
    _tell(call, 862, f"Action group {name.upper()} was detached from Role {role.name} by {call.user.login}-authz")
    return Done()


def show_role(call: Call, role: Role) -> Entity:
    fields: dict[str, Value] = {
        "name": role.name,
        "description": role.description,
        "administrative": role.administrative,
        "mutable": role.mutable,
    }
    return Entity("role", fields, id=role.id, href=address("roles", role.id), links=("permits",))


ROLES: Kind[Role] = Kind(
    tag="roles",
    member="role",
    show=show_role,
    words={"name": lambda role: role.name, "id": lambda role: role.id},
)


def _show_permit(role: Role, name: str) -> Entity:
    entity = show_permit(name)
    entity.fields = {**entity.fields, "role": link_to("role", role.id)}
    entity.href = address("roles", role.id, "permits", str(PERMITS[name]))
    return entity


def _role(call: Call) -> Role:
    role = call.context.state.roles.get(call.id("role"))
    if role is None:
        raise NotFound(call.path)
    return role


def _changeable(call: Call, *, action: str) -> Role:
    """The role of the path, when this user may change it and anybody may."""
    role = _role(call)
    call.require("manipulate_roles", ("system", SYSTEM))
    if not role.mutable:
        raise conflict(f"Cannot {action} Role. The Role is Read-Only.")
    return role


def _permit_of(call: Call) -> str:
    """The permit of the path, whose id is a number."""
    name = _BY_NUMBER.get(call.segments["permit"])
    if name is None:
        raise NotFound(call.path)
    return name


def _permit(body: Body) -> str:
    """The name of a permit that a request names by number or name."""
    number, name = body.text("id"), body.text("name") or ""
    found = _BY_NUMBER.get(number, "") if number is not None else name
    if found not in PERMITS:
        raise invalid(f"{number or name} is not a valid permit ID.")
    return found


def _check_name(call: Call, name: str, *, action: str) -> None:
    if any(role.name == name for role in call.context.state.roles.values()):
        raise conflict(
            f"Cannot {action} Role. The Role name is already in use, please choose a unique name and try again."
        )


def _check_kind(role: Role, permits: frozenset[str]) -> None:
    if not role.administrative and permits & ADMIN_PERMITS.keys():
        raise conflict("Cannot add administrator's action group to a User Role.")


def _change_permits(role: Role, permits: frozenset[str]) -> None:
    role.permits, role.shows_children = permits, shows_children(permits)


def _tell(call: Call, code: int, text: str) -> None:
    state = call.context.state
    state.events.add(code, "normal", text, correlation_id=call.correlation_id, user=call.user.id)
