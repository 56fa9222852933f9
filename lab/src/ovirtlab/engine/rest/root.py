# SPDX-License-Identifier: GPL-3.0-or-later
"""`/ovirt-engine/api` itself, and lists of what the lab's machines have none of."""

from __future__ import annotations

from ovirtlab.engine.access import is_admin
from ovirtlab.engine.rest.documents import API, Collection, Entity, Value, link_to
from ovirtlab.engine.rest.inventory import VERSION
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import nothing
from ovirtlab.engine.rest.tags import ROOT_TAG
from ovirtlab.engine.state import BLANK

routes = Routes()

LINKS = (
    "affinitylabels", "bookmarks", "clusterlevels", "clusters", "cpuprofiles", "datacenters", "diskprofiles", "disks",
    "domains", "events", "externalhostproviders", "groups", "hosts", "imagetransfers", "instancetypes", "jobs",
    "macpools", "networkfilters", "networks", "openstackimageproviders", "openstacknetworkproviders",
    "openstackvolumeproviders", "operatingsystems", "permissions", "roles", "schedulingpolicies", "storagedomains",
    "tags", "templates", "users", "vmpools", "vms", "vnicprofiles",
)  # fmt: skip
SEARCHES = ("clusters", "datacenters", "disks", "events", "hosts", "networks", "storagedomains", "templates", "vms")

# Collections that clients ask for, and of which the lab's machines have nothing.
_EMPTY = {
    "vmpools": ("vm_pools", "vm_pool"),
    "disks/{object}/statistics": ("statistics", "statistic"),
    "jobs/{object}/steps/{step}/statistics": ("statistics", "statistic"),
    "hosts/{object}/nics": ("host_nics", "host_nic"),
    "hosts/{object}/storage": ("host_storages", "host_storage"),
    "storagedomains/{object}/templates": ("templates", "template"),
    "storagedomains/{object}/vms": ("vms", "vm"),
    "vms/{object}/applications": ("applications", "application"),
    "vms/{object}/hostdevices": ("host_devices", "host_device"),
    "vms/{object}/nics/{nic}/statistics": ("statistics", "statistic"),
}


@routes.get("")
async def get_api(call: Call) -> Entity:
    """The entry point; the summary is for administrators."""
    fields: dict[str, Value] = {
        "product_info": Entity(
            "product_info",
            {
                "name": "oVirt Engine",
                "instance_id": str(call.context.state.instance_id),
                "vendor": "ovirt.org",
                "version": VERSION,
            },
        ),
        "special_objects": Entity(
            "special_objects", {"blank_template": link_to("template", BLANK), "root_tag": link_to("tag", ROOT_TAG)}
        ),
        "summary": _summary(call) if is_admin(call.context.state, call.user) else None,
        "time": call.context.clock.now(),
        "authenticated_user": _user("authenticated_user", call.user.id),
        "effective_user": _user("effective_user", call.user.id),
    }
    links = [f"{name}={API}/{name}" for name in LINKS]
    links += [f"{name}/search={API}/{name}?search={{query}}" for name in SEARCHES]
    return Entity("api", fields, links=links)


def _empty(pattern: str, tag: str, member: str) -> None:
    @routes.get(pattern)
    async def list_nothing(call: Call) -> Collection:
        if pattern.startswith("vms/"):
            call.context.state.vm(call.id("object"))
        return nothing(tag, member)


for _pattern, (_tag, _member) in _EMPTY.items():
    _empty(_pattern, _tag, _member)


def _summary(call: Call) -> Entity:
    state = call.context.state
    counts = {
        "hosts": (sum(host.status == "up" for host in state.hosts.values()), len(state.hosts)),
        "storage_domains": (
            sum(domain.status == "active" for domain in state.storage_domains.values()),
            len(state.storage_domains),
        ),
        "users": (len(state.users), len(state.users)),
        "vms": (sum(bool(vm.host_id) for vm in state.vms.values()), len(state.vms)),
    }
    return Entity(
        "summary", {name: Entity(name, {"active": active, "total": total}) for name, (active, total) in counts.items()}
    )


def _user(tag: str, user_id: str) -> Entity:
    return Entity(tag, id=user_id, href=f"{API}/users/{user_id}", reference=True)
