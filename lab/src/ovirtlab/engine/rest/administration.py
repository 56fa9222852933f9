# SPDX-License-Identifier: GPL-3.0-or-later
"""Data centres, clusters, networks, vNIC profiles and MAC pools made, changed and removed by an administrator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ovirtlab.engine import networks
from ovirtlab.engine.entities import Cluster, DataCenter, MacPool, Network, VnicProfile
from ovirtlab.engine.faults import NotFound, conflict, incomplete
from ovirtlab.engine.rest import defaults, inventory, nics
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import Collection, Entity
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address
from ovirtlab.engine.state import SYSTEM

routes = Routes()

MANAGEMENT = "ovirtmgmt"


@routes.post("datacenters")
async def add_data_center(call: Call) -> Created:
    """A data centre without storage, which is uninitialized until it gets some."""
    state, body = call.context.state, call.body
    call.require("create_storage_pool", ("system", SYSTEM))
    name = _new_name(call, "DataCenter", state.data_centers.values(), "Cannot add Data Center")
    made = DataCenter(id=state.new_id(), name=name, status="uninitialized", local=body.flag("local") or False)
    made.description = body.text("description") or ""
    made.level = _level(body) or made.level
    state.data_centers[made.id] = made
    network = Network(id=state.new_id(), name=MANAGEMENT, data_center_id=made.id, description="Management Network")
    state.networks[network.id] = network
    profile = VnicProfile(id=state.new_id(), name=MANAGEMENT, network_id=network.id)
    state.vnic_profiles[profile.id] = profile
    return Created(lambda: inventory.show_data_center(call, made))


@routes.put("datacenters/{data_center}")
async def update_data_center(call: Call) -> Entity:
    state, item = call.context.state, inventory.data_center_of(call)
    call.require("edit_storage_pool_configuration", ("data_center", item.id))
    _rename(call, item, state.data_centers.values(), "Cannot edit Data Center")
    return inventory.show_data_center(call, item)


@routes.delete("datacenters/{data_center}")
async def remove_data_center(call: Call) -> Done:
    state, item = call.context.state, inventory.data_center_of(call)
    call.require("delete_storage_pool", ("data_center", item.id))
    if any(domain.data_center_id == item.id for domain in state.storage_domains.values()):
        raise conflict("Cannot remove Data Center. It has attached storage domains.")
    for cluster in [cluster for cluster in state.clusters.values() if cluster.data_center_id == item.id]:
        cluster.data_center_id = ""
    for network in [network for network in state.networks.values() if network.data_center_id == item.id]:
        _forget_network(call, network)
    del state.data_centers[item.id]
    return Done()


@routes.post("clusters")
async def add_cluster(call: Call) -> Created:
    state, body = call.context.state, call.body
    name = _new_name(call, "Cluster", state.clusters.values(), "Cannot add Cluster")
    data_center_id = _reference(body, "data_center", state.data_centers, "Cluster")
    call.require("create_cluster", ("data_center", data_center_id))
    default = next((pool.id for pool in state.mac_pools.values() if pool.default), "")
    made = Cluster(id=state.new_id(), name=name, data_center_id=data_center_id, mac_pool_id=default)
    made.level = _level(body) or state.data_centers[data_center_id].level
    _change_cluster(call, made)
    state.clusters[made.id] = made
    defaults.add_cpu_profile(state, made.id, made.name)
    for network in state.networks.values():
        if network.data_center_id == data_center_id and network.name == MANAGEMENT:
            network.clusters[made.id] = True
    return Created(lambda: inventory.show_cluster(call, made))


@routes.put("clusters/{cluster}")
async def update_cluster(call: Call) -> Entity:
    state, item = call.context.state, inventory.cluster_of(call)
    call.require("edit_cluster_configuration", ("cluster", item.id))
    _rename(call, item, state.clusters.values(), "Cannot edit Cluster")
    _change_cluster(call, item)
    return inventory.show_cluster(call, item)


@routes.delete("clusters/{cluster}")
async def remove_cluster(call: Call) -> Done:
    state, item = call.context.state, inventory.cluster_of(call)
    call.require("delete_cluster", ("cluster", item.id))
    if any(host.cluster_id == item.id for host in state.hosts.values()):
        raise conflict("Cannot remove Cluster. One or more hosts belong to it.")
    if any(vm.cluster_id == item.id for vm in state.vms.values()):
        raise conflict("Cannot remove Cluster. One or more VMs belong to it.")
    for network in state.networks.values():
        network.clusters.pop(item.id, None)
    for group in [group for group in state.affinity_groups.values() if group.cluster_id == item.id]:
        del state.affinity_groups[group.id]
    del state.clusters[item.id]
    defaults.drop_profiles(state, "cpu_profile", item.id)
    return Done()


@routes.post("networks")
async def add_network(call: Call) -> Created:
    """A network of VMs; it brings a vNIC profile of its name."""
    state, body = call.context.state, call.body
    data_center_id = _reference(body, "data_center", state.data_centers, "Network")
    call.require("create_storage_pool_network", ("data_center", data_center_id))
    siblings = [item for item in state.networks.values() if item.data_center_id == data_center_id]
    name = _new_name(call, "Network", siblings, "Cannot add Network")
    network = Network(id=state.new_id(), name=name, data_center_id=data_center_id)
    _change_network(body, network)
    state.networks[network.id] = network
    profile = VnicProfile(id=state.new_id(), name=name, network_id=network.id)
    state.vnic_profiles[profile.id] = profile
    text = f"Finished adding Network {name} to Data Center: {state.data_centers[data_center_id].name}"
    state.events.add(942, "normal", text, correlation_id=call.correlation_id, user=call.user.id)
    return Created(lambda: nics.show_network(call, network))


@routes.put("networks/{network}")
async def update_network(call: Call) -> Entity:
    network = nics.network_of(call)
    call.require("configure_storage_pool_network", ("network", network.id))
    _rename(call, network, call.context.state.networks.values(), "Cannot edit Network")
    _change_network(call.body, network)
    return nics.show_network(call, network)


@routes.delete("networks/{network}")
async def remove_network(call: Call) -> Done:
    network = nics.network_of(call)
    call.require("delete_storage_pool_network", ("network", network.id))
    if network.name == MANAGEMENT:
        raise conflict("Cannot remove Network. The management network cannot be removed.")
    _check_unused(call, {item.id for item in _profiles_of(call, network)}, "Cannot remove Network")
    _forget_network(call, network)
    return Done()


@routes.get("clusters/{cluster}/networks/{network}")
async def get_network_of_cluster(call: Call) -> Entity:
    return _show_in_cluster(call, _assigned(call), inventory.cluster_of(call))


@routes.post("clusters/{cluster}/networks")
async def assign_network(call: Call) -> Created:
    cluster = inventory.cluster_of(call)
    call.require("assign_cluster_network", ("cluster", cluster.id))
    network = call.context.state.networks[_reference(call.body, "", call.context.state.networks, "Network")]
    if network.data_center_id != cluster.data_center_id:
        raise conflict("Cannot attach Network to Cluster. The Network is not in the Data Center of the Cluster.")
    if cluster.id in network.clusters:
        raise conflict("Cannot attach Network to Cluster. The Network is already attached to it.")
    required = call.body.flag("required")
    network.clusters[cluster.id] = True if required is None else required
    return Created(lambda: _show_in_cluster(call, network, cluster))


@routes.put("clusters/{cluster}/networks/{network}")
async def update_network_of_cluster(call: Call) -> Entity:
    cluster, network = inventory.cluster_of(call), _assigned(call)
    call.require("configure_cluster_network", ("cluster", cluster.id))
    required = call.body.flag("required")
    network.clusters[cluster.id] = network.clusters[cluster.id] if required is None else required
    return _show_in_cluster(call, network, cluster)


@routes.delete("clusters/{cluster}/networks/{network}")
async def unassign_network(call: Call) -> Done:
    cluster, network = inventory.cluster_of(call), _assigned(call)
    call.require("assign_cluster_network", ("cluster", cluster.id))
    if network.name == MANAGEMENT:
        raise conflict("Cannot detach Network from Cluster. The management network cannot be detached.")
    del network.clusters[cluster.id]
    return Done()


@routes.post("vnicprofiles")
async def add_profile(call: Call) -> Created:
    state = call.context.state
    network_id = _reference(call.body, "network", state.networks, "VnicProfile")
    return _add_profile(call, network_id)


@routes.post("networks/{network}/vnicprofiles")
async def add_profile_of_network(call: Call) -> Created:
    return _add_profile(call, nics.network_of(call).id)


@routes.put("vnicprofiles/{profile}")
async def update_profile(call: Call) -> Entity:
    profile = nics.profile_of(call)
    call.require("configure_network_vnic_profile", ("vnic_profile", profile.id))
    profile.name = call.body.text("name") or profile.name
    profile.description = call.body.text("description") or profile.description
    return nics.show_profile(call, profile)


@routes.delete("vnicprofiles/{profile}")
async def remove_profile(call: Call) -> Done:
    profile = nics.profile_of(call)
    call.require("delete_network_vnic_profile", ("vnic_profile", profile.id))
    _check_unused(call, {profile.id}, "Cannot remove VM network interface profile")
    del call.context.state.vnic_profiles[profile.id]
    return Done()


@routes.post("macpools")
async def add_mac_pool(call: Call) -> Created:
    state, body = call.context.state, call.body
    call.require("create_mac_pool", ("system", SYSTEM))
    name = _new_name(call, "MacPool", state.mac_pools.values(), "Cannot add MAC Pool")
    ranges = _ranges(body)
    if not ranges:
        raise incomplete("MacPool", "ranges", "add")
    pool = MacPool(id=state.new_id(), name=name, start=ranges[0][0], end=ranges[0][1], more=ranges[1:])
    pool.description = body.text("description") or ""
    pool.allow_duplicates = body.flag("allow_duplicates") or False
    state.mac_pools[pool.id] = pool
    return Created(lambda: nics.show_mac_pool(call, pool))


@routes.put("macpools/{pool}")
async def update_mac_pool(call: Call) -> Entity:
    pool = nics.mac_pool_of(call)
    call.require("edit_mac_pool", ("system", SYSTEM))
    _rename(call, pool, call.context.state.mac_pools.values(), "Cannot edit MAC Pool")
    ranges = _ranges(call.body)
    if ranges:
        (pool.start, pool.end), pool.more = ranges[0], ranges[1:]
    return nics.show_mac_pool(call, pool)


@routes.delete("macpools/{pool}")
async def remove_mac_pool(call: Call) -> Done:
    pool = nics.mac_pool_of(call)
    call.require("delete_mac_pool", ("system", SYSTEM))
    if pool.default:
        raise conflict("Cannot remove MAC Pool. Default MAC Pool cannot be removed.")
    if any(cluster.mac_pool_id == pool.id for cluster in call.context.state.clusters.values()):
        raise conflict("Cannot remove MAC Pool. It is used by a Cluster.")
    del call.context.state.mac_pools[pool.id]
    return Done()


def _add_profile(call: Call, network_id: str) -> Created:
    state = call.context.state
    call.require("create_network_vnic_profile", ("network", network_id))
    siblings = [item for item in state.vnic_profiles.values() if item.network_id == network_id]
    name = _new_name(call, "VnicProfile", siblings, "Cannot add VM network interface profile")
    profile = VnicProfile(id=state.new_id(), name=name, network_id=network_id)
    profile.description = call.body.text("description") or ""
    state.vnic_profiles[profile.id] = profile
    return Created(lambda: nics.show_profile(call, profile))


def _change_cluster(call: Call, cluster: Cluster) -> None:
    body, state = call.body, call.context.state
    cluster.description = body.text("description") or cluster.description
    cluster.cpu_type = body.text("cpu", "type") or cluster.cpu_type
    cluster.level = _level(body) or cluster.level
    if "mac_pool" in body:
        cluster.mac_pool_id = _reference(body, "mac_pool", state.mac_pools, "Cluster")


def _change_network(body: Body, network: Network) -> None:
    description, mtu, vlan = body.text("description"), body.integer("mtu"), body.integer("vlan", "id")
    network.description = network.description if description is None else description
    network.mtu = network.mtu if mtu is None else mtu
    network.vlan = network.vlan if vlan is None else vlan


def _ranges(body: Body) -> tuple[tuple[str, str], ...]:
    found = []
    for item in body.list("ranges", "range"):
        start, end = (networks.read_mac(item.text(name) or "") for name in ("from", "to"))
        found.append((start, end))
    return tuple(found)


def _level(body: Body) -> tuple[int, int] | None:
    major, minor = body.integer("version", "major"), body.integer("version", "minor")
    return None if major is None or minor is None else (major, minor)


def _new_name(call: Call, entity: str, others: Iterable[Any], action: str) -> str:
    name = call.body.text("name")
    if not name:
        raise incomplete(entity, "name", "add")
    _check_name(name, others, action)
    return name


def _rename(call: Call, item: Any, others: Iterable[Any], action: str) -> None:
    """Take over name and description."""
    name, description = call.body.text("name"), call.body.text("description")
    if name and name != item.name:
        _check_name(name, others, action)
        item.name = name
    item.description = item.description if description is None else description


def _check_name(name: str, others: Iterable[Any], action: str) -> None:
    if any(other.name == name for other in others):
        raise conflict(f"{action}. The name {name} is already in use.")


def _reference(body: Body, name: str, table: dict[str, Any], entity: str) -> str:
    """The id of an object that the request names by id or name; `name` is empty for the request's own."""
    child = (body.child(name) or Body()) if name else body
    key, text = child.id, child.text("name")
    if key is None and text is None:
        raise incomplete(entity, f"{name}.id|name".lstrip("."), "add")
    found = next((item.id for item in table.values() if item.id == key or (key is None and item.name == text)), None)
    if found is None:
        raise NotFound(key or text or "")
    return str(found)


