# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of elements in an entity: name, description, comment, links, fields by name, then links to objects."""

from __future__ import annotations

from collections.abc import Iterator

from ovirtlab.engine.rest.documents import Entity, Items, Value

_FIRST = {"name": 0, "description": 1, "comment": 2}


def ordered(entity: Entity) -> tuple[list[tuple[str, Value]], list[tuple[str, Value]]]:
    """The fields that stand before the links, and those that stand after them."""
    head: list[tuple[str, Value]] = [
        (name, entity.fields[name]) for name in _FIRST if entity.fields.get(name) is not None
    ]
    rest: list[tuple[str, Value]] = [
        (name, value) for name, value in entity.fields.items() if name not in _FIRST and value is not None
    ]
    rest.sort(key=lambda item: (_leads_elsewhere(item[1]), item[0]))
    return head, rest


def links_of(entity: Entity) -> Iterator[tuple[str, str]]:
    """Name and address of each sub-collection; a name may bring an address of its own after `=`."""
    for link in entity.links:
        rel, _, href = link.partition("=")
        yield rel, href or f"{entity.href}/{rel}"


def _leads_elsewhere(value: Value) -> bool:
    """Whether a field is a link to an object, or a list of such links."""
    if isinstance(value, (Items, Entity)) and value.followed:
        return True
    if isinstance(value, Items):
        return bool(value.members) and all(_leads_elsewhere(member) for member in value.members)
    return isinstance(value, Entity) and value.reference
