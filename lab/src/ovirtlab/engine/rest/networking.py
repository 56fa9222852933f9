# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks, vNIC profiles and MAC pools made, changed and removed; networks assigned to clusters."""

from __future__ import annotations

from ovirtlab.engine import networks
from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter
from ovirtlab.engine.entities.networks import MacPool, Network, VnicProfile
from ovirtlab.engine.faults import NotFound, conflict, incomplete
from ovirtlab.engine.rest import defaults, inventory, nics
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import Collection, Entity, Items
from ovirtlab.engine.rest.kept import keep
from ovirtlab.engine.rest.named import describe, find_reference, new_name, rename
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address
from ovirtlab.engine.state import SYSTEM, State

routes = Routes()

_PROFILE_NAME = "VM network interface profile"
MANAGEMENT = "ovirtmgmt"
_NETWORK = ("dns_resolver_configuration", "external_provider", "port_isolation", "qos", "stp", "usages")
_PROFILE = ("custom_properties", "failover", "migratable", "network_filter", "pass_through", "port_mirroring", "qos")


@routes.post("networks")
async def add_network(call: Call) -> Created:
    """A network of VMs; it brings a vNIC profile of its name."""
    state, body = call.context.state, call.body
    data_center_id = find_reference(body, "data_center", state.data_centers, "Network")
    call.require("create_storage_pool_network", ("data_center", data_center_id))
    siblings = [item for item in state.networks.values() if item.data_center_id == data_center_id]
    name = new_name(call, "Network", siblings, "Cannot add Network")
    network = Network(id=state.new_id(), name=name, data_center_id=data_center_id)
    network.kept = defaults.network_properties()
    _change_network(call, network)
    state.networks[network.id] = network
    profile = VnicProfile(id=state.new_id(), name=name, network_id=network.id, kept=defaults.profile_properties())
    state.vnic_profiles[profile.id] = profile
    text = f"Finished adding Network {name} to Data Center: {state.data_centers[data_center_id].name}"
    state.events.add(942, "normal", text, correlation_id=call.correlation_id, user=call.user.id)
    return Created(lambda: nics.show_network(call, network))


@routes.put("networks/{network}")
async def update_network(call: Call) -> Entity:
    network = nics.network_of(call)
    call.require("configure_storage_pool_network", ("network", network.id))
    siblings = [item for item in call.context.state.networks.values() if item.data_center_id == network.data_center_id]
    rename(call, network, siblings, "Cannot edit Network")
    _change_network(call, network)
    return nics.show_network(call, network)


@routes.delete("networks/{network}")
async def remove_network(call: Call) -> Done:
    network = nics.network_of(call)
    call.require("delete_storage_pool_network", ("network", network.id))
    if network.name == MANAGEMENT:
        raise conflict("Cannot remove Network. The management network cannot be removed.")
    _check_unused(call, {item.id for item in _profiles_of(call, network)}, "Network", "logical network")
    forget_network(call, network)
    return Done()


@routes.get("clusters/{cluster}/networks")
async def list_networks_of_cluster(call: Call) -> Collection:
    cluster = inventory.cluster_of(call)
    mine = [item for item in call.context.state.networks.values() if cluster.id in item.clusters]
    return Collection("networks", "network", [_show_in_cluster(call, item, cluster) for item in mine])


@routes.get("clusters/{cluster}/networks/{network}")
async def get_network_of_cluster(call: Call) -> Entity:
    return _show_in_cluster(call, _assigned(call), inventory.cluster_of(call))


@routes.post("clusters/{cluster}/networks")
async def assign_network(call: Call) -> Created:
    cluster = inventory.cluster_of(call)
    call.require("assign_cluster_network", ("cluster", cluster.id))
    network = call.context.state.networks[find_reference(call.body, "", call.context.state.networks, "Network")]
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
    network_id = find_reference(call.body, "network", state.networks, "VnicProfile")
    return _add_profile(call, network_id)


@routes.post("networks/{network}/vnicprofiles")
async def add_profile_of_network(call: Call) -> Created:
    return _add_profile(call, nics.network_of(call).id)


