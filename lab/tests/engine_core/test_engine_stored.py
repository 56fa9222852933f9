# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine only stores: profiles, QoS, policies, providers, watchdogs, labels; and what it knows of itself."""

from __future__ import annotations

from typing import Any

import httpx
import ovirtsdk4
import pytest
from ovirtsdk4 import types

JSON = {"Accept": "application/json"}


def first(service: Any, name: str) -> Any:
    return next(item for item in service.list() if item.name == name)


def test_a_disk_profile_has_the_qos_of_its_data_center(system: Any) -> None:
    center = first(system.data_centers_service(), "Default")
    qoss = system.data_centers_service().data_center_service(center.id).qoss_service()
    qos = qoss.add(types.Qos(name="slow", type=types.QosType.STORAGE, max_iops=100))
    with pytest.raises(ovirtsdk4.Error, match="already in use"):
        qoss.add(types.Qos(name="slow", type=types.QosType.STORAGE))
    assert qoss.qos_service(qos.id).get().max_iops == 100
    domain = first(system.storage_domains_service(), "data")
    wanted = types.DiskProfile(name="cheap", qos=qos, storage_domain=types.StorageDomain(id=domain.id))
    profile = system.disk_profiles_service().add(wanted)
    inside = system.storage_domains_service().storage_domain_service(domain.id).disk_profiles_service()
    assert [item.name for item in inside.list()] == ["data", "cheap"]
    assert system.disk_profiles_service().disk_profile_service(profile.id).get().qos.id == qos.id
    qoss.qos_service(qos.id).remove()
    assert system.disk_profiles_service().disk_profile_service(profile.id).get().qos is None


def test_a_profile_needs_its_domain(system: Any) -> None:
    with pytest.raises(ovirtsdk4.Error, match="required for add"):
        system.disk_profiles_service().add(types.DiskProfile(name="lost"))


def test_every_cluster_has_a_cpu_profile_of_its_name(system: Any) -> None:
    center = first(system.data_centers_service(), "Default")
    made = system.clusters_service().add(types.Cluster(name="second", data_center=types.DataCenter(id=center.id)))
    inside = system.clusters_service().cluster_service(made.id).cpu_profiles_service()
    assert [profile.name for profile in inside.list()] == ["second"]
    system.clusters_service().cluster_service(made.id).remove()
    assert [profile.name for profile in system.cpu_profiles_service().list()] == ["Default"]


@pytest.mark.parametrize(
    "collection", ["openstackimageproviders", "openstacknetworkproviders", "externalhostproviders"]
)
def test_a_provider_is_kept_without_its_password(http: httpx.Client, collection: str) -> None:
    assert http.get(collection, headers=JSON).json() == {}
    body = {"name": "glance", "url": "http://a", "requires_authentication": "true", "username": "u", "password": "hush"}
    made = http.post(collection, json=body, headers=JSON).json()
    answer = http.put(f"{collection}/{made['id']}", json={"url": "http://b"}, headers=JSON)
    assert (answer.json()["url"], answer.json()["username"]) == ("http://b", "u")
    assert "hush" not in http.get(collection, headers=JSON).text
    assert http.delete(f"{collection}/{made['id']}").status_code == 200
    assert http.get(f"{collection}/{made['id']}").status_code == 404


def test_the_usual_scheduling_policies_are_there(system: Any) -> None:
    found = {item.name: item.default_policy for item in system.scheduling_policies_service().list()}
    assert {"none", "evenly_distributed", "power_saving"} <= found.keys()
    assert [name for name, default in found.items() if default] == ["none"]


def test_a_vm_has_one_watchdog(system: Any, lab: Any) -> None:
    service = system.vms_service().vm_service(lab.vm_id("db")).watchdogs_service()
    wanted = types.Watchdog(model=types.WatchdogModel.I6300ESB, action=types.WatchdogAction.RESET)
    made = service.add(wanted)
    with pytest.raises(ovirtsdk4.Error, match="one already"):
        service.add(wanted)
    service.watchdog_service(made.id).update(types.Watchdog(action=types.WatchdogAction.PAUSE))
    assert [item.action for item in service.list()] == [types.WatchdogAction.PAUSE]
    assert system.vms_service().vm_service(lab.vm_id("web")).watchdogs_service().list() == []


def test_parameters_of_a_filter_go_with_their_nic(system: Any, lab: Any) -> None:
    nics = system.vms_service().vm_service(lab.vm_id("db")).nics_service()
    nic = nics.list()[0]
    parameters = nics.nic_service(nic.id).network_filter_parameters_service()
    parameters.add(types.NetworkFilterParameter(name="IP", value="10.0.0.1"))
    parameters.add(types.NetworkFilterParameter(name="IP", value="10.0.0.2"))
    assert [item.value for item in parameters.list()] == ["10.0.0.1", "10.0.0.2"]
    nics.nic_service(nic.id).remove()
    with pytest.raises(ovirtsdk4.NotFoundError):
        parameters.list()
    assert not lab.engine.state.stored["network_filter_parameter"]


def test_a_network_has_one_label(system: Any) -> None:
    network = first(system.networks_service(), "ovirtmgmt")
    labels = system.networks_service().network_service(network.id).network_labels_service()
    labels.add(types.NetworkLabel(id="blue"))
    with pytest.raises(ovirtsdk4.Error, match="already labeled"):
        labels.add(types.NetworkLabel(id="red"))
    assert [item.id for item in labels.list()] == ["blue"]
    assert [item.name for item in system.networks_service().list(search="label=blue")] == ["ovirtmgmt"]
    labels.label_service("blue").remove()
    assert labels.list() == []


def test_options_are_the_engines_settings(system: Any, lab: Any) -> None:
    options = system.options_service()
    lab.engine.state.settings.client_inactivity_timeout = 77
    (value,) = options.option_service("TransferImageClientInactivityTimeoutInSeconds").get().values
    assert (value.version, value.value) == ("general", "77")
    lab.engine.state.settings.use_hybrid_backup = True
    hybrid = {item.version: item.value for item in options.option_service("UseHybridBackup").get().values}
    assert (hybrid["4.6"], hybrid["4.7"]) == ("false", "true")
    assert len(options.option_service("UseHybridBackup").get(version="4.7").values) == 1
    with pytest.raises(ovirtsdk4.NotFoundError):
        options.option_service("NoSuchOption").get()


def test_levels_name_all_permits(system: Any) -> None:
    levels = system.cluster_levels_service()
    assert [level.id for level in levels.list()][-1] == "4.8"
    permits = {permit.name: permit.administrative for permit in levels.level_service("4.3").get().permits}
    assert (permits["backup_disk"], permits["run_vm"]) == (True, False)


def test_instance_types_are_found_by_their_name(system: Any) -> None:
    (large,) = system.instance_types_service().list(search="name=Large")
    assert (large.memory, large.cpu.topology.sockets) == (8 << 30, 2)
    assert system.instance_types_service().list(search='name="Huge"') == []
