# SPDX-License-Identifier: GPL-3.0-or-later
"""Entities as values that know neither XML nor JSON; the renderers give them the engine's order and forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TypeAlias

API = "/ovirt-engine/api"

COLLECTIONS = {
    "affinity_label": "affinitylabels",
    "backup": "backups",
    "cluster": "clusters",
    "cpu_profile": "cpuprofiles",
    "data_center": "datacenters",
    "disk": "disks",
    "disk_profile": "diskprofiles",
    "event": "events",
    "group": "groups",
    "host": "hosts",
    "image_transfer": "imagetransfers",
    "instance_type": "instancetypes",
    "job": "jobs",
    "mac_pool": "macpools",
    "network": "networks",
    "network_filter": "networkfilters",
    "role": "roles",
    "scheduling_policy": "schedulingpolicies",
    "storage_domain": "storagedomains",
    "tag": "tags",
    "template": "templates",
    "user": "users",
    "vm": "vms",
    "vnic_profile": "vnicprofiles",
}


@dataclass(frozen=True, slots=True)
class Items:
    """A list inside an entity: `<storage_domains><storage_domain/>..</storage_domains>` is a field with these."""

    tag: str
    members: Sequence[Value]
    followed: bool = False  # whether a link was followed to these


@dataclass(slots=True)
class Entity:
    """One object. `links` are names of sub-collections below `href`, or `name=address`; objects linked are fields.

    `actions` are put in from the routes when the object is answered with.
    """

    tag: str
    fields: Mapping[str, Value] = field(default_factory=dict)
    id: str | None = None
    href: str | None = None
    links: Sequence[str] = ()
    actions: Sequence[str] = ()
    reference: bool = False  # whether this is a link to the object, no more
    followed: bool = False  # whether a link was followed to it


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """Properties inside properties that never change; the renderers keep the text of those that come again."""

    entity: Entity


constants = lru_cache(maxsize=256)  # for a function that makes a `Constant`: the same one for the same values


Scalar: TypeAlias = str | int | float | bool | datetime
Value: TypeAlias = Scalar | Entity | Items | Constant | None


@dataclass(slots=True)
class Collection:
    """A list as the answer to a request: `<vms><vm/>..</vms>`, `{"vm": [..]}`; `total` and paging are search's."""

    tag: str
    member: str
    entities: Sequence[Entity]
    href: str | None = None


def link_to(tag: str, entity_id: str | None, *, href: str | None = None) -> Entity | None:
    """A link to another object, e.g. `<cluster href=".." id=".."/>`; None for an empty id, which leaves it out.

    The address is that of the top-level collection of the tag unless `href` is given (without the API prefix).
    """
    if not entity_id:
        return None
    path = href if href is not None else f"{COLLECTIONS[tag]}/{entity_id}"
    return Entity(tag, id=entity_id, href=f"{API}/{path}", reference=True)
