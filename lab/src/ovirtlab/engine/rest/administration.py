# SPDX-License-Identifier: GPL-3.0-or-later
"""Data centres and clusters made, changed and removed by an administrator."""

from __future__ import annotations

from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter
from ovirtlab.engine.faults import conflict
from ovirtlab.engine.rest import defaults, inventory, networking
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import Entity
from ovirtlab.engine.rest.kept import keep
from ovirtlab.engine.rest.named import describe, find_reference, new_name, rename
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.state import SYSTEM

routes = Routes()

_CLUSTER = (
    "ballooning_enabled", "bios_type", "custom_scheduling_policy_properties", "display", "error_handling",
    "fencing_policy", "fips_mode", "firewall_type", "gluster_service", "gluster_tuned_profile", "ha_reservation",
    "ksm", "log_max_memory_used_threshold", "log_max_memory_used_threshold_type", "maintenance_reason_required",
    "memory_policy", "migration", "optional_reason", "required_rng_sources", "scheduling_policy", "serial_number",
    "switch_type", "threads_as_cores", "trusted_service", "tunnel_migration", "virt_service", "vnc_encryption",
)  # fmt: skip


@routes.post("datacenters")
async def add_data_center(call: Call) -> Created:
    """A data centre without storage, which is uninitialized until it gets some."""
    state, body = call.context.state, call.body
    call.require("create_storage_pool", ("system", SYSTEM))
    name = new_name(call, "DataCenter", state.data_centers.values(), "Cannot add Data Center")
    made = DataCenter(id=state.new_id(), name=name, status="uninitialized", local=body.flag("local") or False)
    _change_data_center(call, made)
    state.data_centers[made.id] = made
    networking.add_management_network(state, made)
    return Created(lambda: inventory.show_data_center(call, made))


@routes.put("datacenters/{data_center}")
async def update_data_center(call: Call) -> Entity:
    state, item = call.context.state, inventory.data_center_of(call)
    call.require("edit_storage_pool_configuration", ("data_center", item.id))
    rename(call, item, state.data_centers.values(), "Cannot edit Data Center")
    _change_data_center(call, item)
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
        networking.forget_network(call, network)
    del state.data_centers[item.id]
    return Done()


@routes.post("clusters")
async def add_cluster(call: Call) -> Created:
    state, body = call.context.state, call.body
    name = new_name(call, "Cluster", state.clusters.values(), "Cannot add Cluster")
    data_center_id = find_reference(body, "data_center", state.data_centers, "Cluster")
    call.require("create_cluster", ("data_center", data_center_id))
    default = next((pool.id for pool in state.mac_pools.values() if pool.default), "")
    made = Cluster(id=state.new_id(), name=name, data_center_id=data_center_id, mac_pool_id=default)
    made.level = _level(body) or state.data_centers[data_center_id].level
    made.kept = defaults.cluster_properties()
    _change_cluster(call, made)
    state.clusters[made.id] = made
    defaults.add_cpu_profile(state, made.id, made.name)
    for network in state.networks.values():
        if network.data_center_id == data_center_id and network.name == networking.MANAGEMENT:
            network.clusters[made.id] = True
    return Created(lambda: inventory.show_cluster(call, made))


@routes.put("clusters/{cluster}")
async def update_cluster(call: Call) -> Entity:
    state, item = call.context.state, inventory.cluster_of(call)
    call.require("edit_cluster_configuration", ("cluster", item.id))
    rename(call, item, state.clusters.values(), "Cannot edit Cluster")
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


def _change_data_center(call: Call, item: DataCenter) -> None:
    body = call.body
    describe(body, item)
    item.level = _level(body) or item.level
    local = body.flag("local")
    item.local = item.local if local is None else local
    keep(call.context.state, item.kept, body, ("quota_mode",))


def _change_cluster(call: Call, cluster: Cluster) -> None:
    body, state = call.body, call.context.state
    describe(body, cluster)
    cluster.cpu_type = body.text("cpu", "type") or cluster.cpu_type
    cluster.level = _level(body) or cluster.level
    if "mac_pool" in body:
        cluster.mac_pool_id = find_reference(body, "mac_pool", state.mac_pools, "Cluster")
    keep(state, cluster.kept, body, _CLUSTER)
    bandwidth = (body.child("migration") or Body()).child("bandwidth")
    if bandwidth is not None:
        custom = bandwidth.text("assignment_method") == "custom"
        cluster.migration_mbps = (bandwidth.integer("custom_value") or 0) if custom else 0


def _level(body: Body) -> tuple[int, int] | None:
    major, minor = body.integer("version", "major"), body.integer("version", "minor")
    return None if major is None or minor is None else (major, minor)
