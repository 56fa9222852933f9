# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's modules for what administrators look after: people, places, networks, hosts and policies."""

from __future__ import annotations

from typing import Any

from lab.tests.ansible_modules.collection import Modules


def test_tags(modules: Modules) -> None:
    modules.once("tag", name="metal", description="one", vms=["plain"], hosts=["alpha"])
    modules.once("tag", name="gold", parent="metal", vms=["idle"])
    assert {vm["name"] for vm in modules.run("vm_info", pattern="tag=metal")["ovirt_vms"]} == {"plain", "idle"}
    assert [tag["name"] for tag in modules.run("tag_info", host="alpha")["ovirt_tags"]] == ["metal"]
    modules.once("tag", name="metal", state="detached", vms=["plain"])
    modules.once("tag", name="metal", hosts=[])
    modules.once("tag", name="metal", state="absent")
    assert modules.run("tag_info", name="gold")["ovirt_tags"] == []


def test_permissions(modules: Modules) -> None:
    joe = {"user_name": "joe", "authz_name": "internal"}
    places: list[dict[str, Any]] = [
        {"object_type": "vm", "object_name": "idle"},
        {"object_type": "disk", "object_name": "d1"},
        {"object_type": "cluster", "object_name": "Default"},
        {"object_type": "data_center", "object_name": "Default"},
        {"object_type": "host", "object_name": "alpha"},
        {"object_type": "storage_domain", "object_name": "data"},
        {"object_type": "network", "object_name": "ovirtmgmt"},
        {"object_type": "vnic_profile", "object_name": "ovirtmgmt"},
        {"object_type": "system"},
    ]
    for place in places:
        modules.once("permission", role="UserTemplateBasedVm", **place, **joe)
        modules.once("permission", role="UserTemplateBasedVm", state="absent", **place, **joe)
    group = {"group_name": "operators", "authz_name": "internal", "object_type": "vm", "object_name": "idle"}
    modules.once("permission", role="UserVmManager", **group)
    modules.once("permission", role="UserVmManager", state="absent", **group)


def test_roles_users_and_groups(modules: Modules) -> None:
    modules.once("role", name="saver", administrative=True, description="d", permits=["backup_disk", "create_vm"])
    modules.once("role", name="saver", administrative=True, permits=["backup_disk"])
    modules.once("role", name="saver", state="absent")
    modules.leaves("user", name="joe", authz_name="internal-authz")
    modules.leaves("group", name="operators", authz_name="internal-authz")


def test_events_and_jobs(modules: Modules) -> None:
    modules.changes("event", description="hello", origin="mon", custom_id=77, severity="warning")
    found = modules.run("event_info", search="message=hello*", max=1)["ovirt_events"]
    assert [(event["origin"], event["severity"]) for event in found] == [("mon", "warning")]
    assert modules.run("event_info", from_=int(found[0]["id"]), search="origin=mon")["ovirt_events"] == []
    modules.changes("event", id=found[0]["id"], state="absent", wait=False)
    modules.changes("job", description="j1", steps=[{"description": "A"}, {"description": "B"}])
    modules.changes("job", description="j1", steps=[{"description": "A", "state": "finished"}])
    modules.changes("job", description="j1", state="finished")


def test_affinity(modules: Modules) -> None:
    modules.once("affinity_label", name="near", vms=["plain"], hosts=["alpha"], cluster="Default")
    for arguments in ({"vm": "plain"}, {"host": "alpha"}, {"name": "n*"}):
        found = modules.run("affinity_label_info", **arguments)["ovirt_affinity_labels"]
        assert [label["name"] for label in found] == ["near"]
    modules.once("affinity_label", name="near", vms=[], cluster="Default")
    modules.once("affinity_label", name="near", state="absent")
    group = {"name": "apart", "cluster": "Default"}
    rules = {"vm_enforcing": True, "vm_rule": "negative", "host_rule": "positive", "host_enforcing": False}
    modules.once("affinity_group", vms=["plain", "idle"], hosts=["alpha"], **rules, **group)
    modules.once("affinity_group", vms=["plain"], description="less", **group)
    modules.once("affinity_group", state="absent", **group)


def test_networks(modules: Modules) -> None:
    network = {"name": "blue", "data_center": "Default"}
    modules.once("network", vlan_tag=7, vm_network=True, clusters=[{"name": "Default", "required": False}], **network)
    modules.once("network", mtu=9000, label="lab", comment="c", vlan_tag=-1, **network)
    modules.changes("network", clusters=[{"name": "Default", "assigned": False}], **network)
    profile = {"name": "open", "network": "blue", "data_center": "Default"}
    modules.once("vnic_profile", description="x", port_mirroring=True, network_filter="", **profile)
    modules.once("vnic_profile", network_filter="allow-arp", **profile)
    modules.changes("vnic_profile", state="absent", **profile)
    assert "was not found" in modules.attempt("vnic_profile", state="absent", **profile)["msg"]
    modules.once("network", state="absent", **network)
    modules.once("mac_pool", name="mine", allow_duplicates=True, ranges=["02:00:00:01:00:00,02:00:00:01:00:ff"])
    modules.once("mac_pool", name="mine", state="absent")


def test_data_centers_and_clusters(modules: Modules) -> None:
    version = {"compatibility_version": "4.7"}
    modules.once("datacenter", name="second", description="d", quota_mode="audit", local=False, **version)
    cluster = {"name": "far", "data_center": "second"}
    modules.once(
        "cluster",
        ballooning=True,
        comment="c",
        cpu_type="Intel Nehalem Family",
        fence_connectivity_threshold=80,
        ksm=False,
        memory_policy="server",
        migration_policy="post_copy",
        resilience_policy="do_not_migrate",
        rng_sources=["random"],
        scheduling_policy="evenly_distributed",
        **version,
        **cluster,
    )
    modules.once("cluster", state="absent", **cluster)
    modules.once("datacenter", name="second", state="absent")


def test_hosts(modules: Modules) -> None:
    modules.once("host", name="beta", state="maintenance")
    modules.once("host", name="beta", state="present", comment="c", spm_priority=3, kdump_integration="disabled")
    agent = {"name": "beta", "address": "192.0.2.1", "type": "ipmilan"}
    modules.once("host_pm", username="u", password="p", options={"lanplus": "1"}, order=1, **agent)
    modules.once("host_pm", state="absent", **agent)


def test_external_providers(modules: Modules) -> None:
    provider = {"name": "glance", "type": "os_image"}
    login = {"url": "http://192.0.2.1:9292", "username": "u", "tenant": "t", "auth_url": "http://192.0.2.1:5000/v3"}
    modules.once("external_provider", password="p", **login, **provider)
    found = modules.run("external_provider_info", type="os_image", name="gl*")["ovirt_external_providers"]
    assert [item["url"] for item in found] == ["http://192.0.2.1:9292"]
    modules.once("external_provider", state="absent", **provider)
