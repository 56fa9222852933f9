# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties that the lab has no behaviour for: what a client has set is kept, and shown to it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ovirtlab.engine.faults import invalid
from ovirtlab.engine.policies import STORED
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import API, Constant, Entity, Items, Value, link_to
from ovirtlab.engine.state import State

_REFERENCES = frozenset({"cluster", "data_center", "host", "mac_pool", "network", "quota", "storage_domain", "template",
                         "vm"}) | frozenset(STORED)  # fmt: skip


def keep(state: State, kept: dict[str, Any], body: Body, names: Iterable[str]) -> None:
    """Take over those of the named properties that a request has; nested ones are merged, lists replaced."""
    for name in names:
        child = body.child(name)
        if child is not None:
            value = _read(state, name, child)
            kept[name] = merged(kept.get(name), value)


def merged(before: Value, value: Value) -> Value:
    """Properties inside properties: those that are not named stay as they were."""
    if isinstance(before, Constant):
        before = before.entity
    if not isinstance(before, Entity) or not isinstance(value, Entity) or before.reference or value.reference:
        return value
    fields = {name: merged(before.fields.get(name), inner) for name, inner in value.fields.items()}
    return Entity(value.tag, {**before.fields, **fields}, id=value.id)


def _read(state: State, name: str, body: Body) -> Value:
    if name in _REFERENCES and ("id" in body or "name" in body):
        return reference(state, name, _known(state, name, body))
    if name in _REFERENCES and not body.fields and not body.value.strip():
        return None
    if _is_list(name, body):
        member = next(iter(body.fields))
        return Items(member, [_read(state, member, item) for item in body.fields[member]])
    if body.fields:
        fields = {key: _read(state, key, items[0]) for key, items in body.fields.items() if key not in ("id", "href")}
        return Entity(name, fields, id=body.text("id"))
    return body.value


def reference(state: State, kind: str, key: str) -> Entity | None:
    """A link to an object of any kind; None for a stored one that is not there."""
    if kind in state.stored:
        item = state.stored[kind].get(key)
        return Entity(kind, id=key, href=f"{API}/{item.base}/{key}", reference=True) if item else None
    if kind == "quota":
        return link_to(kind, key, href=f"datacenters/{state.quotas[key].data_center_id}/quotas/{key}")
    return link_to(kind, key)


def _is_list(name: str, body: Body) -> bool:
    if len(body.fields) != 1:
        return False
    member = next(iter(body.fields))
    return name.endswith((f"{member}s", f"{member}es", f"{member.removesuffix('y')}ies"))


def _known(state: State, kind: str, body: Body) -> str:
    """The id of an object that is named by id or name; unknown is refused."""
    key, name = body.id, body.text("name")
    for item_id, item_name in _candidates(state, kind):
        if item_id == key or (key is None and item_name == name):
            return item_id
    raise invalid(f"The {kind.replace('_', ' ')} {key or name} does not exist.")


def _candidates(state: State, kind: str) -> Iterator[tuple[str, str | None]]:
    if kind in state.stored:
        yield from ((key, item.kept.get("name")) for key, item in state.stored[kind].items())
        return
    tables: dict[str, Mapping[str, Any]] = {
        "cluster": state.clusters,
        "data_center": state.data_centers,
        "host": state.hosts,
        "mac_pool": state.mac_pools,
        "network": state.networks,
        "quota": state.quotas,
        "storage_domain": state.storage_domains,
        "template": state.templates,
        "vm": state.vms,
    }
    yield from ((key, item.name) for key, item in tables[kind].items())
