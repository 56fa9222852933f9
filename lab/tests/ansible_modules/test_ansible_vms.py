# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's modules for VMs, their NICs and snapshots, and templates."""

from __future__ import annotations

from typing import Any

from lab.tests.ansible_modules.collection import Modules

CLUSTER = {"cluster": "Default"}
PROPERTIES: dict[str, Any] = {
    "ballooning_enabled": True,
    "bios_type": "q35_ovmf",
    "boot_devices": ["network", "hd"],
    "boot_menu": True,
    "cpu_cores": 2,
    "cpu_mode": "host_passthrough",
    "cpu_pinning": [{"cpu": "0", "vcpu": 0}],
    "cpu_shares": 512,
    "custom_compatibility_version": "4.7",
    "custom_properties": [{"name": "viodiskcache", "value": "writethrough"}],
    "delete_protected": True,
    "description": "d",
    "comment": "c",
    "graphical_console": {"monitors": 2, "protocol": ["vnc"]},
    "high_availability": True,
    "high_availability_priority": 50,
    "host": "alpha",
    "io_threads": 1,
    "lease": "data",
    "wait_after_lease": 0,
    "memory": "128MiB",
    "memory_guaranteed": "64MiB",
    "memory_max": "512MiB",
    "multi_queues_enabled": True,
    "numa_tune_mode": "interleave",
    "operating_system": "rhel_9x64",
    "placement_policy": "pinned",
    "rng_device": "urandom",
    "serial_console": True,
    "serial_policy": "custom",
    "serial_policy_value": "123",
    "soundcard_enabled": False,
    "sso": True,
    "stateless": False,
    "storage_error_resume_behaviour": "kill",
    "timezone": "Etc/GMT",
    "type": "server",
    "usb_support": True,
    "virtio_scsi_enabled": True,
    "virtio_scsi_multi_queues": 2,
    "watchdog": {"model": "i6300esb", "action": "reset"},
}


def test_all_properties_are_kept(modules: Modules) -> None:
    modules.once("vm", name="all", state="stopped", **CLUSTER, **PROPERTIES)
    modules.changes("vm", name="all", numa_nodes=[{"index": 0, "cores": [0], "memory": 64}], delete_protected=False)
    modules.changes("vm", name="all", graphical_console={"headless_mode": True}, watchdog={})
    modules.once("vm", name="all", state="absent")


def test_an_instance_type_counts_more_than_what_is_asked_for(modules: Modules) -> None:
    modules.once("vm", name="typed", state="stopped", instance_type="Tiny", **CLUSTER)
    modules.run("vm", name="typed", memory="128MiB", cpu_cores=2)
    (vm,) = modules.run("vm_info", pattern="name=typed", follow=["instance_type"])["ovirt_vms"]
    assert (vm["instance_type"]["name"], vm["memory"]) == ("Tiny", vm["instance_type"]["memory"])
    assert vm["cpu"]["topology"]["cores"] == 1
    modules.once("vm", name="typed", state="absent")


def test_a_vm_with_disks_nics_and_cloud_init(modules: Modules) -> None:
    modules.changes("disk", name="root", size="16MiB", storage_domain="data")
    setup = {"host_name": "x", "user_name": "root", "root_password": "p", "nic_boot_protocol": "dhcp", "nic_name": "e"}
    wanted = {
        "name": "outfitted",
        "disks": [{"name": "root", "bootable": True}],
        "nics": [{"name": "nic1", "profile_name": "ovirtmgmt", "interface": "e1000"}],
        "memory": "64MiB",
        **CLUSTER,
    }
    modules.once("vm", **wanted)
    modules.changes("vm", name="outfitted", state="running", kernel_params="lab.guest=none", cloud_init=setup)
    (vm,) = modules.run("vm_info", pattern="name=outfitted", follow=["disk_attachments", "nics"])["ovirt_vms"]
    assert (vm["status"], vm["run_once"], vm["disk_attachments"][0]["bootable"]) == ("up", True, True)
    modules.changes("vm", name="outfitted", state="stopped", force=True)
    modules.changes("vm", name="outfitted", state="absent")
    assert modules.run("disk_info", pattern="name=root")["ovirt_disks"] == []


