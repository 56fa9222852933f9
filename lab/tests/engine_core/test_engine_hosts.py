# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts removed from the engine."""

from __future__ import annotations

from typing import Any

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
