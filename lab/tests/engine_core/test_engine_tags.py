# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree of tags, and what may have them."""

from __future__ import annotations

from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4 import types


@pytest.mark.parametrize("place", ["vms", "hosts", "templates", "users", "groups"])
def test_what_has_tags(system: Any, place: str) -> None:
    tag = system.tags_service().add(types.Tag(name="gold"))
    collection = getattr(system, f"{place}_service")()
    tags = collection.service(collection.list()[0].id).tags_service()
    tags.add(types.Tag(name="gold"))
    assert tags.tag_service(tag.id).get().name == "gold"
    tags.tag_service(tag.id).remove()
    assert tags.list() == []


def test_a_tag_finds_what_has_one_below_it(system: Any, lab: Any) -> None:
    tags = system.tags_service()
    tags.add(types.Tag(name="metal"))
    gold = tags.add(types.Tag(name="gold", parent=types.Tag(name="metal")))
    assert system.tags_service().tag_service(gold.parent.id).get().name == "metal"
    host = system.hosts_service().list(search="name=host1")[0]
    system.hosts_service().host_service(host.id).tags_service().add(types.Tag(id=gold.id))
    assert [item.name for item in system.hosts_service().list(search="tag=metal")] == ["host1"]
    assert system.vms_service().list(search="tag=metal") == []


def test_a_tag_is_moved_by_the_name_of_its_parent_and_goes_with_it(system: Any) -> None:
    tags = system.tags_service()
    metal, gold = tags.add(types.Tag(name="metal")), tags.add(types.Tag(name="gold"))
    moved = tags.tag_service(gold.id).update(types.Tag(parent=types.Tag(name="metal")))
    assert moved.parent.id == metal.id
    with pytest.raises(ovirtsdk4.Error, match="below itself"):
        tags.tag_service(metal.id).update(types.Tag(parent=types.Tag(id=gold.id)))
    tags.tag_service(metal.id).remove()
    assert [tag.name for tag in tags.list()] == ["root"]
