# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties that the lab has no behaviour for: what a client has set is kept, and shown to it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ovirtlab.engine.faults import invalid
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import COLLECTIONS, Entity, Items, Value, link_to
from ovirtlab.engine.state import State


def keep(state: State, kept: dict[str, Any], body: Body, names: Iterable[str]) -> None:
    """Take over those of the named properties that a request has; nested ones are merged, lists replaced."""
    for name in names:
        child = body.child(name)
        if child is not None:
            value = _read(state, name, child)
            before = kept.get(name)
            if isinstance(value, Entity) and isinstance(before, Entity) and not value.reference:
                value = Entity(name, {**before.fields, **value.fields}, id=value.id)
            kept[name] = value


def _read(state: State, name: str, body: Body) -> Value:
    if name in COLLECTIONS and ("id" in body or "name" in body):
        return link_to(name, _known(state, name, body))
    if _is_list(name, body):
        member = next(iter(body.fields))
        return Items(member, [_read(state, member, item) for item in body.fields[member]])
    if body.fields:
        fields = {key: _read(state, key, items[0]) for key, items in body.fields.items() if key not in ("id", "href")}
        return Entity(name, fields, id=body.text("id"))
    return body.value


def _is_list(name: str, body: Body) -> bool:
    return len(body.fields) == 1 and name in (f"{next(iter(body.fields))}s", f"{next(iter(body.fields))}es")


def _known(state: State, kind: str, body: Body) -> str:
    """The id of an object that is named by id or name; unknown is refused."""
    tables: dict[str, Mapping[str, Any]] = {
        "host": state.hosts,
        "storage_domain": state.storage_domains,
        "cluster": state.clusters,
        "network": state.networks,
    }
    key, name = body.id, body.text("name")
    for item in tables.get(kind, {}).values():
        if item.id == key or (key is None and item.name == name):
            return str(item.id)
    if kind in tables or key is None:
        raise invalid(f"The {kind.replace('_', ' ')} {key or name} does not exist.")
    return key
