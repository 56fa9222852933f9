# SPDX-License-Identifier: GPL-3.0-or-later
"""The example programs of the Go SDK: most are those of the Python one again, and are held to the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lab.tests.sdk_examples import table as python
from lab.tests.sdk_examples.table import Example, World, says

_PYTHON = {example.program: example for example in python.EXAMPLES}


def same(program: str, twin: str = "") -> Example:
    """What holds for the Python program of the same name, or of another."""
    return replace(_PYTHON[twin or program.replace(".go", ".py")], program=program, arguments=())


def renamed_vm(name: str, old: str = "myvm0", then: Callable[[World], None] = lambda world: None) -> Any:
    """A VM has the name that the program looks for, once what its twin needs is there."""

    def before(world: World) -> None:
        then(world)
        world.record(old).name = name

    return before


def renamed_center(world: World) -> None:
    world.named(world.state.data_centers, "mydc").name = "mydatacenter"


def no_network(world: World) -> None:
    python.no_network(world)
    renamed_center(world)


def developers(world: World) -> None:
    group = world.named(world.state.directory.groups, "mygroup")
    group.name = "Developers"


def label(world: World) -> None:
    python.label(world)
    world.named(world.state.affinity_labels, "my_affinity_label").name = "myaffinitylabel"
    world.record("myvm0").name = "test4joey"


def diskless(world: World) -> None:
    """A template without disks: the program looks at the first status only, for ever."""
    vm = world.types.Vm(id=world.record("myvm0").id)
    templates = world.sdk.templates_service()
    made = templates.add(world.types.Template(name="mytemplate", vm=vm))
    world.wait(lambda: templates.template_service(made.id).get().status.value == "ok")
    python.no_vm(world)


def fenced(world: World) -> None:
    host = world.named(world.state.hosts, "myhost")
    agents = world.sdk.hosts_service().host_service(host.id).fence_agents_service()
    agents.add(world.types.Agent(address="1.2.3.4", type="ipmlan", username="me", password="it", order=0))


def disks_vm(world: World) -> None:
    world.record("myvm").name = "test4joey"


def numbered_domain(world: World) -> None:
    """A domain has the id that the program names."""
    domain = world.named(world.state.storage_domains, "mydata")
    del world.state.storage_domains[domain.id]
    domain.id = "cadbe661-0e35-4fcb-a70d-2b17e2559d9c"
    world.state.storage_domains[domain.id] = domain


def awaited(world: World) -> None:
    vm = world.record("myvm")
    world.vm("myvm").start()
    del world.state.vms[vm.id]
    vm.id = "be0fe882-fa24-4428-92bf-2b01bd08df05"
    world.state.vms[vm.id] = vm


EXAMPLES = (
    Example(
        program="add_affinity_label.go",
        holds=lambda world: world.named(world.state.affinity_labels, "myaffinitylabel"),
    ),
    same("add_cluster.go"),
    same("add_datacenter.go", "add_data_center.py"),
    Example(program="add_disk.go", before=numbered_domain, holds=lambda world: world.disk("joey_disk")),
    same("add_fence_agent.go"),
    same("add_floating_disk.go"),
    Example(
        program="add_group.go",
        before=developers,
        holds=lambda world: len(world.sdk.groups_service().list(search="name=Developers")) == 1,
    ),
    Example(
        program="add_independent_vm.go",
        before=python.emptied_for_template,
        holds=lambda world: world.wait(lambda: world.record("myvm").status == "down") is None,
    ),
    same("add_instance_type.go"),
    replace(same("add_logical_network.go"), before=no_network),
    same("add_mac_pool.go"),
    same("add_openstack_image_provider.go"),
    same("add_role.go"),
    same("add_tag.go"),
    same("add_template.go"),
    Example(
        program="add_user_public_sshkey.go",
        holds=lambda world: not world.named(world.state.users, "myuser").ssh_keys,
    ),
    same("add_vm.go"),
    same("add_vm_disk.go"),
    same("add_vm_from_template.go", "add_vm_from_template_version.py"),
    same("add_vm_nic.go"),
    same("add_vm_snapshot.go"),
    Example(
        program="add_vm_with_sysprep.go",
        before=diskless,
        holds=lambda world: world.record("myvm").once.initialization_type == "sysprep",
    ),
    same("add_vnc_console.go"),
    Example(
        program="assign_affinity_label_to_vm.go",
        before=label,
        holds=lambda world: (
            world.record("test4joey").id in world.named(world.state.affinity_labels, "myaffinitylabel").vms
        ),
    ),
    replace(same("assign_network_to_cluster.go"), before=renamed_center),
    Example(
        program="assign_tag_to_vm.go",
        before=renamed_vm("test4joey", then=python.tag),
        holds=lambda world: "Assigned tag name is mytag" in world.said and world.record("test4joey").tags,
    ),
    same("asynchronous_inventory.go"),
    same("clone_vm_from_snapshot.go"),
    Example(
        program="data_center_maintenance.go",
        before=lambda world: setattr(world.named(world.state.data_centers, "mydc"), "name", "Default"),
        holds=lambda world: (
            world.wait(lambda: all(item.status == "maintenance" for item in world.state.hosts.values())) is None
        ),
    ),
    same("deactivate_disk_attachment.go"),
    same("disable_compression.go"),
    Example(
        program="download_vm_ovf.go",
        before=lambda world: (world.home / f"{world.record('myvm').id}.ovf").touch(),
        holds=lambda world: not world.said,
    ),
    same("enable_serial_console.go"),
    Example(
        program="extend_disk.go",  # whatever it is called, it adds a disk
        holds=lambda world: world.disk("mydisk").status == "ok" and len(world.record("myvm").attachments) == 2,
    ),
    Example(
        program="follow_vm_links.go",
        before=renamed_vm("test4joey"),
        holds=says("cluster: mycluster", "template: Blank", "role: 00000000-0000-0000-0000-000000000001"),
    ),
    same("get_vm_ip.go"),
    Example(
        program="list_affinity_labels.go",
        before=python.label,
        holds=says("name: my_affinity_label", "attached VM (myvm1)"),
    ),
    Example(program="list_clusters.go", holds=says("name: mycluster")),
    Example(program="list_clusters_up_from_datacenter.go", holds=says("Datacenter: mydc", "Cluster: mycluster")),
    Example(program="list_datacenters.go", holds=says("name: mydc", "Major: 4 Minor: 7")),
    replace(
        same("list_hosts_statistics.go", "list_host_statistics.py"),
        before=lambda world: setattr(world.named(world.state.hosts, "myhost"), "name", "node26"),
    ),
    Example(program="list_networks.go", holds=says("Cluster: mycluster", "ovirtmgmt")),
    Example(
        program="list_operating_systems.go",
        holds=says("name:other_linux", "/operatingsystems/1"),
    ),
    same("list_roles.go"),
    Example(program="list_storage_domains.go", holds=lambda world: world.said.count("id: ") == 2),
    same("list_tags.go"),
    Example(program="list_vm_disks.go", before=disks_vm, holds=says("name: myvm_system", "status: ok")),
    same("list_vm_snapshots.go"),
    Example(program="list_vm_tags.go", before=python.tag, holds=says("name: mytag")),
    same("list_vms.go"),
    Example(program="list_vms_with_tag.go", holds=lambda world: not world.said),
    same("page_vms.go"),
    same("pin_vm.go"),
    same("poll_events.go"),
    same("print_vm_mac_duplicates.go"),
    Example(
        program="process_errors.go",
        holds=says("Failed to authenticate user", "DataCenter not found"),
    ),
    same("remove_host.go"),
    same("remove_numa_nodes_from_vm.go"),
    same("remove_tag.go"),
    same("remove_vm.go"),
    Example(program="search_vms.go", before=renamed_vm("test4joey"), holds=says("name: test4joey")),
    Example(program="set_vm_comment.go", holds=lambda world: world.record("myvm").comment == "test comment"),
    same("set_vm_lease_storage_domain.go"),
    same("set_vm_serial_number.go"),
    same("show_summary.go"),
    same("sparsify_disk.go"),
    same("start_vm.go"),
    same("start_vm_with_boot_devices.go"),
    same("start_vm_with_cloudinit.go", "start_vm_with_cloud_init.py"),
    same("stop_vm.go"),
    Example(program="test_connection.go", holds=lambda world: not world.said),
    Example(
        program="unassign_tag_to_vm.go",
        before=renamed_vm("test4joey", then=python.tagged),
        holds=lambda world: not world.record("test4joey").tags,
    ),
    same("update_datacenter.go", "update_data_center.py"),
    replace(same("update_fencing_options.go"), before=fenced),
    same("update_quota_limits.go"),
    same("upgrade_host.go"),
    Example(program="wait_vm_status.go", before=awaited, holds=says("VM is up now")),
)

LEFT_OUT = {
    "add_bond.go": "bonds and addresses of hosts' NICs: the lab's networks are made when it starts",
    "add_host.go": "installs a host over SSH: the lab's hosts are made when it starts",
    "add_iscsi_data_storage_domain.go": "iSCSI: the lab has file domains only",
    "add_lun_disk_to_vm.go": "iSCSI: the lab has file domains only",
    "add_nfs_data_storage_domain.go": "makes a domain on an NFS server of its own: the lab's are made when it starts",
    "add_nfs_iso_storage_domain.go": "ISO domains are not in the lab",
    "add_vm_pool.go": "VM pools are not in the lab",
    "assign_permission.go": "searches users by `userName`, which the engine calls `usrname`",
    "assign_permission_to_vms.go": "searches users by `userName`, which the engine calls `usrname`",
    "attach_nfs_data_storage_domain.go": "a domain on an NFS server of its own: the lab's are made when it starts",
    "attach_nfs_iso_storage_domain.go": "ISO domains are not in the lab",
    "change_host_cluster.go": "activates a host that is up, which is refused",
    "change_vm_cd.go": "a file of an ISO domain, which are not in the lab",
    "check_OCP_support.go": "says that 4.5 is older than 4.3.9",
    "download_disk.go": "wants a signed ticket, which no engine gives since 4.4",
    "export_template.go": "export domains are not in the lab",
    "export_template_as_ova.go": "OVA files are not in the lab",
    "export_vm.go": "export domains are not in the lab",
    "export_vm_as_ova.go": "OVA files are not in the lab",
    "get_display_ticket.go": "wants the address of a console without asking for the current ones",
    "import_glance_image.go": "needs OpenStack Glance",
    "import_vm.go": "export domains are not in the lab",
    "import_vm_from_ova.go": "OVA files are not in the lab",
    "import_vm_from_vmware.go": "needs VMware",
    "list_glance_images.go": "needs OpenStack Glance",
    "register_vm.go": "imports from a domain's own OVF store, which the lab's domains lack",
    "vm_backup.go": "wants the guest's name of each disk, which only the agent of a guest that it hangs on can tell",
}
