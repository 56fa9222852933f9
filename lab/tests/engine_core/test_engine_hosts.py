# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts given orders, upgraded, and removed from the engine."""

from __future__ import annotations

from typing import Any

import httpx
import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types


def host(lab: Any, system: Any, number: int) -> Any:
    return system.hosts_service().host_service(lab.hosts[number].id)


def test_a_host_in_maintenance_is_removed(lab: Any, system: Any) -> None:
    second = host(lab, system, 1)
    with pytest.raises(sdk.Error, match="Please switch Host to Maintenance mode first") as refused:
        second.remove()
    assert refused.value.code == 409
    second.deactivate()
    lab.wait(lambda: second.get().status == types.HostStatus.MAINTENANCE)
    second.remove()
    with pytest.raises(sdk.NotFoundError):
        second.get()
    assert 44 in lab.codes()
    db = system.vms_service().vm_service(lab.vm_id("db"))  # it used to run there
    db.start()
    lab.wait(lambda: db.get().status == types.VmStatus.UP)
    assert db.get().host.id == lab.hosts[0].id


def test_a_host_with_vms_bound_to_it_is_not_removed(lab: Any, system: Any) -> None:
    second = host(lab, system, 1)
    policy = types.VmPlacementPolicy(affinity=types.VmAffinity.PINNED, hosts=[types.Host(id=lab.hosts[1].id)])
    system.vms_service().vm_service(lab.vm_id("db")).update(types.Vm(placement_policy=policy))
    second.deactivate()
    lab.wait(lambda: second.get().status == types.HostStatus.MAINTENANCE)
    with pytest.raises(sdk.Error, match="The following VMs are pinned to this Host: db"):
        second.remove()


def test_a_lost_host_is_removed_once_its_vms_are_gone(lab: Any, system: Any) -> None:
    first = host(lab, system, 0)
    lab.engine.state.hosts[lab.hosts[0].id].status = "non_responsive"
    with pytest.raises(sdk.Error, match="One or more VMs are still running on this Host"):
        first.remove()
    system.vms_service().vm_service(lab.vm_id("web")).stop()
    first.remove()
    assert [item.id for item in system.hosts_service().list()] == [lab.hosts[1].id]


def upgradable(lab: Any, system: Any, number: int, *packages: str) -> Any:
    """A host that has updates, as a check has found."""
    lab.engine.state.hosts[lab.hosts[number].id].updates = packages or ("vdsm",)
    service = host(lab, system, number)
    service.upgrade_check()
    lab.wait(lambda: 885 in lab.codes())
    return service


def statuses(lab: Any, service: Any, *expected: types.HostStatus) -> None:
    for status in expected:
        lab.wait(lambda status=status: service.get().status == status)


def told(system: Any, code: int) -> str:
    return next(event.description for event in system.events_service().list() if event.code == code)


def test_a_check_tells_which_updates_there_are(lab: Any, system: Any) -> None:
    first = upgradable(lab, system, 0, *(f"package{number}" for number in range(12)))
    assert first.get().update_available
    assert [item.id for item in system.hosts_service().list(search="update_available=true")] == [lab.hosts[0].id]
    assert told(system, 884) == "Started to check for available updates on host host1."
    packages = ", ".join(f"package{number}" for number in range(10))
    assert told(system, 843) == (
        f"Host host1 has available updates: {packages} and 2 others. To see all packages check engine.log.."
    )
    second = host(lab, system, 1)
    second.upgrade_check()
    lab.wait(lambda: lab.codes().count(885) == 2)
    assert told(system, 885).endswith("on host host2 was completed successfully with message 'no updates found.'.")
    assert not second.get().update_available
    with pytest.raises(sdk.Error, match="There are no available updates for the host") as refused:
        second.upgrade()
    assert refused.value.code == 409


