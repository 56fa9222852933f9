# SPDX-License-Identifier: GPL-3.0-or-later
"""The users and groups that an environment names, put into the engine's state with their permissions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from ovirtlab import accounts
from ovirtlab.accounts import Accounts, Grant
from ovirtlab.engine.entities.people import Group, Permission, Role, User
from ovirtlab.engine.roles import PERMITS, shows_children
from ovirtlab.engine.state import SYSTEM, State

_NAMESPACE = uuid.UUID("c6a2ab0c-6a53-4c8e-9d0f-3a1c9b8c7f52")


class UnknownPermit(ValueError):
    """The environment makes a role with a permit that the engine does not have."""

    def __init__(self, role: str, permit: str) -> None:
        super().__init__(f"The role {role} has the permit {permit}, which is not known; see `permits` in the API.")


class UnknownRole(ValueError):
    """The environment gives a role that the engine does not have."""

    def __init__(self, role: str, known: Sequence[str]) -> None:
        super().__init__(f"The role {role} is not known; choose one of: {', '.join(known)}.")


def fill(state: State, wanted: Accounts) -> None:
    """Add everybody; the objects they have roles on exist already. Raises `UnknownRole` and `UnknownPermit`."""
    for role in wanted.roles:
        made = _role(role)
        state.roles[made.id] = made
    for group in wanted.groups:
        key = _stable_id("group", group.name)
        known = Group(id=key, name=group.name, domain="internal-authz")
        state.directory.groups[key] = known
        if group.added:
            state.groups[key] = known
        for grant in group.roles:
            _grant(state, grant, group_id=key)
    by_name = {group.name: group.id for group in state.directory.groups.values()}
    for user in wanted.users:
        name, _, domain = user.login.rpartition("@")
        key = _stable_id("user", user.login)
        state.directory.users[key] = User(
            id=key,
            name=name,
            domain=domain,
            password=user.password,
            first_name=name,
            group_ids=tuple(by_name[group] for group in user.groups),
        )
        if user.added:
            state.users[key] = state.directory.users[key]
        for grant in user.roles:
            _grant(state, grant, user_id=key)


def _role(role: accounts.Role) -> Role:
    for permit in role.permits:
        if permit not in PERMITS:
            raise UnknownPermit(role.name, permit)
    permits = frozenset({*role.permits, "login"})
    return Role(
        id=_stable_id("role", role.name),
        name=role.name,
        administrative=role.administrative,
        permits=permits,
        mutable=True,
        shows_children=shows_children(permits),
    )


def _grant(state: State, grant: Grant, *, user_id: str = "", group_id: str = "") -> None:
    """A role on an object; one on a VM or host that a smaller lab leaves out is left out with it."""
    role = next((role for role in state.roles.values() if role.name == grant.role), None)
    if role is None:
        raise UnknownRole(grant.role, [role.name for role in state.roles.values()])
    key = _object(state, grant)
    if key is None:
        return
    identity = _stable_id("permission", f"{user_id or group_id}/{role.name}/{grant.kind}/{key}")
    permission = Permission(id=identity, user_id=user_id, group_id=group_id, role_id=role.id, on=(grant.kind, key))
    state.permissions[permission.id] = permission


def _object(state: State, grant: Grant) -> str | None:
    if grant.kind == "system":
        return SYSTEM
    tables: dict[str, Mapping[str, str]] = {
        "vm": {item.name: item.id for item in state.vms.values()},
        "storage_domain": {item.name: item.id for item in state.storage_domains.values()},
        "host": {item.name: item.id for item in state.hosts.values()},
        "cluster": {item.name: item.id for item in state.clusters.values()},
        "data_center": {item.name: item.id for item in state.data_centers.values()},
    }
    return tables[grant.kind].get(grant.name)


def _stable_id(kind: str, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{kind}/{name}"))
