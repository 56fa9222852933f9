# SPDX-License-Identifier: GPL-3.0-or-later
"""`/hosts/{host}/nics`: the interface of a host that the management network is on; the lab's hosts have no other."""

from __future__ import annotations

import uuid

from ovirtlab.engine.entities.infrastructure import HostEntity
from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import address, check_seen
from ovirtlab.engine.state import State

routes = Routes()

_NAMESPACE = uuid.UUID("0f6f2b7e-52f0-4c0e-9d53-8a52d4a0c1b7")
MANAGEMENT = "ovirtmgmt"


@routes.get("hosts/{host}/nics")
async def list_nics(call: Call) -> Collection:
    return Collection("host_nics", "host_nic", [_show(call.context.state, _host(call))])


@routes.get("hosts/{host}/nics/{nic}")
async def get_nic(call: Call) -> Entity:
    nic = _show(call.context.state, _host(call))
    if nic.id != call.id("nic"):
        raise NotFound(call.path)
    return nic


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
        "mac": Entity("mac", {"address": _mac(key)}),
        "mtu": 1500,
        "status": "up" if host.status == "up" else "down",
        "host": link_to("host", host.id),
        "network": link_to("network", network.id if network else ""),
    }
    return Entity("host_nic", fields, id=key, href=address("hosts", host.id, "nics", key), links=("statistics",))


def _mac(key: str) -> str:
    """An address of the lab's own, as the engine is not told the one of the host's namespace."""
    return ":".join(("02", *(f"{byte:02x}" for byte in uuid.UUID(key).bytes[:5])))


def _host(call: Call) -> HostEntity:
    host = call.context.state.host(call.id("host"))
    check_seen(call, ("host", host.id))
    return host
