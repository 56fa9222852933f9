# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's permits and its predefined roles, each as every engine has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ovirtlab.engine.entities.people import Role

_USER_PERMITS = {
    "create_vm": 1, "delete_vm": 2, "edit_vm_properties": 3, "change_vm_cd": 5, "migrate_vm": 6, "connect_to_vm": 7,
    "configure_vm_network": 9, "configure_vm_storage": 10, "move_vm": 11, "manipulate_vm_snapshots": 12,
    "reconnect_to_vm": 13, "create_instance": 16, "reboot_vm": 17, "stop_vm": 18, "shut_down_vm": 19,
    "hibernate_vm": 21, "run_vm": 22, "reset_vm": 23, "create_template": 200, "edit_template_properties": 201,
    "delete_template": 202, "copy_template": 203, "configure_template_network": 204, "create_vm_pool": 300,
    "edit_vm_pool_configuration": 301, "delete_vm_pool": 302, "vm_pool_basic_operations": 303,
    "manipulate_permissions": 502, "add_users_and_groups_from_directory": 503, "edit_profile": 504,
    "consume_quota": 901, "create_disk": 1100, "attach_disk": 1101, "edit_disk_properties": 1102,
    "configure_disk_storage": 1103, "delete_disk": 1104, "access_image_storage": 1106,
    "disk_live_storage_migration": 1107, "sparsify_disk": 1108, "login": 1300, "attach_disk_profile": 1563,
    "connect_to_serial_console": 1664,
}  # fmt: skip
ADMIN_PERMITS = {
    "import_export_vm": 8, "change_vm_custom_properties": 14, "edit_admin_vm_properties": 15, "create_host": 100,
    "edit_host_configuration": 101, "delete_host": 102, "manipulate_host": 103, "configure_host_network": 104,
    "edit_admin_template_properties": 205, "create_cluster": 400, "edit_cluster_configuration": 401,
    "delete_cluster": 402, "configure_cluster_network": 403, "assign_cluster_network": 404, "manipulate_users": 500,
    "manipulate_roles": 501, "create_storage_domain": 600, "edit_storage_domain_configuration": 601,
    "delete_storage_domain": 602, "manipulate_storage_domain": 603, "create_storage_pool": 700,
    "delete_storage_pool": 701, "edit_storage_pool_configuration": 702, "configure_storage_pool_network": 703,
    "create_storage_pool_network": 704, "delete_storage_pool_network": 705, "configure_engine": 800,
    "configure_quota": 900, "configure_scsi_generic_io": 1105, "reduce_disk": 1109, "backup_disk": 1110,
    "configure_network_vnic_profile": 1203, "create_network_vnic_profile": 1204, "delete_network_vnic_profile": 1205,
    "tag_management": 1301, "bookmark_management": 1302, "event_notification_management": 1303,
    "audit_log_management": 1304, "inject_external_events": 1400, "inject_external_tasks": 1500,
    "manipulate_affinity_groups": 1550, "configure_storage_disk_profile": 1560, "create_storage_disk_profile": 1561,
    "delete_storage_disk_profile": 1562, "create_mac_pool": 1660, "edit_mac_pool": 1661, "delete_mac_pool": 1662,
    "configure_mac_pool": 1663, "delete_cpu_profile": 1665, "update_cpu_profile": 1666, "create_cpu_profile": 1667,
    "assign_cpu_profile": 1668, "create_gluster_volume": 1000, "manipulate_gluster_volume": 1001,
    "delete_gluster_volume": 1002, "manipulate_gluster_hook": 1003, "manipulate_gluster_service": 1004,
}  # fmt: skip

PERMITS = {**_USER_PERMITS, **ADMIN_PERMITS}
"""Numbers of permits by their names in the API."""

# Permits by which the holder of a role sees nothing of what lies in the object: who may make VMs sees no VMs by that.
_BLIND = frozenset(
    {
        "create_vm", "create_instance", "create_template", "create_vm_pool", "create_disk", "access_image_storage",
        "login", "inject_external_events", "inject_external_tasks", "tag_management", "bookmark_management",
        "event_notification_management", "audit_log_management",
    }
)  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """A predefined role; `permits` are their numbers and ranges of numbers."""

    id: str
    name: str
    permits: str
    description: str
    administrative: bool = False
    shows_children: bool = True


