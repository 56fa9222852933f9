# SPDX-License-Identifier: GPL-3.0-or-later
"""`/domains`: the directories that users and groups come from."""

from __future__ import annotations

from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.rest.documents import Collection, Entity
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.people import GROUPS, USERS, show_domain
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import address
from ovirtlab.engine.state import State

routes = Routes()


@routes.get("domains")
async def list_domains(call: Call) -> Collection:
    return Collection("domains", "domain", [_show(name) for name in _names(call.context.state)])


serve_members(routes, "domains/{domain}", list_domains)


@routes.get("domains/{domain}/users")
async def list_users(call: Call) -> Collection:
    """The users of a directory whom the engine knows; the lab's directories have no others."""
    name, users = _domain(call), call.context.state.users.values()
    found = USERS.listing(call, [user for user in users if f"{user.domain}-authz" == name])
    return _placed(call, found, "users")


@routes.get("domains/{domain}/groups")
async def list_groups(call: Call) -> Collection:
    name, groups = _domain(call), call.context.state.groups.values()
    return _placed(call, GROUPS.listing(call, [group for group in groups if group.domain == name]), "groups")


serve_members(routes, "domains/{domain}/users/{user}", list_users)
serve_members(routes, "domains/{domain}/groups/{group}", list_groups)


def _placed(call: Call, found: Collection, collection: str) -> Collection:
    """The same objects as of their directory, where they have no roles."""
    for entity in found.entities:
        entity.href = address("domains", call.segments["domain"], collection, entity.id or "")
        entity.links = ()
    return found


def _show(name: str) -> Entity:
    entity = show_domain(name)
    entity.links = ("groups", "users")
    return entity


def _names(state: State) -> list[str]:
    users = {f"{user.domain}-authz" for user in state.users.values()}
    return sorted(users | {group.domain for group in state.groups.values() if group.domain})


def _domain(call: Call) -> str:
    for name in _names(call.context.state):
        if show_domain(name).id == call.segments["domain"]:
            return name
    raise NotFound(call.path)
