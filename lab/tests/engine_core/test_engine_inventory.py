# SPDX-License-Identifier: GPL-3.0-or-later
"""Data centers, hosts and domains, and everything the SDK may follow from the entry point and from a VM."""

from typing import Any

import pytest
from ovirtsdk4 import types

from ovirtlab.engine.app import UnknownSetting, create_engine
from ovirtlab.engine.faults import NotFound
from ovirtlab.environment import parse


def test_the_sdks_way_to_the_local_host(lab: Any, system: Any) -> None:
    data_center = system.data_centers_service().list(search="storage.name=data", case_sensitive=True)[0]
    hw_id = lab.hosts[1].hw_id
    search = f"hw_id={hw_id} and datacenter={data_center.name} and status=Up"
    assert [host.name for host in system.hosts_service().list(search=search, case_sensitive=True)] == ["host2"]
    assert system.data_centers_service().list(search="storage.name=nowhere") == []


def test_status_of_domains_is_told_by_the_data_center_only(system: Any) -> None:
    assert {domain.status for domain in system.storage_domains_service().list()} == {None}
    data_center = system.data_centers_service().list()[0]
    attached = system.data_centers_service().data_center_service(data_center.id).storage_domains_service().list()
    assert {domain.status for domain in attached} == {types.StorageDomainStatus.ACTIVE}
    found = system.storage_domains_service().list(search="name=data and status=active")
    assert found[0].data_centers[0].id == data_center.id
    assert found[0].storage.type == types.StorageType.NFS


def test_every_link_of_the_entry_point_leads_somewhere(lab: Any, http: Any) -> None:
    links = http.get("", headers={"Accept": "application/json"}).json()["link"]
    for link in links:
        if "/search" not in link["rel"]:
            assert http.get(lab.url + link["href"]).status_code == 200, link


@pytest.mark.parametrize(
    "kind",
    [
        "vms",
        "disks",
        "hosts",
        "clusters",
        "datacenters",
        "storagedomains",
        "users",
        "networks",
        "vnicprofiles",
        "roles",
    ],
)
def test_links_of_entities_lead_somewhere(lab: Any, http: Any, kind: str) -> None:
    json = {"Accept": "application/json"}
    for entity in next(iter(http.get(kind, headers=json).json().values())):
        for link in entity["link"]:
            assert http.get(lab.url + link["href"]).status_code == 200, link


def test_version_and_special_objects(system: Any) -> None:
    api = system.get()
    assert (api.product_info.version.major, api.product_info.version.minor) == (4, 5)
    assert api.special_objects.blank_template.id == "00000000-0000-0000-0000-000000000000"
    assert api.authenticated_user.id == api.effective_user.id


def test_engine_describes_itself(lab: Any) -> None:
    told = lab.engine.describe()
    assert told["username"] == "admin@internal"
    assert [vm["name"] for vm in told["vms"]] == ["web", "db"]
    assert told["vms"][0]["status"] == "up"
    assert lab.engine.find_vm("web") == (told["vms"][0]["id"], lab.hosts[0])
    with pytest.raises(NotFound):
        lab.engine.find_vm("nobody")


def test_unknown_setting_is_refused(lab: Any) -> None:
    text = "hosts: [{name: host1}]\nsettings: {warp_speed: 9}\n"
    environment = parse(text, origin="test")
    with pytest.raises(UnknownSetting, match="warp_speed"):
        create_engine(environment, lab.hosts[:1], lab.engine.context.directory, base_url="http://x", ca_pem="")


def test_devices_have_their_statistics(system: Any, lab: Any) -> None:
    """As many as an engine tells of each; the lab measures no traffic, and leaves them at zero."""
    disk = system.disks_service().disk_service(lab.disk_id("web_system"))
    vm = system.vms_service().vm_service(lab.vm_id("web"))
    nic = vm.nics_service().nic_service(vm.nics_service().list()[0].id)
    nics = system.hosts_service().host_service(lab.hosts[0].id).nics_service()
    host_nic = nics.nic_service(nics.list()[0].id)
    for device, tag, count in ((disk, "disk", 7), (nic, "nic", 8), (host_nic, "host_nic", 8)):
        found = device.statistics_service().list()
        assert len({item.id for item in found}) == count
        assert {item.values[0].datum for item in found} == {0.0}
        assert {getattr(item, tag).id for item in found} == {device.get().id}
        again = device.statistics_service().statistic_service(found[-1].id).get()
        assert (again.name, again.unit, again.kind) == (found[-1].name, found[-1].unit, found[-1].kind)
