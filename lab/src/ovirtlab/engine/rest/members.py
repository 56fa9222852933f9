# SPDX-License-Identifier: GPL-3.0-or-later
"""The members of a list one by one, at addresses of their own."""

from __future__ import annotations

from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.rest.documents import Collection, Entity
from ovirtlab.engine.rest.routing import Call, Handler, Routes


def serve_members(routes: Routes, pattern: str, listing: Handler) -> None:
    """Answer `pattern`, whose last segment is an id, with that member of what `listing` gives."""
    segment = pattern.rpartition("/")[2][1:-1]

    @routes.get(pattern)
    async def get_member(call: Call) -> Entity:
        """One of the list."""
        found = await listing(call)
        assert isinstance(found, Collection)
        for entity in found.entities:
            if entity.id == call.segments[segment]:
                return entity
        raise NotFound(call.path)