def test_running_suspended_moved_and_stopped(modules: Modules) -> None:
    vm = {"name": "mobile", **CLUSTER}
    modules.once("vm", state="running", memory="64MiB", **vm)
    modules.once("vm", state="suspended", name="mobile")
    modules.once("vm", state="running", name="mobile")
    there = _host_of(modules, "mobile")
    other = "beta" if there == "alpha" else "alpha"
    modules.changes("vm", name="mobile", state="running", host=other)
    assert _host_of(modules, "mobile") == other
    modules.changes("vm", name="mobile", state="reboot")
    modules.changes("vm", name="mobile", memory="96MiB", next_run=True)
    (found,) = modules.run("vm_info", pattern="name=mobile")["ovirt_vms"]
    assert (found["memory"], found["next_run_configuration_exists"]) == (64 << 20, True)
    modules.changes("vm", name="mobile", state="next_run")
    assert modules.run("vm_info", pattern="name=mobile")["ovirt_vms"][0]["memory"] == 96 << 20
    modules.once("vm", name="mobile", state="stopped")
    modules.changes("vm", name="mobile", state="absent")


def _host_of(modules: Modules, name: str) -> str:
    (vm,) = modules.run("vm_info", pattern=f"name={name}", fetch_nested=True, nested_attributes=["name"])["ovirt_vms"]
    found: str = vm["host"]["name"]
    return found


def test_check_mode_and_diff(modules: Modules) -> None:
    modules.changes("vm", name="never", check=True, **CLUSTER)
    modules.changes("vm", name="idle", description="never", check=True)
    modules.changes("tag", name="never", check=True)
    found = modules.run("vm_info", pattern="name=never or description=never")["ovirt_vms"]
    assert (found, modules.run("tag_info", name="never")["ovirt_tags"]) == ([], [])
    diff = modules.changes("vm", name="idle", comment="told", diff=True)["diff"]
    assert (diff["before"]["comment"], diff["after"]["comment"]) == ("", "told")


def test_nics(modules: Modules) -> None:
    nic = {"vm": "idle", "name": "nic2"}
    address = {"mac_address": "02:00:00:00:00:09", "linked": False, "profile": "ovirtmgmt", "network": "ovirtmgmt"}
    modules.once("nic", interface="virtio", **address, **nic)
    modules.once("nic", interface="e1000", **nic)
    modules.once("nic", state="unplugged", **nic)
    modules.once("nic", state="plugged", **nic)
    modules.changes("nic", network_filter_parameters=[{"name": "GATEWAY_MAC", "value": "01"}], **nic)
    found = modules.run("nic_info", vm="idle", name="nic2")["ovirt_nics"]
    assert [(item["interface"], item["linked"], item["plugged"]) for item in found] == [("e1000", False, True)]
    modules.once("nic", state="absent", **nic)


def test_snapshots(modules: Modules) -> None:
    made = modules.changes("snapshot", vm_name="idle", description="before")
    known = {"vm_name": "idle", "snapshot_id": made["id"]}
    modules.changes("vm", name="copy", snapshot_vm="idle", snapshot_name="before", state="stopped", **CLUSTER)
    modules.changes("snapshot", state="restore", **known)
    modules.once("snapshot", state="absent", **known)
    modules.changes("snapshot", vm_name="plain", description="live", use_memory=False, disks=[{"name": "d1"}])
    found = modules.run("snapshot_info", vm="plain", description="li*")["ovirt_snapshots"]
    assert [(item["snapshot_status"], item["vm"]["name"]) for item in found] == [("ok", "plain")]
    assert len(modules.changes("snapshot", vm_name="plain", keep_days_old=-10000)["snapshots"]) == 1
    modules.changes("vm", name="copy", state="absent")


def test_templates(modules: Modules) -> None:
    modules.once("template", name="gold", vm="idle", description="d", **CLUSTER)
    modules.once("template", name="gold", description="changed")
    modules.once("vm", name="thin", template="gold", state="stopped", **CLUSTER)
    clone = {"name": "thick", "clone": True, "storage_domain": "data2", "disk_format": "raw"}
    modules.changes("vm", template="gold", state="stopped", **clone, **CLUSTER)
    (disk,) = modules.run("disk_info", pattern="vm_names=thick and storage.name=data2")["ovirt_disks"]
    assert disk["format"] == "raw"
    assert "being used" in modules.attempt("template", name="gold", state="absent")["msg"]
    for name in ("thin", "thick"):
        modules.changes("vm", name=name, state="absent")
    modules.once("template", name="gold", state="absent")
