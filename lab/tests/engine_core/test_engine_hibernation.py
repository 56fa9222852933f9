# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs suspended to their storage domain, which go on, or are powered off without their memory."""

from __future__ import annotations

from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4 import types


def web_of(lab: Any, system: Any) -> Any:
    return system.vms_service().vm_service(lab.vm_id("web"))


def suspend(lab: Any, service: Any) -> None:
    service.suspend()
    lab.wait(lambda: service.get().status == types.VmStatus.SUSPENDED)


def contents(system: Any) -> set[str]:
    return {disk.content_type.value for disk in system.disks_service().list()}


def test_a_suspended_vm_goes_on_and_its_memory_is_dropped(lab: Any, system: Any) -> None:
    web = web_of(lab, system)
    targets = {item.id: item.logical_name for item in web.disk_attachments_service().list()}
    suspend(lab, web)
    assert (web.get().host, lab.hosts[0].machines) == (None, {})
    assert {"memory_dump_volume", "memory_metadata_volume"} <= contents(system)
    dump = next(disk for disk in system.disks_service().list() if disk.content_type.value == "memory_dump_volume")
    assert dump.name == "web_hibernation_memory"
    with pytest.raises(ovirtsdk4.Error, match="memory of a suspended VM"):
        system.disks_service().disk_service(dump.id).remove()
    web.start()
    lab.wait(lambda: web.get().status == types.VmStatus.UP)
    assert {item.id: item.logical_name for item in web.disk_attachments_service().list()} == targets
    assert contents(system) == {"data"}
    assert {501, 503, 32} <= set(lab.codes())


def test_a_suspended_vm_is_powered_off(lab: Any, system: Any) -> None:
    web = web_of(lab, system)
    suspend(lab, web)
    with pytest.raises(ovirtsdk4.Error, match="not running"):
        web.shutdown()
    web.stop()
    lab.wait(lambda: web.get().status == types.VmStatus.DOWN)
    assert (contents(system), 111 in lab.codes()) == ({"data"}, True)


def test_a_vm_that_cannot_be_suspended_runs_on(lab: Any, system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovirtlab.host.api import HostError

    async def fail(vm_id: str, memory: Any) -> None:
        raise HostError("no space")

    web = web_of(lab, system)
    monkeypatch.setattr(lab.hosts[0], "suspend_vm", fail)
    web.suspend()
    lab.wait(lambda: 521 in lab.codes())
    assert (web.get().status, contents(system)) == (types.VmStatus.UP, {"data"})


def test_a_suspended_vm_stays_so_when_its_host_cannot_go_on_with_it(lab: Any, system: Any) -> None:
    web = web_of(lab, system)
    suspend(lab, web)
    lab.engine.state.vms[lab.vm_id("web")].suspended.memory.unlink()
    web.start()
    lab.wait(lambda: 54 in lab.codes())
    assert web.get().status == types.VmStatus.SUSPENDED


def test_only_vms_that_are_up_are_suspended(lab: Any, system: Any) -> None:
    db = system.vms_service().vm_service(lab.vm_id("db"))
    with pytest.raises(ovirtsdk4.Error, match="VM is not up") as error:
        db.suspend()
    assert error.value.code == 409
