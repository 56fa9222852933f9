# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects with a name of their own: chosen once, changed, and found by clients that know it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter, StorageDomain
from ovirtlab.engine.entities.networks import Network
from ovirtlab.engine.faults import NotFound, conflict, incomplete
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.routing import Call


def new_name(call: Call, entity: str, others: Iterable[Any], action: str) -> str:
    """The name of something to be made, which none of the others has."""
    name = call.body.text("name")
    if not name:
        raise incomplete(entity, "name", "add")
    check_name(name, others, action)
    return name


def rename(call: Call, item: Any, others: Iterable[Any], action: str) -> None:
    """Take over name and description."""
    name, description = call.body.text("name"), call.body.text("description")
    if name and name != item.name:
        check_name(name, others, action)
        item.name = name
    item.description = item.description if description is None else description


def check_name(name: str, others: Iterable[Any], action: str) -> None:
    """Refuse a name that is in use."""
    if any(other.name == name for other in others):
        raise conflict(f"{action}. The name {name} is already in use.")


def find_reference(body: Body, name: str, table: dict[str, Any], entity: str) -> str:
    """The id of an object that the request names by id or name; `name` is empty for the request's own."""
    child = (body.child(name) or Body()) if name else body
    key, text = child.id, child.text("name")
    if key is None and text is None:
        raise incomplete(entity, f"{name}.id|name".lstrip("."), "add")
    found = next((item.id for item in table.values() if item.id == key or (key is None and item.name == text)), None)
    if found is None:
        raise NotFound(key or text or "")
    return str(found)


def describe(body: Body, item: DataCenter | Cluster | Network | StorageDomain) -> None:
    """Take over description and comment."""
    for name in ("description", "comment"):
        text = body.text(name)
        if text is not None:
            setattr(item, name, text)
