# SPDX-License-Identifier: GPL-3.0-or-later
"""`/datacenters`, `/clusters`, `/hosts` and `/storagedomains`, as far as clients of VMs read them."""

from __future__ import annotations

from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter, HostEntity, StorageDomain
from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.rest import search_keys
from ovirtlab.engine.rest.documents import Collection, Entity, Items, Value, link_to
from ovirtlab.engine.rest.host_facts import facts
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import address, check_seen, version

routes = Routes()

HOST_MEMORY = 64 << 30
VERSION = Entity("version", {"build": 6, "full_version": "4.5.6-1.el9", "major": 4, "minor": 5, "revision": 0})


@routes.get("datacenters")
async def list_data_centers(call: Call) -> Collection:
    return data_centers(call.context).listing(call, call.context.state.data_centers.values())


@routes.get("datacenters/{data_center}")
async def get_data_center(call: Call) -> Entity:
    return show_data_center(call, data_center_of(call))


@routes.get("datacenters/{data_center}/storagedomains")
async def list_attached_domains(call: Call) -> Collection:
    """Only here, and not in `/storagedomains`, has a domain its status."""
    data_center = data_center_of(call)
    domains = [item for item in call.context.state.storage_domains.values() if item.data_center_id == data_center.id]
    shown = [show_attached_domain(call, domain) for domain in storage_domains(call.context).visible(call, domains)]
    return Collection("storage_domains", "storage_domain", shown)


@routes.get("datacenters/{data_center}/storagedomains/{domain}")
async def get_attached_domain(call: Call) -> Entity:
    data_center, domain = data_center_of(call), domain_of(call)
    if domain.data_center_id != data_center.id:
        raise NotFound(call.path)
    return show_attached_domain(call, domain)


@routes.get("datacenters/{data_center}/clusters")
async def list_clusters_of_data_center(call: Call) -> Collection:
    data_center = data_center_of(call)
    mine = [item for item in call.context.state.clusters.values() if item.data_center_id == data_center.id]
    return clusters(call.context).listing(call, mine)


@routes.get("clusters")
async def list_clusters(call: Call) -> Collection:
    return clusters(call.context).listing(call, call.context.state.clusters.values())


@routes.get("clusters/{cluster}")
async def get_cluster(call: Call) -> Entity:
    cluster = call.context.state.clusters.get(call.id("cluster"))
    if cluster is None:
        raise NotFound(call.path)
    check_seen(call, ("cluster", cluster.id))
    return show_cluster(call, cluster)


@routes.get("hosts")
async def list_hosts(call: Call) -> Collection:
    return hosts(call.context).listing(call, call.context.state.hosts.values())


@routes.get("hosts/{host}")
async def get_host(call: Call) -> Entity:
    host = call.context.state.host(call.id("host"))
    check_seen(call, ("host", host.id))
    return show_host(call, host)


@routes.get("storagedomains")
async def list_storage_domains(call: Call) -> Collection:
    return storage_domains(call.context).listing(call, call.context.state.storage_domains.values())


@routes.get("storagedomains/{domain}")
async def get_storage_domain(call: Call) -> Entity:
    return show_storage_domain(call, domain_of(call))


def show_data_center(call: Call, item: DataCenter) -> Entity:
    fields: dict[str, Value] = {
        "name": item.name,
        "description": item.description,
        "comment": item.comment,
        "local": item.local,
        "quota_mode": "disabled",
        "status": item.status,
        "storage_format": "v5",
        "supported_versions": Items("version", [version(item.level)]),
        "version": version(item.level),
        "mac_pool": _first_mac_pool(call.context),
        **item.kept,
    }
    links = ("clusters", "iscsibonds", "networks", "permissions", "qoss", "quotas", "storagedomains")
    return Entity("data_center", fields, id=item.id, href=address("datacenters", item.id), links=links)


_MIGRATION = Entity(
    "migration",
    {
        "auto_converge": "inherit",
        "bandwidth": Entity("bandwidth", {"assignment_method": "auto"}),
        "compressed": "inherit",
        "encrypted": "inherit",
    },
)


def show_cluster(call: Call, item: Cluster) -> Entity:
    cpu = Entity("cpu", {"architecture": "x86_64", "type": item.cpu_type})
    fields: dict[str, Value] = {
        "name": item.name,
        "description": item.description,
        "comment": item.comment,
        "bios_type": "q35_sea_bios",
        "cpu": cpu,
        "version": version(item.level),
        "virt_service": True,
        "gluster_service": False,
        "data_center": link_to("data_center", item.data_center_id),
        "mac_pool": link_to("mac_pool", item.mac_pool_id),
        "migration": _MIGRATION,
        "upgrade_correlation_id": item.upgrade.correlation_id if item.upgrade else None,
        "upgrade_in_progress": item.upgrade is not None,
        "upgrade_percent_complete": item.upgrade.percent if item.upgrade else 0,
        **item.kept,
    }
    links = (
        "affinitygroups", "cpuprofiles", "enabledfeatures", "externalnetworkproviders", "glusterhooks",
        "glustervolumes", "networkfilters", "networks", "permissions",
    )  # fmt: skip
    return Entity("cluster", fields, id=item.id, href=address("clusters", item.id), links=links)