def test_a_host_is_upgraded_rebooted_and_up_again(lab: Any, system: Any) -> None:
    """Its VM has left it before; while it is on its way it takes no other order."""
    web = system.vms_service().vm_service(lab.vm_id("web"))
    assert web.get().host.id == lab.hosts[0].id
    first = upgradable(lab, system, 0)
    first.upgrade()
    statuses(lab, first, types.HostStatus.INSTALLING)
    for order in (first.upgrade, first.upgrade_check):
        with pytest.raises(sdk.Error, match="Valid Host statuses for upgrade") as refused:
            order()
        assert refused.value.code == 409
    statuses(lab, first, types.HostStatus.REBOOT, types.HostStatus.UP)
    assert (web.get().status, web.get().host.id) == (types.VmStatus.UP, lab.hosts[1].id)
    assert not first.get().update_available
    codes = [code for code in lab.codes() if code in (840, 620, 197, 888, 13, 841, 842)]
    assert codes == [840, 620, 197, 888, 13]
    assert told(system, 840) == "Host host1 upgrade was started (User: admin@internal-authz)."


def test_a_host_in_maintenance_stays_there_when_it_is_upgraded(lab: Any, system: Any) -> None:
    second = upgradable(lab, system, 1)
    second.deactivate()
    statuses(lab, second, types.HostStatus.MAINTENANCE)
    second.upgrade(reboot=False)
    lab.wait(lambda: 842 in lab.codes())
    assert second.get().status == types.HostStatus.MAINTENANCE
    assert not second.get().update_available
    assert {197, 888, 13}.isdisjoint(lab.codes())


def test_a_host_that_cannot_be_vacated_is_not_upgraded(lab: Any, system: Any) -> None:
    lab.engine.state.vms[lab.vm_id("web")].affinity = "pinned"
    first = upgradable(lab, system, 0)
    first.upgrade()
    lab.wait(lambda: 841 in lab.codes())
    assert lab.codes()[-2:] == [17, 841]
    assert first.get().status == types.HostStatus.UP
    assert first.get().update_available


def test_an_upgrade_goes_on_over_a_restart_of_the_engine(lab: Any, system: Any) -> None:
    second = upgradable(lab, system, 1)
    second.upgrade()
    statuses(lab, second, types.HostStatus.INSTALLING)
    lab.run(lab.engine.restart())
    connection = lab.connect()
    again = connection.system_service().hosts_service().host_service(lab.hosts[1].id)
    statuses(lab, again, types.HostStatus.UP)
    assert not again.get().update_available
    connection.close()


def test_another_host_is_chosen_to_manage_the_storage(lab: Any, system: Any) -> None:
    first, second = (host(lab, system, number) for number in (0, 1))
    assert [item.get().spm.status.value for item in (first, second)] == ["spm", "none"]
    with pytest.raises(sdk.Error, match="The Host host1 is already SPM or contending") as refused:
        first.force_select_spm()
    assert refused.value.code == 409
    second.force_select_spm()
    assert [item.get().spm.status.value for item in (first, second)] == ["none", "spm"]
    assert lab.codes()[-1] == 159
    second.deactivate()
    statuses(lab, second, types.HostStatus.MAINTENANCE)
    assert first.get().spm.status == types.SpmStatus.SPM
    with pytest.raises(sdk.Error, match="The Host host2 is not active"):
        second.force_select_spm()


def test_orders_that_change_nothing_are_told(lab: Any, system: Any) -> None:
    first = host(lab, system, 0)
    first.refresh()
    assert told(system, 606) == "Successfully refreshed the capabilities of host host1."
    first.commit_net_config()
    assert told(system, 1104) == "Network changes were saved on host host1"


