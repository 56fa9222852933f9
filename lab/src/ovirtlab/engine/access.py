# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what: permissions of a user on an object and on everything it lies in."""

from __future__ import annotations

from collections.abc import Iterator

from ovirtlab.engine.entities.people import Permission, User
from ovirtlab.engine.faults import Forbidden
from ovirtlab.engine.state import EVERYONE, SYSTEM, State

Object = tuple[str, str]  # (kind, id)
_PLACES = frozenset({"data_center", "cluster", "storage_domain"})


def may(state: State, user: User, *, permit: str, on: Object) -> bool:
    """Whether some role of the user, on the object or above it, holds the permit."""
    return any(permit in state.roles[permission.role_id].permits for permission in permissions(state, user, on=on))


def require(state: State, user: User, *, permit: str, on: Object) -> None:
    """Raise `Forbidden` unless the user has the permit on the object."""
    if not may(state, user, permit=permit, on=on):
        raise Forbidden()


def sees(state: State, user: User, *, on: Object) -> bool:
    """Whether the user-level view shows the object: any role on it, above it, or below it."""
    found = permissions(state, user, on=on)
    if on[0] in ("network", "vnic_profile") and _uses_network(state, user, on=on):
        return True
    place = on[0] in _PLACES  # who may make VMs or disks somewhere sees the places, not what others have there
    shown = any(item.on == on or place or state.roles[item.role_id].shows_children for item in found)
    return shown or _holds_below(state, user, on=on)


def is_admin(state: State, user: User) -> bool:
    """Whether the user has an administrative role anywhere, and so gets the unfiltered view."""
    return any(
        state.roles[permission.role_id].administrative
        for permission in state.permissions.values()
        if holds(user, permission)
    )


def give(state: State, user: User, role_name: str, *, on: Object) -> None:
    """Give a user a predefined role on an object, as the engine gives those who make one."""
    role = next((role for role in state.roles.values() if role.name == role_name), None)
    if role is not None:
        permission = Permission(id=state.new_id(), user_id=user.id, role_id=role.id, on=on)
        state.permissions[permission.id] = permission


def may_log_in(state: State, user: User) -> bool:
    """Whether the engine gives the user a session: any role with `login` will do, on any object, but not everyone's."""
    return any(
        holds(user, item) and item.group_id != EVERYONE and "login" in state.roles[item.role_id].permits
        for item in state.permissions.values()
    )


def holds(user: User, permission: Permission) -> bool:
    """Whether a permission is the user's own, or that of a group they are in."""
    if permission.group_id:
        return permission.group_id in user.group_ids or permission.group_id == EVERYONE
    return permission.user_id == user.id


def permissions(state: State, user: User | None, *, on: Object) -> Iterator[Permission]:
    """Permissions that count on an object: its own and those it inherits; of one user, or of all with None."""
    places = set(above(state, on=on))
    return (
        permission
        for permission in state.permissions.values()
        if permission.on in places and (user is None or holds(user, permission))
    )


def above(state: State, *, on: Object) -> Iterator[Object]:
    """The object and what it lies in, up to the system."""
    seen: set[Object] = set()
    queue = [on]
    while queue:
        place = queue.pop()
        if place in seen:
            continue
        seen.add(place)
        yield place
        queue.extend(_parents(state, place))
    if ("system", SYSTEM) not in seen:
        yield ("system", SYSTEM)


def _parents(state: State, place: Object) -> Iterator[Object]:
    kind, key = place
    if kind == "vm" and key in state.vms:
        yield ("cluster", state.vms[key].cluster_id)
    elif kind == "disk" and key in state.disks:
        yield ("storage_domain", state.disks[key].storage_domain_id)
        yield from (("vm", vm.id) for vm in state.vms_of_disk(key))
    elif kind == "host" and key in state.hosts:
        yield ("cluster", state.hosts[key].cluster_id)
    elif kind == "vnic_profile" and key in state.vnic_profiles:
        yield ("network", state.vnic_profiles[key].network_id)
    else:
        yield from _data_center_of(state, place)


def _data_center_of(state: State, place: Object) -> Iterator[Object]:
    kind, key = place
    if kind == "cluster" and key in state.clusters:
        yield ("data_center", state.clusters[key].data_center_id)
    elif kind == "storage_domain" and key in state.storage_domains:
        yield ("data_center", state.storage_domains[key].data_center_id)
    elif kind == "network" and key in state.networks:
        yield ("data_center", state.networks[key].data_center_id)


def _uses_network(state: State, user: User, *, on: Object) -> bool:
    """Whether a VM of the user has an interface in the network, or by the profile."""
    kind, key = on
    profiles = {
        item.id for item in state.vnic_profiles.values() if key == (item.id if kind != "network" else item.network_id)
    }
    return any(
        nic.vnic_profile_id in profiles and sees(state, user, on=("vm", vm.id))
        for vm in state.vms.values()
        for nic in vm.nics.values()
    )


def _holds_below(state: State, user: User, *, on: Object) -> bool:
    if on[0] not in ("cluster", "data_center", "storage_domain", "network"):
        return False
    mine = (permission.on for permission in state.permissions.values() if holds(user, permission))
    return any(on in above(state, on=place) for place in mine)
