# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of elements in an entity: name, description, comment, links, fields by name, then links to objects."""

from __future__ import annotations

from collections.abc import Iterator

from ovirtlab.engine.rest.documents import Entity, Items, Value

_FIRST = ("name", "description", "comment")


def ordered(entity: Entity) -> tuple[list[tuple[str, Value]], list[tuple[str, Value]]]:
    """The fields that stand before the links, and those that stand after them."""
    fields = entity.fields
    if not fields:  # as of most links to objects
        return [], []
    head: list[tuple[str, Value]] = [(name, fields[name]) for name in _FIRST if fields.get(name) is not None]
    own: list[tuple[str, Value]] = []
    elsewhere: list[tuple[str, Value]] = []
    for name in sorted(fields):
        value = fields[name]
        if value is not None and name not in _FIRST:
            (elsewhere if _leads_elsewhere(value) else own).append((name, value))
    return head, own + elsewhere


def links_of(entity: Entity) -> Iterator[tuple[str, str]]:
    """Name and address of each sub-collection; a name may bring an address of its own after `=`."""
    for link in entity.links:
        rel, _, href = link.partition("=")
        yield rel, href or f"{entity.href}/{rel}"


def _leads_elsewhere(value: Value) -> bool:
    """Whether a field is a link to an object, or a list of such links."""
    if isinstance(value, Entity):
        return value.reference or value.followed
    if isinstance(value, Items):
        return value.followed or (bool(value.members) and all(map(_leads_elsewhere, value.members)))
    return False
