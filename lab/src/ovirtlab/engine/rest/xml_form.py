# SPDX-License-Identifier: GPL-3.0-or-later
"""Entities as the engine's XML."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from ovirtlab.engine.rest.documents import Collection, Constant, Entity, Items, Scalar, Value
from ovirtlab.engine.rest.order import links_of, ordered

CONTENT_TYPE = "application/xml;charset=UTF-8"
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'


def render(document: Entity | Collection) -> bytes:
    """The bytes of a response body."""
    shown = _list(document) if isinstance(document, Collection) else _entity(document.tag, document)
    return f"{_HEAD}{shown}".encode()


def _list(collection: Collection) -> str:
    tag = collection.tag
    opening = tag if collection.href is None else f"{tag} href={_quoted(collection.href)}"
    if not collection.entities:
        return f"<{opening}/>"
    members = [_entity(collection.member, entity) for entity in collection.entities]
    return f"<{opening}>\n{''.join(members)}</{tag}>"


def _entity(tag: str, entity: Entity) -> str:
    head, tail = ordered(entity)
    children = [_field(name, value) for name, value in head]
    children += [_link(rel, href) for rel, href in links_of(entity)]
    children += [_field(name, value) for name, value in tail]
    if entity.actions:
        links = [_link(rel, f"{entity.href}/{rel}") for rel in entity.actions]
        children.insert(0, f"<actions>{''.join(links)}</actions>\n")
    opening = tag
    if entity.href is not None:
        opening += f" href={_quoted(entity.href)}"
    if entity.id is not None:
        opening += f" id={_quoted(entity.id)}"
    return f"<{opening}>{''.join(children)}</{tag}>\n" if children else f"<{opening}/>\n"


def _link(rel: str, href: str) -> str:
    return f"<link href={_quoted(href)} rel={_quoted(rel)}/>\n"


def _field(name: str, value: Value) -> str:
    if isinstance(value, Constant):
        return _constant(name, value)
    if isinstance(value, Entity):
        return _entity(name, value)
    if isinstance(value, Items):
        members = [_field(value.tag, member) for member in value.members]
        return f"<{name}>\n{''.join(members)}</{name}>\n"
    return "" if value is None else f"<{name}>{_escaped(_text(value))}</{name}>\n"


@lru_cache(maxsize=4096)
def _constant(name: str, value: Constant) -> str:
    return _entity(name, value.entity)


def _text(value: Scalar) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> str:
    return f'"{_escaped(text).replace(chr(34), "&quot;")}"'
