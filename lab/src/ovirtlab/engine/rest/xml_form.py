# SPDX-License-Identifier: GPL-3.0-or-later
"""Entities as the engine's XML."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from xml.sax.saxutils import escape, quoteattr

from ovirtlab.engine.rest.documents import Collection, Entity, Items, Scalar, Value
from ovirtlab.engine.rest.order import links_of, ordered

CONTENT_TYPE = "application/xml;charset=UTF-8"
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'


def render(document: Entity | Collection) -> bytes:
    """The bytes of a response body."""
    parts = [_HEAD]
    if isinstance(document, Collection):
        _list(parts, document.tag, document)
    else:
        _entity(parts, document.tag, document)
    return "".join(parts).encode()


def _list(parts: list[str], tag: str, collection: Collection) -> None:
    opening = tag if collection.href is None else f"{tag} href={quoteattr(collection.href)}"
    if not collection.entities:
        parts.append(f"<{opening}/>")
        return
    parts.append(f"<{opening}>\n")
    for entity in collection.entities:
        _entity(parts, collection.member, entity)
    parts.append(f"</{tag}>")


def _entity(parts: list[str], tag: str, entity: Entity) -> None:
    attributes = "".join(_attributes(entity))
    start = len(parts)
    parts.append(f"<{tag}{attributes}>")
    if entity.actions:
        parts.append("<actions>")
        parts.extend(_link(rel, f"{entity.href}/{rel}") for rel in entity.actions)
        parts.append("</actions>\n")
    head, tail = ordered(entity)
    for name, value in head:
        _field(parts, name, value)
    parts.extend(_link(rel, href) for rel, href in links_of(entity))
    for name, value in tail:
        _field(parts, name, value)
    if len(parts) == start + 1:
        parts[start] = f"<{tag}{attributes}/>\n"
    else:
        parts.append(f"</{tag}>\n")


def _attributes(entity: Entity) -> Iterator[str]:
    if entity.href is not None:
        yield f" href={quoteattr(entity.href)}"
    if entity.id is not None:
        yield f" id={quoteattr(entity.id)}"


def _link(rel: str, href: str) -> str:
    return f"<link href={quoteattr(href)} rel={quoteattr(rel)}/>\n"


def _field(parts: list[str], name: str, value: Value) -> None:
    if isinstance(value, Entity):
        _entity(parts, name, value)
    elif isinstance(value, Items):
        _items(parts, name, value)
    elif value is not None:
        parts.append(f"<{name}>{escape(_text(value))}</{name}>\n")


def _items(parts: list[str], name: str, items: Items) -> None:
    parts.append(f"<{name}>\n")
    for member in items.members:
        _field(parts, items.tag, member)
    parts.append(f"</{name}>\n")


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
