# SPDX-License-Identifier: GPL-3.0-or-later
"""Entities as the engine's JSON: whole numbers and booleans as strings, dates as milliseconds, empty lists left out.

Decimals are numbers: the engine's adapters to strings are for integers and booleans only. Lines and blanks are those of
its library, Jackson; they are written here, as Python's own encoder is several times slower when it indents.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring as _quoted

from ovirtlab.engine.rest.documents import Collection, Constant, Entity, Items, Scalar, Value
from ovirtlab.engine.rest.order import links_of, ordered

CONTENT_TYPE = "application/json"
_STEP = "  "


def render(document: Entity | Collection) -> bytes:
    """The bytes of a response body."""
    if isinstance(document, Entity):
        return _entity(document, "\n").encode()
    members = [_entity(entity, "\n" + _STEP) for entity in document.entities]
    return _object([f'"{document.member}" : {_array(members)}'] if members else [], "\n").encode()


def _entity(entity: Entity, line: str) -> str:
    """An object; `line` is a line break and the indentation of what the object stands in."""
    inner = line + _STEP
    head, tail = ordered(entity)
    members = [f'"{name}" : {_value(value, inner)}' for name, value in head]
    members += [f'"{name}" : {_value(value, inner)}' for name, value in tail]
    if entity.actions:
        actions = _links(((rel, f"{entity.href}/{rel}") for rel in entity.actions), inner + _STEP)
        members.insert(0, f'"actions" : {_object([actions], inner)}')
    if entity.links:
        members.append(_links(links_of(entity), inner))
    if entity.href is not None:
        members.append(f'"href" : {_quoted(entity.href)}')
    if entity.id is not None:
        members.append(f'"id" : {_quoted(entity.id)}')
    return _object(members, line)


def _links(links: Iterable[tuple[str, str]], line: str) -> str:
    inner = line + _STEP
    members = [f'{{{inner}"href" : {_quoted(href)},{inner}"rel" : "{rel}"{line}}}' for rel, href in links]
    return f'"link" : {_array(members)}'


def _value(value: Value, line: str) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Constant):
        return _constant(value, line)
    if isinstance(value, Entity):
        return _entity(value, line)
    if isinstance(value, Items):
        inner = line + _STEP
        members = [_value(member, inner) for member in value.members]
        return _object([f'"{value.tag}" : {_array(members)}'] if members else [], line)
    return "null" if value is None else _scalar(value)


@lru_cache(maxsize=4096)
def _constant(value: Constant, line: str) -> str:
    return _entity(value.entity, line)


def _scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return '"true"' if value else '"false"'
    if isinstance(value, datetime):
        return str(int(value.timestamp() * 1000))
    if isinstance(value, float):
        return str(int(value) if value.is_integer() else value)
    return f'"{value}"'


def _object(members: list[str], line: str) -> str:
    """Members with their names, a line each."""
    if not members:
        return "{ }"
    inner = line + _STEP
    return f"{{{inner}{f',{inner}'.join(members)}{line}}}"


def _array(members: list[str]) -> str:
    return f"[ {', '.join(members)} ]" if members else "[ ]"
