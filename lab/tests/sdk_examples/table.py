# SPDX-License-Identifier: GPL-3.0-or-later
"""The SDK's example programs: how each is run, what must be so afterwards, and why some are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

World = Any  # what the tests run the examples in: `state` of the engine, `said` by the program, `sdk` to look with


@dataclass(frozen=True, kw_only=True)
class Example:
    """A program. `before` prepares what it expects to find; `holds` must be true of the world after it.

    `arguments` may name things of the world: `{disk}`, `{vm}`. `endless` programs are stopped once `holds` is true.
    A program whose last call is `refused` by every engine, as its author says in it, ends with these words.
    """

    program: str
    holds: Callable[[World], object]
    arguments: tuple[str, ...] = ()
    before: Callable[[World], None] = lambda world: None
    endless: bool = False
    refused: str = ""


def says(*texts: str) -> Callable[[World], object]:
    """The program has printed all of these."""
    return lambda world: all(text in world.said for text in texts)


def no_vm(world: World) -> None:
    world.remove_vm("myvm")


def started(world: World) -> None:
    service = world.vm("myvm")
    service.start()
    world.wait(lambda: service.get().status.value == "up")


def tagged(world: World) -> None:
    world.sdk.tags_service().add(world.types.Tag(name="mytag"))
    world.vm("myvm0").tags_service().add(world.types.Tag(name="mytag"))


def tag(world: World) -> None:
    world.sdk.tags_service().add(world.types.Tag(name="mytag"))


def many_disks(world: World) -> None:
    domains = [world.types.StorageDomain(name="mydata")]
    disk = world.types.Disk(
        name="disk-0",
        description="Created by add_disks.py",
        format=world.types.DiskFormat.COW,
        provisioned_size=1 << 20,
        storage_domains=domains,
    )
    disks = world.sdk.disks_service()
    disk_id = disks.add(disk).id
    world.wait(lambda: disks.disk_service(disk_id).get().status.value == "ok")


def renamed(kind: str, name: str) -> Callable[[World], None]:
    """What an example will make must not be there yet."""

    def rename(world: World) -> None:
        world.named(getattr(world.state, kind), name).name = "other"

    return rename


def no_network(world: World) -> None:
    service = world.sdk.networks_service()
    service.network_service(world.named(world.state.networks, "mynetwork").id).remove()


def label(world: World) -> None:
    labels = world.sdk.affinity_labels_service()
    made = labels.add(world.types.AffinityLabel(name="my_affinity_label"))
    vm = world.types.Vm(id=world.record("myvm1").id)
    labels.label_service(made.id).vms_service().add(vm)


def limited(world: World) -> bool:
    quota = world.named(world.state.quotas, "myquota")
    return [limit.limit for limit in quota.storage.values()] == [100]


def numa_nodes(world: World) -> None:
    nodes = world.vm("myvm").numa_nodes_service()
    for index in range(2):
        core = world.types.Core(index=index)
        cpu = world.types.Cpu(cores=[core])
        nodes.add(world.types.VirtualNumaNode(index=index, memory=256, cpu=cpu))
    assert len(nodes.list()) == 2


def agent(world: World) -> None:
    host = world.named(world.state.hosts, "myhost")
    agents = world.sdk.hosts_service().host_service(host.id).fence_agents_service()
    agents.add(world.types.Agent(address="1.2.3.4", type="ipmilan", username="me", password="it", order=0))


def shows(name: str, *path: str, value: object) -> Callable[[World], object]:
    """The VM is shown with this."""

    def look(world: World) -> bool:
        found = world.vm(name).get()
        for attribute in path:
            found = getattr(found, attribute)
        return bool(found == value)

    return look


def plugged(world: World) -> None:
    disk = world.disk("myvm_system")
    disk.alias = "mydisk"


def iso(world: World) -> None:
    disk = world.disk("myvm_system")
    disk.content_type = "iso"
    started(world)


def holders(world: World) -> None:
    world.add_user("user2", "internal")


def snapped(world: World) -> None:
    snapshots = world.vm("myvm").snapshots_service()
    snapshots.add(world.types.Snapshot(description="mysnap"))
    world.wait(lambda: all(item.snapshot_status.value == "ok" for item in snapshots.list()))


def template(world: World, base: Any = None) -> Any:
    templates = world.sdk.templates_service()
    version = world.types.TemplateVersion(base_template=base) if base else None
    vm = world.types.Vm(id=world.record("myvm").id)
    made = templates.add(world.types.Template(name="mytemplate", vm=vm, version=version))
    world.wait(lambda: templates.template_service(made.id).get().status.value == "ok")
    return made


def third_version(world: World) -> None:
    base = template(world)
    template(world, base)
    template(world, base)
    no_vm(world)


def two_running(world: World) -> None:
    world.vm("myvm3").update(world.types.Vm(name="myagent"))
    for name in ("myvm", "myagent"):
        service = world.vm(name)
        service.start()
        world.wait(lambda service=service: service.get().status.value == "up")


def emptied_for_template(world: World) -> None:
    template(world)
    no_vm(world)


def in_maintenance(world: World) -> None:
    host = world.named(world.state.hosts, "myhost")
    world.sdk.hosts_service().host_service(host.id).deactivate()
    world.wait(lambda: host.status == "maintenance")


def with_updates(world: World) -> None:
    world.named(world.state.hosts, "myhost").updates = ("vdsm",)


def all_running(world: World) -> None:
    world.named(world.state.data_centers, "mydc").name = "Default"
    started(world)


EXAMPLES = (
    Example(
        program="add_data_center.py",
        before=renamed("data_centers", "mydc"),
        holds=lambda world: world.named(world.state.data_centers, "mydc").description == "My data center",
    ),
    Example(
        program="update_data_center.py",
        holds=lambda world: world.named(world.state.data_centers, "mydc").description == "Updated description",
    ),
    Example(
        program="add_cluster.py",
        before=renamed("clusters", "mycluster"),
        holds=lambda world: world.named(world.state.clusters, "mycluster").cpu_type == "Intel Conroe Family",
    ),
    Example(
        program="add_mac_pool.py",
        holds=lambda world: (
            world.named(world.state.clusters, "mycluster").mac_pool_id
            == world.named(world.state.mac_pools, "mymacpool").id
        ),
    ),
    Example(
        program="add_logical_network.py",
        before=no_network,
        holds=lambda world: world.named(world.state.networks, "mynetwork").vlan == 100,
    ),
    Example(
        program="assign_network_to_cluster.py",
        holds=lambda world: list(world.named(world.state.networks, "mynetwork").clusters.values()) == [True],
    ),
    Example(program="list_cluster_networks.py", holds=says("ovirtmgmt")),
    Example(program="add_vm_nic.py", holds=lambda world: world.named(world.record("myvm").nics, "mynic")),
    Example(
        program="add_affinity_label.py",
        holds=lambda world: world.named(world.state.affinity_labels, "my_affinity_label"),
    ),
    Example(
        program="assign_affinity_label_to_vm.py",
        before=label,
        holds=lambda world: (
            world.record("myvm0").id in world.named(world.state.affinity_labels, "my_affinity_label").vms
        ),
    ),
    Example(program="list_affinity_labels.py", before=label, holds=says("my_affinity_label", "myvm1")),
    Example(program="update_quota_limits.py", holds=limited),
    Example(program="list_host_statistics.py", holds=says("memory.total", "cpu.load.avg.5m")),
    Example(
        program="change_host_cluster.py",
        holds=lambda world: world.named(world.state.hosts, "myhost").status == "up",
    ),
    Example(
        program="add_fence_agent.py",
        holds=lambda world: world.named(world.state.hosts, "myhost").fence_agents,
    ),
    Example(
        program="update_fencing_options.py",
        before=agent,
        holds=lambda world: "lanplus" in str(world.named(world.state.hosts, "myhost").fence_agents),
    ),
    Example(
        program="deactivate_disk_attachment.py",
        before=plugged,
        holds=lambda world: not any(item.active for item in world.record("myvm").attachments.values()),
    ),
    Example(program="extend_disk.py", holds=lambda world: world.disk("mydisk").provisioned_size == 12 << 30),
    Example(
        program="change_vm_cd.py",
        arguments=("-c", "lab", "--disk-id", "{disk}", "myvm"),
        before=iso,
        holds=lambda world: world.record("myvm").cd_disk_id,
    ),
    Example(
        program="add_vnc_console.py",
        holds=lambda world: (
            "vnc" in [item.protocol.value for item in world.vm("myvm").graphics_consoles_service().list()]
        ),
    ),
    Example(program="get_display_ticket.py", before=started, holds=says("address: 127.0.0.1", "password: ")),
    Example(program="get_vm_ip.py", before=started, holds=lambda world: True),
    Example(
        program="remove_numa_nodes_from_vm.py",
        before=numa_nodes,
        holds=lambda world: not world.record("myvm").numa_nodes,
    ),
    Example(program="enable_serial_console.py", holds=shows("myvm", "console", "enabled", value=True)),
    Example(program="set_vm_serial_number.py", holds=shows("myvm", "serial_number", "value", value="myserial")),
    Example(program="set_vm_lease_storage_domain.py", holds=shows("myvm", "high_availability", "enabled", value=True)),
    Example(
        program="pin_vm.py",
        holds=lambda world: (
            world.vm("myvm").get().placement_policy.hosts[0].id == world.named(world.state.hosts, "myhost").id
        ),
    ),
    Example(
        program="assign_permission_to_vms.py", before=holders, holds=lambda world: len(world.held_by("user2")) == 3
    ),
    Example(program="test_connection.py", holds=says("Connection works.")),
    Example(program="connection_builder.py", holds=says("myvm0", "myhost")),
    Example(program="disable_compression.py", holds=says("4.5.")),
    Example(program="show_summary.py", holds=says("4.5.")),
    Example(program="list_vms.py", holds=says("myvm", "myvm3")),
    Example(program="page_vms.py", holds=says("myvm", "myvm0", "myvm3")),
    Example(program="search_vms.py", holds=says("myvm")),
    Example(program="list_roles.py", holds=says("SuperUser", "UserVmManager")),
    Example(program="list_tags.py", before=tag, holds=says("mytag")),
    Example(program="list_tags_of_vm.py", before=tagged, holds=says("mytag")),
    Example(program="add_tag.py", holds=lambda world: world.named(world.state.tags, "mytag")),
    Example(program="remove_tag.py", before=tagged, holds=lambda world: world.named(world.state.tags, "mytag") is None),
    Example(program="assign_tag_to_vm.py", before=tag, holds=lambda world: world.record("myvm0").tags),
    Example(program="unassign_tag_to_vm.py", before=tagged, holds=lambda world: not world.record("myvm0").tags),
    Example(program="list_storage_domains.py", arguments=("-c", "lab", "-s", "name=mydata"), holds=says("mydata")),
    Example(program="list_vm_disks.py", holds=says("myvm_system")),
    Example(program="follow_vm_links.py", holds=says("mycluster", "Blank", "00000000-0000-0000-0000-000000000001")),
    Example(program="print_vm_mac_duplicates.py", holds=lambda world: "already" not in world.said),
    Example(program="asynchronous_inventory.py", holds=says("Loaded 5 VMs", "Loaded 2 hosts")),
    Example(program="add_vm.py", before=no_vm, holds=lambda world: world.record("myvm").status == "down"),
    Example(program="remove_vm.py", holds=lambda world: world.named(world.state.vms, "myvm") is None),
    Example(program="start_vm.py", holds=lambda world: world.record("myvm").status == "up"),
    Example(program="stop_vm.py", before=started, holds=lambda world: world.record("myvm").status == "down"),
    Example(program="start_vm_with_boot_devices.py", holds=lambda world: world.record("myvm").status == "up"),
    Example(program="add_vm_disk.py", holds=lambda world: len(world.record("myvm").attachments) == 2),
    Example(program="add_floating_disk.py", holds=lambda world: world.disk("mydisk").status == "ok"),
    Example(
        program="add_disks.py",
        arguments=("-c", "lab", "--sd-name", "mydata", "--format", "qcow2", "--sparse", "--count", "3"),
        holds=says("All disks are ready"),
    ),
    Example(
        program="delete_disks.py",
        arguments=("-c", "lab", "--sd-name", "mydata"),
        before=many_disks,
        holds=says("All disks were removed"),
    ),
    Example(
        program="download_vm_ovf.py",
        holds=lambda world: "<Name>myvm</Name>" in next(world.home.glob("*.ovf")).read_text(),
    ),
    Example(
        program="add_group.py",
        holds=lambda world: len(world.sdk.groups_service().list(search="name=mygroup")) == 1,
    ),
    Example(
        program="assign_permission.py",
        holds=lambda world: (
            [(world.state.roles[item.role_id].name, item.on[0]) for item in world.held_by("myuser")]
            == [("GlusterAdmin", "network")]
        ),
    ),
    Example(
        program="add_user_ssh_public_key.py",
        refused="The given SSH public key is invalid.",
        holds=lambda world: not world.named(world.state.users, "myuser").ssh_keys,
    ),
    Example(
        program="start_vm_with_cloud_init.py",
        holds=lambda world: world.record("myvm").once.initialization.fields["host_name"] == "myvm.example.com",
    ),
    Example(
        program="add_vm_with_sysprep.py",
        before=emptied_for_template,
        holds=lambda world: (
            world.record("myvm").once.initialization_type == "sysprep"
            and "<unattend" in world.record("myvm").once.initialization.fields["custom_script"]
        ),
    ),
    Example(
        program="remove_host.py",
        before=in_maintenance,
        holds=lambda world: world.named(world.state.hosts, "myhost") is None,
    ),
    Example(program="add_role.py", holds=lambda world: world.named(world.state.roles, "myrole")),
    Example(program="sparsify_disk.py", before=plugged, holds=lambda world: 1325 in world.lab.codes()),
    Example(
        program="list_disk_snapshots.py", arguments=("-c", "lab", "{disk}"), before=snapped, holds=says('"parent": "')
    ),
    Example(program="list_vm_snapshots.py", before=snapped, holds=says("mysnap", "myvm_system", "mydata")),
    Example(
        program="vm_backup.py",
        before=two_running,
        holds=lambda world: (
            world.wait(lambda: not world.state.snapshots and world.record("myvm").status == "up") is None
            and not world.record("myagent").snapshot_disks
            and world.lab.codes().count(2016) == world.lab.codes().count(2018) == 1
            and [event.origin for event in world.state.events].count("mybackup") == 2
        ),
    ),
    Example(
        program="clone_vm_from_snapshot.py",
        before=snapped,
        holds=lambda world: len(world.record("myclonedvm").attachments) == len(world.record("myvm").attachments) > 0,
    ),
    Example(program="add_vm_snapshot.py", holds=lambda world: len(world.state.snapshots) == 1),
    Example(
        program="add_template.py",
        holds=lambda world: len(world.named(world.state.templates, "mytemplate").attachments) == 1,
    ),
    Example(
        program="add_independet_vm.py",
        before=template,
        holds=lambda world: world.wait(lambda: world.record("myclonedvm").status == "down") is None,
    ),
    Example(
        program="add_vm_from_template_version.py",
        before=third_version,
        holds=lambda world: len(world.record("myvm").attachments) == 1,
    ),
    Example(
        program="change_master.py",
        arguments=("-c", "lab", "mydc", "bs-scsi-012"),
        holds=lambda world: world.named(world.state.storage_domains, "bs-scsi-012").master,
    ),
    Example(
        program="data_center_maintenance.py",
        before=all_running,
        holds=lambda world: (
            world.wait(
                lambda: all(item.status == "maintenance" for item in world.state.hosts.values()),
            )
            is None
        ),
    ),
    Example(
        program="add_instance_type.py",
        holds=lambda world: (
            world.sdk.instance_types_service().list(search="name=myinstancetype")[0].cpu.topology.sockets == 2
        ),
    ),
    Example(
        program="add_openstack_image_provider.py",
        holds=lambda world: "myglance" in str(world.state.stored["openstack_image_provider"]),
    ),
    Example(
        program="upgrade_host.py",
        before=with_updates,
        holds=lambda world: (
            world.wait(lambda: {197, 888, 13} <= set(world.lab.codes())) is None
            and world.named(world.state.hosts, "myhost").status == "up"
            and not world.named(world.state.hosts, "myhost").update_available
        ),
    ),
    Example(
        program="poll_events.py",
        before=tag,
        endless=True,
        holds=lambda world: (world.home / "index.txt").exists() and (world.home / "index.txt").read_text(),
    ),
)

ELSEWHERE = {
    "cancel_transfer.py": "engine_backups/test_engine_backups_sdk_examples.py, of a paused upload",
    "checksum_disk.py": "engine_backups/test_engine_backups_sdk_examples.py, with real data",
    "image_transfer.py": "engine_backups/test_engine_backups_sdk_examples.py, with real data",
    "download_disk_snapshot.py": "engine_backups/test_engine_backups_sdk_examples.py, with real data",
    "backup_vm.py": "engine_backups/test_engine_backups_sdk_examples.py, with real data",
    "checkpoints.py": "engine_backups/test_engine_backups_sdk_examples.py, with real data",
    "download_disk.py": "engine_backups/test_engine_backups_sdk_examples.py, with real data",
    "upload_disk.py": "engine_backups/test_engine_backups_sdk_examples.py, with real data",
}

LEFT_OUT = {
    "add_nfs_data_storage_domain.py": "makes a domain on an NFS server of its own: the lab's are made when it starts",
    "add_nfs_iso_storage_domain.py": "ISO domains are not in the lab",
    "attach_nfs_data_storage_domain.py": "a domain on an NFS server of its own: the lab's are made when it starts",
    "attach_nfs_iso_storage_domain.py": "ISO domains are not in the lab",
    "checksum_image.py": "does not speak to an engine: it reads a local image",
    "export_template.py": "export domains are not in the lab",
    "export_template_as_ova.py": "OVA files are not in the lab",
    "export_vm.py": "export domains are not in the lab",
    "export_vm_as_ova.py": "OVA files are not in the lab",
    "import_template_from_ova.py": "OVA files are not in the lab",
    "import_vm.py": "export domains are not in the lab",
    "import_vm_from_ova.py": "OVA files are not in the lab",
    "reduce_disk.py": "block storage: the lab has file domains only",
    "register_vm.py": "imports from a domain's own OVF store, which the lab's domains lack",
    "upload_from_ova.py": "OVA files are not in the lab",
    "upload_ova_as_vm_or_template.py": "OVA files are not in the lab",
    "add_bond.py": "bonds and addresses of hosts' NICs: the lab's networks are made when it starts",
    "add_host.py": "installs a host over SSH: the lab's hosts are made when it starts",
    "add_iscsi_data_storage_domain.py": "iSCSI: the lab has file domains only",
    "add_lun_disk_to_vm.py": "iSCSI: the lab has file domains only",
    "add_vm_pool.py": "VM pools are not in the lab",
    "fix_dup_nic_macs.py": "Python 2 only: it calls dict.iteritems",
    "import_glance_image.py": "needs OpenStack Glance",
    "import_vm_from_vmware.py": "needs VMware",
    "list_glance_images.py": "needs OpenStack Glance",
    "reprovision_stateless_vm_in_pool.py": "VM pools are not in the lab",
}
