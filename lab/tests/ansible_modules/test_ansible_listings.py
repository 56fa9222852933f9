# SPDX-License-Identifier: GPL-3.0-or-later
"""Every `_info` module of the collection, with and without what narrows it."""

from __future__ import annotations

from typing import Any

import pytest
from lab.tests.ansible_modules.collection import COLLECTIONS, Modules

# What each module is asked for, the result that holds what it found, and names among it.
LISTINGS: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("affinity_label", {}, "ovirt_affinity_labels", []),
    ("affinity_label", {"name": "x*"}, "ovirt_affinity_labels", []),
    ("cluster", {}, "ovirt_clusters", ["Default"]),
    ("cluster", {"pattern": "name=Def*"}, "ovirt_clusters", ["Default"]),
    ("datacenter", {}, "ovirt_datacenters", ["Default"]),
    ("datacenter", {"pattern": "clusters.name=Default"}, "ovirt_datacenters", ["Default"]),
    ("disk", {}, "ovirt_disks", ["d1", "d2"]),
    ("disk", {"pattern": "name=d1 and storage.name=data"}, "ovirt_disks", ["d1"]),
    ("external_provider", {"type": "os_image"}, "ovirt_external_providers", []),
    ("external_provider", {"type": "os_network", "name": "x*"}, "ovirt_external_providers", []),
    ("external_provider", {"type": "os_volume"}, "ovirt_external_providers", []),
    ("external_provider", {"type": "foreman"}, "ovirt_external_providers", []),
    ("group", {}, "ovirt_groups", ["Everyone", "operators"]),
    ("group", {"pattern": "name=operators"}, "ovirt_groups", ["operators"]),
    ("host", {}, "ovirt_hosts", ["alpha", "beta"]),
    ("host", {"pattern": "name=alpha and status=up", "cluster_version": "4.7"}, "ovirt_hosts", ["alpha"]),
    ("host_storage", {"host": "alpha"}, "ovirt_host_storages", []),
    ("network", {}, "ovirt_networks", ["ovirtmgmt"]),
    ("network", {"pattern": "name=ovirtmgmt"}, "ovirt_networks", ["ovirtmgmt"]),
    ("nic", {"vm": "plain"}, "ovirt_nics", ["nic1"]),
    ("nic", {"vm": "plain", "name": "nic*"}, "ovirt_nics", ["nic1"]),
    ("quota", {"data_center": "Default"}, "ovirt_quotas", []),
    ("quota", {"data_center": "Default", "name": "x*"}, "ovirt_quotas", []),
    ("scheduling_policy", {}, "ovirt_scheduling_policies", ["none", "power_saving"]),
    ("scheduling_policy", {"name": "ev*"}, "ovirt_scheduling_policies", ["evenly_distributed"]),
    ("storage_domain", {}, "ovirt_storage_domains", ["data", "data2"]),
    ("storage_domain", {"pattern": "name=data and datacenter=Default"}, "ovirt_storage_domains", ["data"]),
    ("storage_template", {"storage_domain": "data", "unregistered": True}, "ovirt_storage_templates", []),
    ("storage_vm", {"storage_domain": "data", "unregistered": True}, "ovirt_storage_vms", []),
    ("tag", {}, "ovirt_tags", ["root"]),
    ("tag", {"vm": "plain"}, "ovirt_tags", []),
    ("tag", {"host": "alpha"}, "ovirt_tags", []),
    ("template", {}, "ovirt_templates", ["Blank"]),
    ("template", {"pattern": "vm.name=plain"}, "ovirt_templates", ["Blank"]),
    ("user", {}, "ovirt_users", ["admin", "joe"]),
    ("user", {"pattern": "usrname=joe@internal"}, "ovirt_users", ["joe"]),
    ("vm", {}, "ovirt_vms", ["plain", "idle"]),
    ("vm", {"pattern": "name=pl* cluster=Default", "max": 1, "case_sensitive": False}, "ovirt_vms", ["plain"]),
    ("vm_os", {"filter_keys": ["name"]}, "ovirt_operating_systems", ["other_linux"]),
    ("vmpool", {}, "ovirt_vm_pools", []),
    ("vmpool", {"pattern": "name=x"}, "ovirt_vm_pools", []),
    ("vnic_profile", {}, "ovirt_vnic_profiles", ["ovirtmgmt"]),
    ("vnic_profile", {"name": "ovirtmgmt", "max": 3}, "ovirt_vnic_profiles", ["ovirtmgmt"]),
]
# Those whose results have no names, asked for in tests of their own.
OTHERS = {"api", "event", "permission", "snapshot", "system_option"}


