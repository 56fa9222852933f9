# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles, QoS, scheduling policies, instance types, external providers and bookmarks: stored, and nothing more."""

from __future__ import annotations

from ovirtlab.engine.faults import NotFound, incomplete
from ovirtlab.engine.rest.documents import Collection, Entity
from ovirtlab.engine.rest.routing import Call, Created, Routes
from ovirtlab.engine.rest.stored import StoredKind, serve, serve_items

routes = Routes()

_NAMED = ("name", "description", "comment")
_PROVIDER = (
    *_NAMED, "authentication_url", "data_center", "properties", "read_only", "requires_authentication", "tenant_name",
    "type", "url", "username",
)  # fmt: skip
_INSTANCE_TYPE = (
    *_NAMED, "console", "cpu", "display", "high_availability", "io", "memory", "memory_policy", "migration",
    "migration_downtime", "os", "rng_device", "soundcard_enabled", "usb", "virtio_scsi",
)  # fmt: skip
_LINKS = {"instance_type": ("graphicsconsoles", "nics", "watchdogs")}
_QOS = (
    *_NAMED, "type", "cpu_limit", "inbound_average", "inbound_burst", "inbound_peak", "max_iops", "max_read_iops",
    "max_read_throughput", "max_throughput", "max_write_iops", "max_write_throughput", "outbound_average",
    "outbound_average_linkshare", "outbound_average_realtime", "outbound_average_upperlimit", "outbound_burst",
    "outbound_peak",
)  # fmt: skip


def _system_wide(
    collection: str, tag: str, member: str, *, keeps: tuple[str, ...], permit: str, searchable: bool = False
) -> None:
    """A kind that lies at the top of the API."""
    links = _LINKS.get(member, ())
    kind = StoredKind(tag=tag, member=member, keeps=keeps, permit=permit, links=links, searchable=searchable)
    serve(routes, kind, collection)


_system_wide("bookmarks", "bookmarks", "bookmark", keeps=("name", "value"), permit="bookmark_management")
_system_wide(
    "instancetypes", "instance_types", "instance_type", keeps=_INSTANCE_TYPE, permit="create_template", searchable=True
)
_system_wide(
    "schedulingpolicies",
    "scheduling_policies",
    "scheduling_policy",
    keeps=(*_NAMED, "properties"),
    permit="manipulate_affinity_groups",
)
for _collection, _member in (
    ("externalhostproviders", "external_host_provider"),
    ("openstackimageproviders", "openstack_image_provider"),
    ("openstacknetworkproviders", "openstack_network_provider"),
    ("openstackvolumeproviders", "openstack_volume_provider"),
):
    _system_wide(_collection, f"{_member}s", _member, keeps=_PROVIDER, permit="create_storage_pool", searchable=True)


def _profiles(collection: str, member: str, *, owner: str, owners: str, permit: str) -> None:
    """Profiles lie at the top of the API, belong to a storage domain or a cluster, and are listed there too."""
    kind = StoredKind(
        tag=f"{member}s",
        member=member,
        keeps=(*_NAMED, "qos", owner),
        permit=permit,
        links=("permissions",),
    )

    def owner_of(call: Call) -> str:
        key = call.id("object")
        if not call.context.state.has(owner, key):
            raise NotFound(call.path)
        return key

    @routes.get(collection)
    async def list_profiles(call: Call) -> Collection:
        return kind.listing(call)

    @routes.post(collection)
    async def add_profile(call: Call) -> Created:
        key = call.body.ref(owner)
        if key is None:
            raise incomplete(member.replace("_", " ").title().replace(" ", ""), f"name, {owner}.id", "add")
        return kind.add(call, base=collection)

    @routes.get(f"{owners}/{{object}}/{collection}")
    async def list_profiles_of_owner(call: Call) -> Collection:
        key, state = owner_of(call), call.context.state
        mine = [item for item in state.stored[member].values() if _key(item.kept.get(owner)) == key]
        return Collection(kind.tag, kind.member, [kind.show(state, item) for item in mine])

    serve_items(routes, kind, collection)


def _key(link: object) -> str | None:
    return link.id if isinstance(link, Entity) else None


_profiles(
    "diskprofiles",
    "disk_profile",
    owner="storage_domain",
    owners="storagedomains",
    permit="create_storage_disk_profile",
)
_profiles("cpuprofiles", "cpu_profile", owner="cluster", owners="clusters", permit="create_cpu_profile")


def _data_center(call: Call) -> tuple[str, str]:
    key = call.id("data_center")
    if key not in call.context.state.data_centers:
        raise NotFound(call.path)
    return ("data_center", key)


QOS = StoredKind(
    tag="qoss",
    member="qos",
    keeps=_QOS,
    needs=("name", "type"),
    permit="edit_storage_pool_configuration",
    place=_data_center,
)
serve(routes, QOS, "datacenters/{data_center}/qoss")
