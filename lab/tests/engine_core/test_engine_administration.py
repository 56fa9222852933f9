# SPDX-License-Identifier: GPL-3.0-or-later
"""What administrators make and change: networks, pools, labels, groups, quotas, hosts; and what VMs keep."""

from __future__ import annotations

from typing import Any

import httpx
import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirtlab.engine.records import ImageTransfer


def find(collection: Any, name: str) -> Any:
    return next(item for item in collection if item.name == name)


def test_a_network_belongs_to_the_clusters_it_is_assigned_to(system: Any) -> None:
    cluster = system.clusters_service().list()[0]
    data_center = types.DataCenter(name="Default")
    network = system.networks_service().add(types.Network(name="blue", data_center=data_center, vlan=types.Vlan(id=7)))
    assert find(system.vnic_profiles_service().list(), "blue").network.id == network.id
    inside = system.clusters_service().cluster_service(cluster.id).networks_service()
    assert [item.name for item in inside.list()] == ["ovirtmgmt"]
    inside.add(types.Network(id=network.id, required=False))
    assert find(inside.list(), "blue").required is False
    with pytest.raises(ovirtsdk4.Error, match="already attached"):
        inside.add(types.Network(id=network.id))
    inside.network_service(network.id).remove()
    system.networks_service().network_service(network.id).remove()
    assert [item.name for item in system.vnic_profiles_service().list()] == ["ovirtmgmt"]


def test_the_management_network_stays(system: Any) -> None:
    network = system.networks_service().list()[0]
    with pytest.raises(ovirtsdk4.Error, match="management network"):
        system.networks_service().network_service(network.id).remove()


def test_a_mac_pool_in_use_stays(system: Any) -> None:
    span = types.Range(from_="02:00:00:00:00:00", to="02:00:00:00:00:ff")
    pool = system.mac_pools_service().add(types.MacPool(name="mine", ranges=[span]))
    cluster = system.clusters_service().list()[0]
    service = system.clusters_service().cluster_service(cluster.id)
    assert service.update(types.Cluster(mac_pool=types.MacPool(id=pool.id))).mac_pool.id == pool.id
    with pytest.raises(ovirtsdk4.Error, match="used by a Cluster"):
        system.mac_pools_service().mac_pool_service(pool.id).remove()


def test_a_cluster_with_hosts_stays(system: Any) -> None:
    cluster = system.clusters_service().list()[0]
    with pytest.raises(ovirtsdk4.Error, match="hosts belong to it"):
        system.clusters_service().cluster_service(cluster.id).remove()


def test_an_affinity_group_keeps_its_vms(system: Any, lab: Any) -> None:
    cluster = system.clusters_service().list()[0]
    groups = system.clusters_service().cluster_service(cluster.id).affinity_groups_service()
    group = groups.add(types.AffinityGroup(name="apart", positive=False, enforcing=True))
    vms = groups.group_service(group.id).vms_service()
    vms.add(types.Vm(id=lab.vm_id("web")))
    assert [(vm.id, vm.name) for vm in vms.list()] == [(lab.vm_id("web"), "web")]
    vms.vm_service(lab.vm_id("web")).remove()
    assert vms.list() == []
    assert groups.list()[0].enforcing is True


@pytest.mark.parametrize(("positive", "host"), [(True, 0), (False, 1)])
def test_vms_start_together_or_apart_as_their_group_says(system: Any, lab: Any, positive: bool, host: int) -> None:
    cluster = system.clusters_service().list()[0]
    groups = system.clusters_service().cluster_service(cluster.id).affinity_groups_service()
    group = groups.add(types.AffinityGroup(name="pair", positive=positive, enforcing=True))
    members = groups.group_service(group.id).vms_service()
    for name in ("web", "db"):
        members.add(types.Vm(id=lab.vm_id(name)))
    lab.engine.state.vms[lab.vm_id("db")].home_host_id = lab.hosts[1 - host].id
    db = system.vms_service().vm_service(lab.vm_id("db"))
    db.start()
    assert db.get().host.id == lab.hosts[host].id