def test_every_listing_is_asked_for() -> None:
    folder = COLLECTIONS / "ansible_collections/ovirt/ovirt/plugins/modules"
    there = {path.stem.removeprefix("ovirt_").removesuffix("_info") for path in folder.glob("*_info.py")}
    if not there:
        pytest.skip("the ovirt.ovirt collection is not here: run `setup/ansible-for-tests`")
    assert there == {name for name, *_ in LISTINGS} | OTHERS


def test_listings(modules: Modules) -> None:
    for name, arguments, key, wanted in LISTINGS:
        found = [item["name"] for item in modules.run(f"{name}_info", **arguments)[key]]
        assert set(wanted) <= set(found), f"{name} {arguments}: {found}"
        if not wanted:
            assert found == [], f"{name} {arguments}: {found}"


def test_the_api_and_its_options(modules: Modules) -> None:
    assert modules.run("api_info")["ovirt_api"]["product_info"]["version"]["major"] == 4
    options = modules.run("system_option_info", name="UseHybridBackup", version="4.7")["ovirt_system_option"]
    assert [item["version"] for item in options["values"]] == ["4.7"]
    assert "Could not find the option" in modules.attempt("system_option_info", name="NoSuchOption")["msg"]


def test_permissions(modules: Modules) -> None:
    found = modules.run("permission_info", user_name="joe", authz_name="internal")["ovirt_permissions"]
    assert [item["role"] for item in found if item.get("vm") == "plain"] == ["UserVmManager"]
    found = modules.run("permission_info", group_name="operators", authz_name="internal")["ovirt_permissions"]
    assert "UserVmManager" in [item["role"] for item in found]


def test_what_belongs_to_a_vm_is_fetched_by_links(modules: Modules) -> None:
    (vm,) = modules.run("vm_info", pattern="name=plain", fetch_nested=True, nested_attributes=["name"])["ovirt_vms"]
    assert (vm["cluster"]["name"], vm["host"]["name"], vm["nics"][0]["name"]) == ("Default", "alpha", "nic1")
    follow = ["disk_attachments.disk", "nics", "host", "cluster.data_center", "permissions.role", "tags", "snapshots"]
    (vm,) = modules.run("vm_info", pattern="name=plain", follow=follow)["ovirt_vms"]
    assert vm["disk_attachments"][0]["disk"]["name"] == "d1"
    assert (vm["host"]["name"], vm["cluster"]["data_center"]["name"]) == ("alpha", "Default")
    assert "UserVmManager" in [item["role"]["name"] for item in vm["permissions"]]
    (vm,) = modules.run("vm_info", pattern="name=idle", all_content=True, next_run=True, current_cd=True)["ovirt_vms"]
    assert (vm["status"], vm["current_cd"]["vm"]["id"]) == ("down", vm["id"])


@pytest.mark.parametrize("kind", ["cluster", "datacenter", "host", "network", "storage_domain", "template", "user"])
def test_what_belongs_to_others_is_fetched_by_links(modules: Modules, kind: str) -> None:
    found = modules.run(f"{kind}_info", fetch_nested=True, nested_attributes=["name", "id"])
    assert all(item["permissions"] for item in found[f"ovirt_{kind}s"])
