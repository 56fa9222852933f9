# SPDX-License-Identifier: GPL-3.0-or-later
"""Entities as the engine's JSON: whole numbers and booleans as strings, dates as milliseconds, empty lists left out.

Decimals are numbers: the engine's adapters to strings are for integers and booleans only.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from ovirtlab.engine.rest.documents import Collection, Entity, Items, Scalar, Value
from ovirtlab.engine.rest.order import links_of, ordered

CONTENT_TYPE = "application/json"


def render(document: Entity | Collection) -> bytes:
    """The bytes of a response body."""
    if isinstance(document, Collection):
        members = [_entity(entity) for entity in document.entities]
        tree: dict[str, Any] = {document.member: members} if members else {}
    else:
        tree = _entity(document)
    return json.dumps(tree, indent=2, ensure_ascii=False).encode()


def _entity(entity: Entity) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if entity.actions:
        tree["actions"] = {"link": [{"href": f"{entity.href}/{rel}", "rel": rel} for rel in entity.actions]}
    head, tail = ordered(entity)
    for name, value in (*head, *tail):
        if value is not None:
            tree[name] = _value(value)
    links = [{"href": href, "rel": rel} for rel, href in links_of(entity)]
    if links:
        tree["link"] = links
    if entity.href is not None:
        tree["href"] = entity.href
    if entity.id is not None:
        tree["id"] = entity.id
    return tree


def _value(value: Value) -> Any:
    if isinstance(value, Entity):
        return _entity(value)
    if isinstance(value, Items):
        return {value.tag: [_value(member) for member in value.members]} if value.members else {}
    return None if value is None else _scalar(value)


def _scalar(value: Scalar) -> str | int | float:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    return str(value)