def _profiles_of(call: Call, network: Network) -> list[VnicProfile]:
    return [item for item in call.context.state.vnic_profiles.values() if item.network_id == network.id]


def _check_unused(call: Call, profiles: set[str], action: str) -> None:
    for vm in call.context.state.vms.values():
        if any(nic.vnic_profile_id in profiles for nic in vm.nics.values()):
            raise conflict(f"{action}. It is used by VM {vm.name}.")


def _forget_network(call: Call, network: Network) -> None:
    for profile in _profiles_of(call, network):
        del call.context.state.vnic_profiles[profile.id]
    del call.context.state.networks[network.id]


def _assigned(call: Call) -> Network:
    network = nics.network_of(call)
    if call.id("cluster") not in network.clusters:
        raise NotFound(call.path)
    return network


def _show_in_cluster(call: Call, network: Network, cluster: Cluster) -> Entity:
    entity = nics.show_network(call, network)
    entity.href = address("clusters", cluster.id, "networks", network.id)
    entity.links = ()
    entity.fields = {**entity.fields, "required": network.clusters[cluster.id], "status": "operational"}
    return entity


@routes.get("clusters/{cluster}/networks")
async def list_networks_of_cluster(call: Call) -> Collection:
    cluster = inventory.cluster_of(call)
    mine = [item for item in call.context.state.networks.values() if cluster.id in item.clusters]
    return Collection("networks", "network", [_show_in_cluster(call, item, cluster) for item in mine])
