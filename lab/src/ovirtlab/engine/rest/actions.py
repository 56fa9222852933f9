# SPDX-License-Identifier: GPL-3.0-or-later
"""The links to the actions of an object: those that the engine answers below the object's address, and no others."""

from __future__ import annotations

from ovirtlab.engine.rest.documents import API, Collection, Entity, Items, Value
from ovirtlab.engine.rest.routing import Router


def name_actions(document: Entity | Collection, router: Router) -> None:
    """Put them into every object of a document; mere links to objects have none."""
    for entity in document.entities if isinstance(document, Collection) else [document]:
        _name(entity, router)


def _name(value: Value, router: Router) -> None:
    if isinstance(value, Items):
        for member in value.members:
            _name(member, router)
    if not isinstance(value, Entity) or value.reference:
        return
    if value.href is not None:
        value.actions = router.actions(value.href.removeprefix(f"{API}/"))
    for field in value.fields.values():
        _name(field, router)
