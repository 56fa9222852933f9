# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's permits and the predefined roles that matter to clients of VMs and disks."""

from __future__ import annotations

import uuid

from ovirtlab.engine.entities import Role

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
    "assign_cpu_profile": 1668,
}  # fmt: skip

PERMITS = {**_USER_PERMITS, **ADMIN_PERMITS}
"""Numbers of permits by their names in the API."""

_NAMESPACE = uuid.UUID("9d2aa6f1-5b0f-4a39-8bd2-0d8a66a3f1ce")
_VM = {
    "delete_vm", "edit_vm_properties", "reboot_vm", "reset_vm", "stop_vm", "shut_down_vm", "hibernate_vm", "run_vm",
    "change_vm_cd", "connect_to_vm", "connect_to_serial_console", "configure_vm_network", "configure_vm_storage",
    "manipulate_vm_snapshots",
}  # fmt: skip
_DISK = {"attach_disk", "edit_disk_properties", "configure_disk_storage", "delete_disk", "sparsify_disk"}
_DISK_ADMIN = _DISK | {"create_disk", "backup_disk", "reduce_disk", "access_image_storage", "attach_disk_profile"}
_VM_ADMIN = _VM | {"create_vm", "migrate_vm", "move_vm", "import_export_vm", "edit_admin_vm_properties"}

# name: (administrative, permits besides login, description)
_PREDEFINED: dict[str, tuple[bool, set[str], str]] = {
    "SuperUser": (True, set(PERMITS), "Roles management administrator"),
    "DataCenterAdmin": (
        True,
        _VM_ADMIN | _DISK_ADMIN | {"create_storage_pool", "edit_storage_pool_configuration", "manipulate_permissions"},
        "Data Center Administrator role, permission for all the objects underneath a specific Data Center",
    ),
    "ClusterAdmin": (
        True,
        _VM_ADMIN | _DISK_ADMIN | {"edit_cluster_configuration", "manipulate_host", "manipulate_permissions"},
        "Administrator Role, permission for all the objects underneath a specific Cluster",
    ),
    "StorageAdmin": (
        True,
        _DISK_ADMIN | {"manipulate_storage_domain", "edit_storage_domain_configuration"},
        "Storage Administrator role, permissions to manage storage",
    ),
    "VmImporterExporter": (True, {"import_export_vm", "create_vm"}, "Role that is allowed to import and export VMs"),
    "ReadOnlyAdmin": (True, set(), "Read Only Administrator Role"),
    "ExternalEventsCreator": (True, {"inject_external_events"}, "External Events Creator"),
    "UserVmManager": (
        False,
        _VM | _DISK | {"backup_disk", "create_disk", "manipulate_permissions"},
        "User Role, with permission for any operation on VMs",
    ),
    "UserVmRunTimeManager": (False, _VM - {"delete_vm"} | {"backup_disk"}, "User Role, runs VMs"),
    "UserRole": (
        False,
        {"run_vm", "shut_down_vm", "stop_vm", "reboot_vm", "connect_to_vm", "change_vm_cd", "hibernate_vm"},
        "Standard User Role",
    ),
    "VmCreator": (False, {"create_vm", "create_disk"}, "User Role, permission to create VMs"),
    "DiskCreator": (False, {"create_disk"}, "User Role, permission to create Disks"),
    "DiskOperator": (False, _DISK | {"backup_disk"}, "User Role, permission for all operations on a specific disk"),
}

_OBJECT_ONLY = frozenset({"VmCreator", "DiskCreator", "VmImporterExporter", "ExternalEventsCreator"})


def predefined() -> list[Role]:
    """The roles every engine starts with; their ids are the same in every lab."""
    return [
        Role(
            id="00000000-0000-0000-0000-000000000001" if name == "SuperUser" else str(uuid.uuid5(_NAMESPACE, name)),
            name=name,
            administrative=administrative,
            permits=frozenset(permits | {"login"}),
            description=description,
            shows_children=name not in _OBJECT_ONLY,
        )
        for name, (administrative, permits, description) in _PREDEFINED.items()
    ]