def test_a_vm_that_its_group_leaves_no_host_is_not_started(system: Any, lab: Any) -> None:
    cluster = system.clusters_service().list()[0]
    groups = system.clusters_service().cluster_service(cluster.id).affinity_groups_service()
    rule = types.AffinityRule(enabled=True, positive=False, enforcing=True)
    vms = [types.Vm(id=lab.vm_id("db"))]
    hosts = [types.Host(id=host.id) for host in lab.hosts]
    group = groups.add(types.AffinityGroup(name="nowhere", hosts_rule=rule, vms=vms, hosts=hosts))
    assert len(groups.group_service(group.id).get().hosts) == 2
    with pytest.raises(ovirtsdk4.Error, match="no host that satisfies current scheduling constraints"):
        system.vms_service().vm_service(lab.vm_id("db")).start()


def test_a_limit_of_nothing_is_the_whole_quota(system: Any) -> None:
    data_center = system.data_centers_service().list()[0]
    quotas = system.data_centers_service().data_center_service(data_center.id).quotas_service()
    quota = quotas.add(types.Quota(name="small"))
    limits = quotas.quota_service(quota.id).quota_cluster_limits_service()
    limit = limits.add(types.QuotaClusterLimit(memory_limit=4.0, vcpu_limit=8))
    assert (limit.id, limit.memory_limit, limit.vcpu_limit) == (quota.id, 4.0, 8)
    limits.limit_service(limit.id).remove()
    assert limits.list() == []


def test_a_host_goes_into_maintenance_when_its_last_vm_has_gone(system: Any, lab: Any) -> None:
    host = find(system.hosts_service().list(), "host1")
    service = system.hosts_service().host_service(host.id)
    lab.engine.state.vms[lab.vm_id("web")].status = "up"
    lab.engine.state.vms[lab.vm_id("web")].host_id = host.id
    service.deactivate()
    assert service.get().status == types.HostStatus.PREPARING_FOR_MAINTENANCE
    lab.engine.state.vms[lab.vm_id("web")].host_id = ""
    lab.wait(lambda: service.get().status == types.HostStatus.MAINTENANCE)
    service.activate()
    lab.wait(lambda: service.get().status == types.HostStatus.UP)


def test_a_domain_with_transfers_stays_active(system: Any, lab: Any) -> None:
    disk = next(iter(lab.engine.state.disks.values()))
    domain = next(item for item in system.storage_domains_service().list() if item.id == disk.storage_domain_id)
    data_center = system.data_centers_service().data_center_service(domain.data_centers[0].id)
    service = data_center.storage_domains_service().storage_domain_service(domain.id)
    transfer = ImageTransfer(id=lab.engine.state.new_id(), disk_id=disk.id, direction="download", phase="transferring")
    lab.engine.state.transfers[transfer.id] = transfer
    try:
        with pytest.raises(
            ovirtsdk4.Error, match="Please pause or cancel all active disk uploads and downloads"
        ) as caught:
            service.deactivate()
        assert caught.value.code == 409
    finally:
        del lab.engine.state.transfers[transfer.id]


def test_what_the_lab_does_not_do_is_kept_and_shown(system: Any, lab: Any) -> None:
    service = system.vms_service().vm_service(lab.vm_id("db"))
    service.update(
        types.Vm(high_availability=types.HighAvailability(priority=50), time_zone=types.TimeZone(name="CET"))
    )
    service.update(types.Vm(high_availability=types.HighAvailability(enabled=True)))
    vm = service.get()
    assert (vm.high_availability.priority, vm.high_availability.enabled, vm.time_zone.name) == (50, True, "CET")
    pinned = types.VmPlacementPolicy(hosts=[types.Host(name="nowhere")])
    with pytest.raises(ovirtsdk4.Error, match="nowhere does not exist"):
        service.update(types.Vm(placement_policy=pinned))


def test_statistics_have_the_forms_of_both_languages(lab: Any, http: httpx.Client) -> None:
    found = http.get(f"vms/{lab.vm_id('web')}/statistics", headers={"Accept": "application/json"}).json()["statistic"]
    memory = find([types.Statistic(name=item["name"], description=str(item)) for item in found], "memory.installed")
    assert "'datum': " in memory.description
    assert "<unit>bytes</unit>" in http.get(f"vms/{lab.vm_id('web')}/statistics").text


