# SPDX-License-Identifier: GPL-3.0-or-later
"""`/hosts/{host}/nics`: the interface of a host that the management network is on; the lab's hosts have no other."""

from __future__ import annotations

import uuid

from ovirtlab.engine.entities.infrastructure import HostEntity
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import address, check_seen, nothing
from ovirtlab.engine.state import State

routes = Routes()

_NAMESPACE = uuid.UUID("0f6f2b7e-52f0-4c0e-9d53-8a52d4a0c1b7")
MANAGEMENT = "ovirtmgmt"


@routes.get("hosts/{host}/nics")
async def list_nics(call: Call) -> Collection:
    return Collection("host_nics", "host_nic", [_show(call.context.state, _host(call))])


serve_members(routes, "hosts/{host}/nics/{nic}", list_nics)


@routes.get("hosts/{host}/nics/{nic}/statistics")
async def list_statistics(call: Call) -> Collection:
    _host(call)
    return nothing("statistics", "statistic")


def _show(state: State, host: HostEntity) -> Entity:
    key = str(uuid.uuid5(_NAMESPACE, host.id))
    center = state.clusters[host.cluster_id].data_center_id
    networks = (item for item in state.networks.values() if item.data_center_id == center and item.name == MANAGEMENT)
    network = next(networks, None)
    fields: dict[str, Value] = {
        "name": "eth0",
        "boot_protocol": "static",
        "bridged": True,
        "custom_configuration": False,
        "ip": Entity("ip", {"address": host.address, "version": "v4"}),
        "mtu": 1500,
        "status": "up" if host.status == "up" else "down",
        "host": link_to("host", host.id),
        "network": link_to("network", network.id if network else ""),
    }
    return Entity("host_nic", fields, id=key, href=address("hosts", host.id, "nics", key), links=("statistics",))


def _host(call: Call) -> HostEntity:
    host = call.context.state.host(call.id("host"))
    check_seen(call, ("host", host.id))
    return host
