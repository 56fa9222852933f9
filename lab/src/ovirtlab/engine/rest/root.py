# SPDX-License-Identifier: GPL-3.0-or-later
"""`/ovirt-engine/api` itself."""

from __future__ import annotations

from ovirtlab.engine.access import is_admin
from ovirtlab.engine.rest.documents import API, Entity, Value, link_to
from ovirtlab.engine.rest.inventory import VERSION
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.tags import ROOT_TAG
from ovirtlab.engine.state import BLANK

routes = Routes()

LINKS = (
    "affinitylabels", "bookmarks", "clusterlevels", "clusters", "cpuprofiles", "datacenters", "diskprofiles", "disks",
    "domains", "events", "externalhostproviders", "groups", "hosts", "icons", "imagetransfers", "instancetypes", "jobs",
    "katelloerrata", "macpools", "networkfilters", "networks", "openstackimageproviders", "openstacknetworkproviders",
    "openstackvolumeproviders", "operatingsystems", "permissions", "roles", "schedulingpolicies",
    "schedulingpolicyunits", "storageconnections", "storagedomains",
    "tags", "templates", "users", "vmpools", "vms", "vnicprofiles",
)  # fmt: skip
SEARCHES = (
    "clusters", "datacenters", "disks", "events", "groups", "hosts", "instancetypes", "networks", "storagedomains",
    "templates", "users", "vmpools", "vms",
)  # fmt: skip

_FROM = {"events": ";from={event_id}"}


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
    links += [f"{name}/search={API}/{name}{_FROM.get(name, '')}?search={{query}}" for name in SEARCHES]
    return Entity("api", fields, links=links)


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