def test_the_upgrade_of_a_cluster_is_marked_while_it_goes_on(lab: Any, system: Any) -> None:
    clusters = system.clusters_service()
    cluster = clusters.cluster_service(clusters.list()[0].id)
    assert (cluster.get().upgrade_in_progress, cluster.get().upgrade_percent_complete) == (False, 0)
    update, start, finish = (types.ClusterUpgradeAction(word) for word in ("update_progress", "start", "finish"))
    with pytest.raises(sdk.Error, match="cluster upgrade has not been started"):
        cluster.upgrade(upgrade_action=update, upgrade_percent_complete=10, correlation_id="mine")
    cluster.upgrade(upgrade_action=start, correlation_id="mine")
    with pytest.raises(sdk.Error, match="Failed to set upgrade running flag"):
        cluster.upgrade(upgrade_action=start, correlation_id="other")
    cluster.upgrade(upgrade_action=update, upgrade_percent_complete=40, correlation_id="mine")
    for refusal, percent, who in (("does not match", 50, "other"), ("in the range of 0 to 100", 101, "mine")):
        with pytest.raises(sdk.Error, match=refusal) as refused:
            cluster.upgrade(upgrade_action=update, upgrade_percent_complete=percent, correlation_id=who)
        assert refused.value.code == 400
    shown = cluster.get()
    assert (shown.upgrade_in_progress, shown.upgrade_percent_complete, shown.upgrade_correlation_id) == (
        True,
        40,
        "mine",
    )
    cluster.upgrade(upgrade_action=finish)
    assert not cluster.get().upgrade_in_progress
    assert [code for code in lab.codes() if code in (892, 894, 896)] == [892, 896, 894]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("approve", {}, 409, "status in order to be approved."),
        ("enrollcertificate", {}, 409, "Cannot enroll certificate Host. Please switch Host to Maintenance mode first."),
        ("fence", {}, 400, "Action [fenceType] required for fence"),
        ("fence", {"fence_type": "kick"}, 400, "'kick' is not a valid fence type."),
        ("fence", {"fence_type": "manual"}, 409, "Cannot confirm 'Host has been rebooted' Host. Valid Host statuses"),
        ("fence", {"fence_type": "restart"}, 409, "disabled., Cannot restart Host. Fence operation failed.]"),
        ("fence", {"fence_type": "start"}, 409, "statuses: Down ,Non Responsive or Maintenance.]"),
        ("fence", {"fence_type": "stop"}, 409, "Host has to be in Maintenance mode in order to be stopped.]"),
    ],
)
def test_what_is_refused_of_a_host_that_is_up(
    lab: Any, http: httpx.Client, path: str, body: dict[str, str], status: int, text: str
) -> None:
    answer = http.post(f"hosts/{lab.hosts[0].id}/{path}", json=body, headers={"Accept": "application/json"})
    assert answer.status_code == status
    assert text in answer.json()["fault"]["detail"]


def test_without_agents_nobody_knows_whether_a_host_has_power(lab: Any, http: httpx.Client) -> None:
    asked = {"fence_type": "status"}
    answer = http.post(f"hosts/{lab.hosts[0].id}/fence", json=asked, headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert answer.json()["fault"]["reason"].startswith("Invalid fence agents defined for host '")


def test_a_certificate_is_enrolled_in_maintenance(lab: Any, system: Any) -> None:
    lab.engine.state.hosts[lab.hosts[1].id].status = "maintenance"
    system.hosts_service().host_service(lab.hosts[1].id).enroll_certificate()
    lab.wait(lambda: {880, 881} <= set(lab.codes()))


def test_the_vms_of_a_lost_host_are_down_when_somebody_confirms_that_it_was_rebooted(lab: Any, system: Any) -> None:
    host = lab.hosts[0].id
    lab.engine.state.hosts[host].status = "non_responsive"
    vm = lab.engine.state.vms[lab.vm_id("web")]
    vm.status = "unknown"
    system.hosts_service().host_service(host).fence(fence_type="manual")
    assert (vm.status, vm.host_id) == ("down", "")
    assert lab.codes()[-2:] == [143, 494]


def test_only_direct_luns_are_refreshed(lab: Any, http: httpx.Client) -> None:
    path = f"disks/{lab.disk_id('web_data')}/refreshlun"
    headers = {"Accept": "application/json"}
    incomplete = http.post(path, json={}, headers=headers)
    assert incomplete.json()["fault"]["detail"] == "Action [host.id|name] required for refreshLun"
    refused = http.post(path, json={"host": {"name": "host1"}}, headers=headers)
    assert refused.status_code == 400
    assert refused.json()["fault"]["detail"] == "[Cannot sync Virtual Disk. The specified disk does not exist.]"