_PREDEFINED = (
    _Row("00000000-0000-0000-0000-000000000001", "SuperUser",
        "1-3 5-15 17-19 21-23 100-104 200-205 300-303 400-404 500-503 600-603 700-705 800 900-901 "
        "1000-1004 1100-1110 1203-1205 1300-1304 1400 1500 1550 1560-1563 1660-1668",
        "Roles management administrator", administrative=True),
    _Row("00000000-0000-0000-0001-000000000001", "UserRole", "5 7 17-19 21-23 303 1106 1300", "Standard User Role"),
    _Row("00000000-0000-0000-0001-000000000002", "PowerUserRole", "1 200 1100 1106 1300 1563 1665-1668",
        "User Role, allowed to create VMs, Templates and Disks", shows_children=False),
    _Row("def00001-0000-0000-0000-def000000001", "ClusterAdmin",
        "1-3 5-12 14-15 17-19 21-23 100-104 300-303 400-403 502-503 1100-1104 1107-1110 1300-1304 1550 "
        "1563 1665-1668",
        "Administrator Role, permission for all the objects underneath a specific Cluster", administrative=True),
    _Row("def00002-0000-0000-0000-def000000002", "DataCenterAdmin",
        "1-3 5-12 14-15 17-19 21-23 100-104 200-205 300-303 400-404 502-503 700-705 900-901 1100-1105 "
        "1107-1110 1203-1205 1300-1304 1550 1563 1663 1665-1668",
        "Administrator Role, permission for all the objects underneath a specific Data Center, except Storage",
        administrative=True),
    _Row("def00003-0000-0000-0000-def000000003", "StorageAdmin", "600-603 1100-1104 1106-1110 1300-1304 1560-1563",
        "Administrator Role, permission for all operations on a specific Storage Domain", administrative=True),
    _Row("def00004-0000-0000-0000-def000000004", "HostAdmin", "100-104 600-603 1300-1304 1560-1563",
        "Administrator Role, permission for all operations on a specific Host", administrative=True),
    _Row("def00005-0000-0000-0000-def000000005", "NetworkAdmin", "9 104 204 403-404 703-705 1203-1205 1300-1304",
        "Administrator Role, permission for all operations on a specific Logical Network", administrative=True),
    _Row("def00006-0000-0000-0000-def000000006", "UserVmManager",
        "1-3 5 7 9-10 12 17-19 21-23 502-503 1100-1102 1104 1108-1110 1300 1664 1668",
        "User Role, with permission for any operation on Vms"),
    _Row("def00007-0000-0000-0000-def000000007", "VmPoolAdmin", "1 300-303 1300-1304 1668",
        "Administrator Role, permission for all operations on a specific VM Pool", administrative=True),
    _Row("def00008-0000-0000-0000-def000000008", "TemplateAdmin", "200-205 502-503 1106 1300-1304",
        "Administrator Role, permission for all operations on a specific Template", administrative=True),
    _Row("def0000a-0000-0000-0000-def00000000a", "QuotaConsumer", "901",
        "User Role, permissions to consume the Quota resources", shows_children=False),
    _Row("def0000a-0000-0000-0000-def00000000b", "DiskOperator", "502-503 1100-1102 1104 1108-1110 1300",
        "User Role, permissions for all operations on a specific disk"),
    _Row("def0000a-0000-0000-0000-def00000000c", "DiskCreator", "1100 1300",
        "User Role, permission to create Disks", shows_children=False),
    _Row("def0000b-0000-0000-0000-def00000000b", "GlusterAdmin", "100-104 400-404 1000-1004 1300-1304",
        "Administrator Role, permissions for operations on Gluster objects", administrative=True),
    _Row("def0000a-0000-0000-0000-def00000000d", "VmCreator", "1 1100 1300 1668",
        "User Role, permission to create VMs", shows_children=False),
    _Row("def0000a-0000-0000-0000-def00000000e", "TemplateCreator", "200 1300",
        "User Role, permission to create Templates", shows_children=False),
    _Row("def0000a-0000-0000-0000-def00000000f", "TemplateOwner", "201-204 502-503 1300",
        "User Role, permissions for all operations on Templates"),
    _Row("def0000c-0000-0000-0000-def000000000", "ExternalEventsCreator", "1400",
        "External Events Creator", shows_children=False),
    _Row("def0000d-0000-0000-0000-def000000000", "ExternalTasksCreator", "1500",
        "External Tasks Creator", shows_children=False),
    _Row("def0000a-0000-0000-0000-def000000010", "VnicProfileUser", "9 204 1300",
        "VM Network Interface Profile User", shows_children=False),
    _Row("def00009-0000-0000-0000-def000000009", "UserTemplateBasedVm", "1 1668",
        "Template User", shows_children=False),
    _Row("def00011-0000-0000-0000-def000000011", "InstanceCreator", "16 1100 1300",
        "User Role, permission to create Instances", shows_children=False),
    _Row("def00012-0000-0000-0000-def000000012", "UserInstanceManager",
        "2-3 5 7 10 12 17-19 21-23 502-503 1100-1102 1104 1108-1110 1300 1664",
        "User Role, with permission for any operation on Instances", shows_children=False),
    _Row("def0000c-0000-0000-0000-def00000000c", "ReadOnlyAdmin", "1300",
        "Read Only Administrator Role", administrative=True),
    _Row("def00011-0000-0000-0000-def000000013", "TagManager", "1300-1301 1304",
        "Tag Manager", administrative=True, shows_children=False),
    _Row("def00011-0000-0000-0000-def000000014", "BookmarkManager", "1300 1302 1304",
        "Bookmark Manager", administrative=True, shows_children=False),
    _Row("def00011-0000-0000-0000-def000000015", "EventNotificationManager", "1300 1303-1304",
        "Event Notification Manager", administrative=True, shows_children=False),
    _Row("def00011-0000-0000-0000-def000000016", "AuditLogManager", "1300 1304",
        "Audit Log Manager", administrative=True, shows_children=False),
    _Row("def00013-0000-0000-0000-def000000013", "MacPoolAdmin", "1300 1660-1663",
        "MAC Pool Administrator Role, permission for manipulation with MAC pools", administrative=True),
    _Row("def00014-0000-0000-0000-def000000014", "MacPoolUser", "1300 1663",
        "MAC Pool User Role, permission allowing using MAC pools"),
    _Row("def00020-0000-0000-0000-abc000000010", "DiskProfileUser", "1563",
        "Disk Profile User", shows_children=False),
    _Row("def00006-0000-0000-0000-def000000011", "UserVmRunTimeManager",
        "1-3 5 7 9-10 17-19 21-23 502-503 1100-1102 1104 1108-1110 1300 1668",
        "User Role, with permissions for any operations on VMs except snapshot manipulation", shows_children=False),
    _Row("def00021-0000-0000-0000-def000000015", "UserProfileEditor", "504",
        "Role that allow users to edit the UserProfile", shows_children=False),
    _Row("def00030-0000-0000-0000-def000000011", "VmImporterExporter", "8 1300 1563 1668",
        "Administrator Role, with permission to import or export Vms", administrative=True),
    _Row("def00017-0000-0000-0000-def000000017", "CpuProfileOperator", "1668",
        "Cpu Profile Operation", shows_children=False),
    _Row("def00016-0000-0000-0000-def000000016", "CpuProfileCreator", "1665-1668",
        "Cpu Profile Creation/Deletion/Updating and Operation", administrative=True, shows_children=False),
)  # fmt: skip


def shows_children(permits: frozenset[str]) -> bool:
    """Whether a role with these permits lets its holder see what lies in the object."""
    return not permits <= _BLIND


def predefined() -> list[Role]:
    """The roles every engine starts with; their ids are the same in every engine."""
    names = {number: name for name, number in PERMITS.items()}
    return [
        Role(
            id=row.id,
            name=row.name,
            administrative=row.administrative,
            permits=frozenset(names[number] for number in _numbers(row.permits)),
            description=row.description,
            shows_children=row.shows_children,
        )
        for row in _PREDEFINED
    ]


def _numbers(text: str) -> Iterator[int]:
    for part in text.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
