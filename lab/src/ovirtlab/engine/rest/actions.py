# SPDX-License-Identifier: GPL-3.0-or-later
"""The links to the actions of an object: those that the engine answers below the object's address, and no others."""

from __future__ import annotations

from ovirtlab.engine.rest.documents import API, Collection, Entity, Items
from ovirtlab.engine.rest.routing import Router


def name_actions(document: Entity | Collection, router: Router) -> None:
    """Put them into every object of a document; mere links to objects have none."""
    for entity in document.entities if isinstance(document, Collection) else [document]:
        _name(entity, router)


def _name(entity: Entity, router: Router) -> None:
    if entity.href is not None:
        entity.actions = router.actions(entity.href.removeprefix(f"{API}/"))
    for field in entity.fields.values():
        for inner in field.members if isinstance(field, Items) else (field,):
            if isinstance(inner, Entity) and not inner.reference:
                _name(inner, router)