def test_an_affinity_group_has_a_rule_for_vms_and_one_for_hosts(system: Any, lab: Any) -> None:
    cluster, host = system.clusters_service().list()[0], find(system.hosts_service().list(), "host2")
    groups = system.clusters_service().cluster_service(cluster.id).affinity_groups_service()
    wanted = types.AffinityGroup(
        name="home",
        vms=[types.Vm(id=lab.vm_id("web"))],
        hosts=[types.Host(id=host.id)],
        hosts_rule=types.AffinityRule(enabled=True, positive=True, enforcing=False),
    )
    group = groups.group_service(groups.add(wanted).id)
    made = group.get()
    assert [item.id for item in made.hosts] == [host.id]
    assert (made.vms_rule.enabled, made.positive, made.hosts_rule.positive) == (False, None, True)
    assert [item.name for item in group.hosts_service().list()] == [host.name]
    assert made.broken is True  # the VM runs on host1
    group.update(types.AffinityGroup(hosts_rule=types.AffinityRule(enabled=False)))
    assert group.get().broken is False
    group.update(types.AffinityGroup(positive=False, enforcing=True))
    assert (group.get().vms_rule.enabled, group.get().vms_rule.enforcing) == (True, True)
    label = system.affinity_labels_service().add(types.AffinityLabel(name="near", has_implicit_affinity_group=True))
    assert (label.has_implicit_affinity_group, label.read_only) == (True, False)
    plain = system.affinity_labels_service().label_service(label.id)
    assert not plain.update(types.AffinityLabel(has_implicit_affinity_group=False)).has_implicit_affinity_group
    group.vm_labels_service().add(types.AffinityLabel(id=label.id))
    assert [item.id for item in group.get().vm_labels] == [label.id]
    system.affinity_labels_service().label_service(label.id).remove()
    assert group.vm_labels_service().list() == []


def test_a_cluster_keeps_what_is_not_named(system: Any) -> None:
    service = system.clusters_service().cluster_service(system.clusters_service().list()[0].id)
    even = find(system.scheduling_policies_service().list(), "evenly_distributed")
    service.update(types.Cluster(ksm=types.Ksm(enabled=False), scheduling_policy=even, comment="ours"))
    found = service.get()
    assert (found.ksm.enabled, found.ksm.merge_across_nodes, found.comment) == (False, True, "ours")
    assert (found.scheduling_policy.id, found.fencing_policy.skip_if_connectivity_broken.threshold) == (even.id, 50)


def test_a_data_center_is_changed(system: Any) -> None:
    service = system.data_centers_service().data_center_service(system.data_centers_service().list()[0].id)
    service.update(types.DataCenter(quota_mode=types.QuotaModeType.AUDIT, comment="ours"))
    assert (service.get().quota_mode, service.get().comment) == (types.QuotaModeType.AUDIT, "ours")


def test_a_vnic_profile_filters_unless_told_not_to(system: Any) -> None:
    network = system.networks_service().list()[0]
    made = system.vnic_profiles_service().add(types.VnicProfile(name="open", network=types.Network(id=network.id)))
    service = system.vnic_profiles_service().profile_service(made.id)
    filters = {item.id: item.name for item in system.network_filters_service().list()}
    assert filters[service.get().network_filter.id] == "vdsm-no-mac-spoofing"
    service.update(types.VnicProfile(network_filter=types.NetworkFilter(), port_mirroring=True, description="x"))
    found = service.get()
    assert (found.network_filter, found.port_mirroring, found.pass_through.mode.value) == (None, True, "disabled")
    assert service.update(types.VnicProfile(description="")).description is None


def test_a_network_loses_its_vlan_by_an_empty_one(http: httpx.Client) -> None:
    json = {"Accept": "application/json"}
    wanted = {"name": "blue", "data_center": {"name": "Default"}, "vlan": {"id": 7}, "comment": "ours"}
    made = http.post("networks", json=wanted, headers=json).json()
    assert (made["vlan"]["id"], made["comment"]) == ("7", "ours")
    changed = http.put(f"networks/{made['id']}", json={"vlan": {}}, headers=json).json()
    assert "vlan" not in changed
