# SPDX-License-Identifier: GPL-3.0-or-later
"""`follow=nics,disk_attachments.disk`: what links of an answer lead to, put in beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.rest.documents import API, Collection, Entity, Items, Value
from ovirtlab.engine.rest.order import links_of

Tree: TypeAlias = "dict[str, Tree]"
Get = Callable[[str], Awaitable[Entity | Collection]]


async def follow(document: Entity | Collection, wanted: str, *, get: Get) -> None:
    """Inline what `wanted` names into the document, level by level; `get` answers a path below the API."""
    tree: Tree = {}
    for path in filter(None, (part.strip() for part in wanted.split(","))):
        node = tree
        for name in path.split("."):
            node = node.setdefault(name, {})
    for entity in document.entities if isinstance(document, Collection) else [document]:
        await _inline(entity, tree, get)


async def _inline(entity: Entity, tree: Tree, get: Get) -> None:
    entity.fields = dict(entity.fields)
    for name, below in tree.items():
        targets = await _replace(entity, name, get)
        for target in targets:
            await _inline(target, below, get)


async def _replace(entity: Entity, name: str, get: Get) -> list[Entity]:
    """Put in the target of a link, which stays, and return the entities that came in."""
    plain = _plain(name)
    for rel, href in links_of(entity):
        if rel == plain:
            answer = await get(href.removeprefix(f"{API}/"))
            assert isinstance(entity.fields, dict)
            return _put(entity.fields, name, answer)
    assert isinstance(entity.fields, dict)
    return await _replace_field(entity.fields, name, get)


def _put(fields: dict[str, Value], name: str, answer: Entity | Collection) -> list[Entity]:
    if isinstance(answer, Collection):
        fields[answer.tag] = Items(answer.member, list(answer.entities), followed=True)
        return list(answer.entities)
    fields[name] = found = dataclasses.replace(answer, followed=True)
    return [found]


async def _replace_field(fields: dict[str, Value], name: str, get: Get) -> list[Entity]:
    plain = _plain(name)
    name = next((field for field in fields if _plain(field) == plain), name)
    value = fields.get(name)
    if isinstance(value, Entity):
        full = await _full(value, get)
        fields[name] = full
        return [full]
    if isinstance(value, Items):
        members = [await _full(member, get) for member in value.members if isinstance(member, Entity)]
        fields[name] = Items(value.tag, members, followed=True)
        return members
    return []


async def _full(link: Entity, get: Get) -> Entity:
    """What a link leads to; the link itself when it leads nowhere that this user may see."""
    if link.href is None:
        return link
    try:
        answer = await get(link.href.removeprefix(f"{API}/"))
    except NotFound:
        return link
    return dataclasses.replace(answer, followed=True) if isinstance(answer, Entity) else link


def _plain(name: str) -> str:
    """Names of links are the same whatever their case and underscores."""
    return name.lower().replace("_", "")
