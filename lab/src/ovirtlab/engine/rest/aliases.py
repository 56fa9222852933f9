# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that have an address of their own and can be reached by every list they are in, with what lies below them."""

from __future__ import annotations

import dataclasses

from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.rest.documents import API, Collection, Entity
from ovirtlab.engine.rest.routing import Answer, Call, Router


async def find_by_lists(call: Call, router: Router) -> Answer:
    """What a GET of a path without a route of its own gives; `NotFound` when no list leads there.

    `datacenters/{id}/clusters/{id}/networks` is `clusters/{id}/networks` of a cluster that is in the data centre.
    """
    parts = call.path.split("/")
    for place in range(len(parts) - 1, 0, -1):
        listing = router.find("GET", "/".join(parts[:place]))
        if listing is None or listing.route is None:
            continue
        answer = await listing.route.handler(dataclasses.replace(call, segments=listing.segments, parameters={}))
        if isinstance(answer, Collection):
            return await _go_on(call, router, _member(answer, parts[place]), parts[place + 1 :])
    raise NotFound(call.path)


def _member(collection: Collection, key: str) -> Entity:
    for entity in collection.entities:
        if entity.id == key and entity.href is not None:
            return entity
    raise NotFound(key)


async def _go_on(call: Call, router: Router, entity: Entity, rest: list[str]) -> Answer:
    if not rest:
        return entity
    assert entity.href is not None
    path = "/".join((entity.href.removeprefix(f"{API}/"), *rest))
    found = router.find("GET", path)
    if path == call.path:
        raise NotFound(path)
    if found is None or found.route is None:
        return await find_by_lists(dataclasses.replace(call, path=path), router)
    return await found.route.handler(dataclasses.replace(call, path=path, segments=found.segments))
