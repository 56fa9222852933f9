# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists that clients ask for, and of which the lab's machines have nothing."""

from __future__ import annotations

from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.rest.documents import COLLECTIONS, Collection
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import check_seen, nothing

routes = Routes()

_LISTS = {
    "icons": ("icons", "icon"),
    "katelloerrata": ("katello_errata", "katello_erratum"),
    "schedulingpolicyunits": ("scheduling_policy_units", "scheduling_policy_unit"),
    "vmpools": ("vm_pools", "vm_pool"),
    "clusters/{object}/enabledfeatures": ("cluster_features", "cluster_feature"),
    "clusters/{object}/externalnetworkproviders": ("external_providers", "external_provider"),
    "clusters/{object}/glusterhooks": ("gluster_hooks", "gluster_hook"),
    "clusters/{object}/glustervolumes": ("gluster_volumes", "gluster_volume"),
    "datacenters/{object}/iscsibonds": ("iscsi_bonds", "iscsi_bond"),
    "hosts/{object}/cpuunits": ("host_cpu_units", "host_cpu_unit"),
    "hosts/{object}/devices": ("host_devices", "host_device"),
    "hosts/{object}/externalnetworkproviderconfigurations": (
        "external_network_provider_configurations",
        "external_network_provider_configuration",
    ),
    "hosts/{object}/hooks": ("hooks", "hook"),
    "hosts/{object}/katelloerrata": ("katello_errata", "katello_erratum"),
    "hosts/{object}/networkattachments": ("network_attachments", "network_attachment"),
    "hosts/{object}/numanodes": ("host_numa_nodes", "host_numa_node"),
    "hosts/{object}/storage": ("host_storages", "host_storage"),
    "hosts/{object}/storageconnectionextensions": ("storage_connection_extensions", "storage_connection_extension"),
    "hosts/{object}/unmanagednetworks": ("unmanaged_networks", "unmanaged_network"),
    "instancetypes/{object}/graphicsconsoles": ("graphics_consoles", "graphics_console"),
    "instancetypes/{object}/nics": ("nics", "nic"),
    "instancetypes/{object}/watchdogs": ("watchdogs", "watchdog"),
    "jobs/{job}/steps/{step}/statistics": ("statistics", "statistic"),
    "storagedomains/{object}/files": ("files", "file"),
    "storagedomains/{object}/images": ("images", "image"),
    "templates/{object}/cdroms": ("cdroms", "cdrom"),
    "templates/{object}/graphicsconsoles": ("graphics_consoles", "graphics_console"),
    "templates/{object}/mediateddevices": ("vm_mediated_devices", "vm_mediated_device"),
    "templates/{object}/watchdogs": ("watchdogs", "watchdog"),
    "users/{user}/eventsubscriptions": ("event_subscriptions", "event_subscription"),
    "vms/{object}/applications": ("applications", "application"),
    "vms/{object}/hostdevices": ("host_devices", "host_device"),
    "vms/{object}/katelloerrata": ("katello_errata", "katello_erratum"),
    "vms/{object}/mediateddevices": ("vm_mediated_devices", "vm_mediated_device"),
    "vms/{object}/sessions": ("sessions", "session"),
}
_KINDS = {collection: kind for kind, collection in COLLECTIONS.items()}


def _serve(pattern: str, tag: str, member: str) -> None:
    @routes.get(pattern)
    async def list_nothing(call: Call) -> Collection:
        if "object" in call.segments:
            place = (_KINDS[pattern.partition("/")[0]], call.id("object"))
            if not call.context.state.has(*place):
                raise NotFound(call.path)
            check_seen(call, place)
        return nothing(tag, member)


for _pattern, (_tag, _member) in _LISTS.items():
    _serve(_pattern, _tag, _member)