def show_host(call: Call, item: HostEntity) -> Entity:
    mine = [vm for vm in call.context.state.vms.values() if vm.host_id == item.id]
    migrating = sum(vm.status == "migrating" for vm in mine)
    summary = Entity("summary", {"active": len(mine), "migrating": migrating, "total": len(mine)})
    fields: dict[str, Value] = {
        "name": item.name,
        "address": item.address,
        "comment": item.comment,
        "external_status": item.external_status,
        "port": 54321,
        "protocol": "stomp",
        "spm": Entity("spm", {"priority": 5, "status": "spm" if is_spm(call.context, item) else "none"}),
        "status": item.status,
        "summary": summary,
        "type": "rhel",
        "cluster": link_to("cluster", item.cluster_id),
        "memory": HOST_MEMORY,
        "max_scheduling_memory": HOST_MEMORY,
        "power_management": Entity(
            "power_management", {"automatic_pm_enabled": True, "enabled": False, "kdump_detection": False}
        ),
        "ovn_configured": False,
        "update_available": item.update_available,
        "ssh": Entity("ssh", {"port": 22}),
        "vgpu_placement": "consolidated",
        **facts(item, call.context.state.clusters[item.cluster_id]),
        **item.kept,
    }
    links = (
        "affinitylabels", "cpuunits", "devices", "externalnetworkproviderconfigurations", "fenceagents", "hooks",
        "katelloerrata", "networkattachments", "nics", "numanodes", "permissions", "statistics", "storage",
        "storageconnectionextensions", "tags", "unmanagednetworks",
    )  # fmt: skip
    return Entity("host", fields, id=item.id, href=address("hosts", item.id), links=links)


def is_spm(context: Context, item: HostEntity) -> bool:
    """Whether a host manages the storage of its data centre: the chosen one, when it is up, else the first that is."""
    state = context.state
    center = state.data_centers[state.clusters[item.cluster_id].data_center_id]
    up = [host for host in state.hosts.values() if host.status == "up"]
    mine = [host for host in up if state.clusters[host.cluster_id].data_center_id == center.id]
    return next((host for host in mine if host.id == center.spm_host_id), mine[0] if mine else None) is item


def show_storage_domain(call: Call, item: StorageDomain) -> Entity:
    """A domain in `/storagedomains`: the status of an attached one is not given there."""
    used = sum(disk.actual_size for disk in call.context.state.disks.values() if disk.storage_domain_id == item.id)
    committed = sum(
        disk.provisioned_size for disk in call.context.state.disks.values() if disk.storage_domain_id == item.id
    )
    fields: dict[str, Value] = {
        "name": item.name,
        "description": item.description,
        "comment": item.comment,
        "available": item.size - used,
        "backup": False,
        "block_size": 512,
        "committed": committed,
        "critical_space_action_blocker": 5,
        "discard_after_delete": False,
        "external_status": "ok",
        "master": item.master,
        "storage": storage_of(item),
        "storage_format": "v5",
        "supports_discard": False,
        "supports_discard_zeroes_data": False,
        "type": item.type,
        "used": used,
        "warning_low_space_indicator": 10,
        "wipe_after_delete": False,
        "data_centers": Items("data_center", [link_to("data_center", item.data_center_id)]),
        **item.kept,
    }
    links = ("diskprofiles", "disks", "disksnapshots", "permissions", "storageconnections", "templates", "vms")
    return Entity("storage_domain", fields, id=item.id, href=address("storagedomains", item.id), links=links)


def storage_of(item: StorageDomain) -> Entity:
    """Where a domain lies."""
    return Entity("storage", {"address": "storage.lab", "path": f"/{item.name}", "type": "nfs", "nfs_version": "v3"})


def show_attached_domain(call: Call, item: StorageDomain) -> Entity:
    entity = show_storage_domain(call, item)
    entity.fields = {
        **entity.fields,
        "status": item.status,
        "data_centers": None,
        "data_center": link_to("data_center", item.data_center_id),
    }
    entity.href = address("datacenters", item.data_center_id, "storagedomains", item.id)
    entity.links = ("disks",)
    return entity


def data_centers(context: Context) -> Kind[DataCenter]:
    return Kind(
        tag="data_centers",
        member="data_center",
        show=show_data_center,
        place=lambda item: ("data_center", item.id),
        words=search_keys.of_data_centers(context.state),
    )


def clusters(context: Context) -> Kind[Cluster]:
    return Kind(
        tag="clusters",
        member="cluster",
        show=show_cluster,
        place=lambda item: ("cluster", item.id),
        words=search_keys.of_clusters(context.state),
    )


def hosts(context: Context) -> Kind[HostEntity]:
    return Kind(
        tag="hosts",
        member="host",
        show=show_host,
        place=lambda item: ("host", item.id),
        words=search_keys.of_hosts(context.state),
    )


def storage_domains(context: Context) -> Kind[StorageDomain]:
    return Kind(
        tag="storage_domains",
        member="storage_domain",
        show=show_storage_domain,
        place=lambda item: ("storage_domain", item.id),
        words=search_keys.of_domains(context.state),
    )


def cluster_of(call: Call) -> Cluster:
    """The cluster of the path."""
    item = call.context.state.clusters.get(call.id("cluster"))
    if item is None:
        raise NotFound(call.path)
    return item


def data_center_of(call: Call) -> DataCenter:
    """The data centre of the path."""
    item = call.context.state.data_centers.get(call.id("data_center"))
    if item is None:
        raise NotFound(call.path)
    check_seen(call, ("data_center", item.id))
    return item


def domain_of(call: Call) -> StorageDomain:
    """The storage domain of the path."""
    item = call.context.state.storage_domains.get(call.id("domain"))
    if item is None:
        raise NotFound(call.path)
    check_seen(call, ("storage_domain", item.id))
    return item


def _first_mac_pool(context: Context) -> Entity | None:
    return next((link_to("mac_pool", pool_id) for pool_id in context.state.mac_pools), None)