@routes.put("vnicprofiles/{profile}")
async def update_profile(call: Call) -> Entity:
    profile = nics.profile_of(call)
    call.require("configure_network_vnic_profile", ("vnic_profile", profile.id))
    profile.name = call.body.text("name") or profile.name
    description = call.body.text("description")
    profile.description = profile.description if description is None else description
    _change_profile(call, profile)
    return nics.show_profile(call, profile)


@routes.delete("vnicprofiles/{profile}")
async def remove_profile(call: Call) -> Done:
    profile = nics.profile_of(call)
    call.require("delete_network_vnic_profile", ("vnic_profile", profile.id))
    _check_unused(call, {profile.id}, _PROFILE_NAME, _PROFILE_NAME)
    del call.context.state.vnic_profiles[profile.id]
    return Done()


@routes.post("macpools")
async def add_mac_pool(call: Call) -> Created:
    state, body = call.context.state, call.body
    call.require("create_mac_pool", ("system", SYSTEM))
    name = new_name(call, "MacPool", state.mac_pools.values(), "Cannot add MAC Pool")
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
    rename(call, pool, call.context.state.mac_pools.values(), "Cannot edit MAC Pool")
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


def add_management_network(state: State, data_center: DataCenter) -> None:
    """The network that every data centre has from the beginning, and its profile."""
    network = Network(id=state.new_id(), name=MANAGEMENT, data_center_id=data_center.id)
    network.description = "Management Network"
    network.kept = {**defaults.network_properties(), "usages": Items("usage", ["management", "vm"])}
    state.networks[network.id] = network
    profile = VnicProfile(id=state.new_id(), name=MANAGEMENT, network_id=network.id, kept=defaults.profile_properties())
    state.vnic_profiles[profile.id] = profile


def _add_profile(call: Call, network_id: str) -> Created:
    state = call.context.state
    call.require("create_network_vnic_profile", ("network", network_id))
    siblings = [item for item in state.vnic_profiles.values() if item.network_id == network_id]
    name = new_name(call, "VnicProfile", siblings, "Cannot add VM network interface profile")
    profile = VnicProfile(id=state.new_id(), name=name, network_id=network_id, kept=defaults.profile_properties())
    profile.description = call.body.text("description") or ""
    _change_profile(call, profile)
    state.vnic_profiles[profile.id] = profile
    return Created(lambda: nics.show_profile(call, profile))


def _change_network(call: Call, network: Network) -> None:
    body = call.body
    describe(body, network)
    mtu, vlan = body.integer("mtu"), body.child("vlan")
    network.mtu = network.mtu if mtu is None else mtu
    network.vlan = network.vlan if vlan is None else vlan.integer("id")  # a `<vlan/>` takes the tag away
    keep(call.context.state, network.kept, body, _NETWORK)


def _change_profile(call: Call, profile: VnicProfile) -> None:
    keep(call.context.state, profile.kept, call.body, _PROFILE)


def _ranges(body: Body) -> tuple[tuple[str, str], ...]:
    found = []
    for item in body.list("ranges", "range"):
        start, end = (networks.read_mac(item.text(name) or "") for name in ("from", "to"))
        found.append((start, end))
    return tuple(found)


def _profiles_of(call: Call, network: Network) -> list[VnicProfile]:
    return [item for item in call.context.state.vnic_profiles.values() if item.network_id == network.id]


def _check_unused(call: Call, profiles: set[str], what: str, called: str) -> None:
    """Refuse to remove what NICs of VMs or of templates go by; `called` is what refusals name it."""
    state = call.context.state
    for kind, owners in (("virtual machine", state.vms), ("template", state.templates)):
        users = [one.name for one in owners.values() if profiles & {nic.vnic_profile_id for nic in one.nics.values()}]
        if users:
            many = f"{kind}s ({len(users)}): {', '.join(users)}\n - Please detach {kind}s using"
            one = f"{kind}: {users[0]}.\n - Please remove it from"
            end = f"{many} this {called.split()[-1]}" if len(users) > 1 else f"{one} this {kind}"
            raise conflict(f"Cannot remove {what}. This {called} is used by {end} and try again.")


def forget_network(call: Call, network: Network) -> None:
    """Drop a network with its profiles."""
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
