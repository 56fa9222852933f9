# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of VMs: start and stop, what hosts report, change and removal."""

from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types


def service(lab: Any, system: Any, name: str) -> Any:
    return system.vms_service().vm_service(lab.vm_id(name))


def test_first_state(lab: Any, system: Any) -> None:
    web, db = service(lab, system, "web").get(), service(lab, system, "db").get()
    assert (web.status, db.status) == (types.VmStatus.UP, types.VmStatus.DOWN)
    assert web.host.id == lab.hosts[0].id
    definition = lab.hosts[0].machines[web.id].definition
    assert (definition.guest, definition.agent, definition.clone) == ("linux", True, "memory-clone")
    assert [disk.target for disk in definition.disks] == ["vda", "vdb"]


def test_start_and_shutdown(lab: Any, system: Any) -> None:
    db = service(lab, system, "db")
    db.start()
    assert db.get().status in (types.VmStatus.WAIT_FOR_LAUNCH, types.VmStatus.POWERING_UP)
    lab.wait(lambda: db.get().status == types.VmStatus.UP)
    assert lab.vm_id("db") in lab.hosts[1].machines
    db.shutdown()
    lab.wait(lambda: db.get().status == types.VmStatus.DOWN)
    assert lab.vm_id("db") not in lab.hosts[1].machines
    assert {153, 32, 73, 61} <= set(lab.codes())


def test_saved_state_is_used_once(lab: Any, system: Any) -> None:
    web = service(lab, system, "web")
    web.stop()
    assert web.get().status == types.VmStatus.DOWN
    web.start()
    lab.wait(lambda: web.get().status == types.VmStatus.UP)
    assert lab.hosts[0].machines[lab.vm_id("web")].definition.clone == ""


def test_refused_starts_and_stops(lab: Any, system: Any) -> None:
    with pytest.raises(sdk.Error, match="VM is running") as running:
        service(lab, system, "web").start()
    assert running.value.code == 409
    with pytest.raises(sdk.Error, match="VM is not running"):
        service(lab, system, "db").stop()
    lab.engine.state.disks[lab.disk_id("db_system")].status = "locked"
    with pytest.raises(sdk.Error, match="The following disks are locked: db_system"):
        service(lab, system, "db").start()


def test_busy_vm_is_not_shut_down_unless_forced(lab: Any, system: Any) -> None:
    why = "The VM is during a backup operation."
    lock = lab.engine.state.locks.take(exclusive=[("vm", lab.vm_id("web"))], why=why, action="test")
    web = service(lab, system, "web")
    with pytest.raises(sdk.Error, match="Cannot stop VM: The VM is during a backup operation"):
        web.stop()
    web.stop(force=True)
    assert web.get().status == types.VmStatus.DOWN
    with pytest.raises(sdk.Error, match="Cannot remove VM: The VM is during a backup operation"):
        web.remove()
    lock.release()


def test_host_failure_leaves_the_vm_down(lab: Any, system: Any) -> None:
    lab.engine.state.disks[lab.disk_id("db_system")].path.unlink()
    db = service(lab, system, "db")
    db.start()
    lab.wait(lambda: 54 in lab.codes())
    assert db.get().status == types.VmStatus.DOWN
    assert db.get().host is None


@pytest.mark.parametrize(
    ("state", "reason", "status", "code"),
    [
        ("down", "", types.VmStatus.DOWN, 61),
        ("down", "killed by signal 9", types.VmStatus.DOWN, 119),
        ("paused", "I/O error", types.VmStatus.PAUSED, 145),
        ("paused", "no space left", types.VmStatus.PAUSED, 138),
    ],
)
def test_reports_of_hosts(lab: Any, system: Any, state: Any, reason: str, status: Any, code: int) -> None:
    async def report() -> None:
        lab.hosts[0].change(lab.vm_id("web"), state, reason)

    lab.run(report())
    assert service(lab, system, "web").get().status == status
    assert code in lab.codes()


def test_paused_vm_goes_on(lab: Any, system: Any) -> None:
    async def pause() -> None:
        lab.hosts[0].change(lab.vm_id("web"), "paused", "no space left")

    lab.run(pause())
    web = service(lab, system, "web")
    web.start()
    assert web.get().status == types.VmStatus.UP


def test_reports_of_a_host_the_vm_has_left_are_ignored(lab: Any, system: Any) -> None:
    async def report() -> None:
        for watcher in lab.hosts[1]._watchers:
            watcher(lab.vm_id("web"), "down", "old news")

    lab.run(report())
    assert service(lab, system, "web").get().status == types.VmStatus.UP


def test_restart_of_the_engine_believes_the_hosts(lab: Any, system: Any) -> None:
    web, db = service(lab, system, "web"), service(lab, system, "db")
    db.start()
    lab.wait(lambda: db.get().status == types.VmStatus.UP)
    lab.run(lab.hosts[1].stop_vm(lab.vm_id("db"), force=True))  # while the engine is not looking
    lab.run(lab.engine.restart())
    assert (web.get().status, db.get().status) == (types.VmStatus.UP, types.VmStatus.DOWN)


def test_reboot(lab: Any, system: Any) -> None:
    web = service(lab, system, "web")
    first = web.get().start_time
    web.reboot()
    lab.wait(lambda: web.get().status == types.VmStatus.UP and web.get().start_time != first)


def test_change(lab: Any, system: Any) -> None:
    web = service(lab, system, "web")
    changed = web.update(
        types.Vm(
            description="front",
            memory=256 << 20,
            custom_properties=[types.CustomProperty(name="lab", value="yes")],
            cpu=types.Cpu(topology=types.CpuTopology(cores=2, sockets=1, threads=1)),
        )
    )
    assert (changed.description, changed.memory, changed.cpu.topology.cores) == ("front", 256 << 20, 2)
    assert web.get().custom_properties[0].value == "yes"
    with pytest.raises(sdk.Error, match="name is already in use"):
        web.update(types.Vm(name="db"))


def test_remove_with_and_without_disks(lab: Any, system: Any) -> None:
    db = service(lab, system, "db")
    path = lab.engine.state.disks[lab.disk_id("db_system")].path
    db.remove(detach_only=True)
    lab.wait(lambda: len(system.vms_service().list()) == 1)
    assert path.exists()
    web, web_path = service(lab, system, "web"), lab.engine.state.disks[lab.disk_id("web_system")].path
    web.stop()
    web.remove()
    lab.wait(lambda: not system.vms_service().list())
    assert not web_path.exists()
    assert [disk.alias for disk in system.disks_service().list()] == ["db_system"]


def test_new_vm_from_fields(lab: Any, system: Any) -> None:
    vms = system.vms_service()
    made = vms.add(
        types.Vm(
            name="new",
            memory=128 << 20,
            cluster=types.Cluster(name="Default"),
            template=types.Template(name="Blank"),
        )
    )
    assert made.status == types.VmStatus.DOWN
    new = vms.vm_service(made.id)
    nic = new.nics_service().add(types.Nic(name="nic1", interface=types.NicInterface.VIRTIO))
    assert nic.mac.address
    attachment = new.disk_attachments_service().add(
        types.DiskAttachment(
            interface=types.DiskInterface.VIRTIO_SCSI,
            bootable=True,
            active=True,
            disk=types.Disk(
                name="new_disk",
                provisioned_size=1 << 20,
                format=types.DiskFormat.COW,
                storage_domains=[types.StorageDomain(name="data")],
            ),
        )
    )
    disk = system.disks_service().disk_service(attachment.id)
    lab.wait(lambda: disk.get().status == types.DiskStatus.OK)
    new.start()
    lab.wait(lambda: new.get().status == types.VmStatus.UP)
    definition = next(host.machines[made.id].definition for host in lab.hosts if made.id in host.machines)
    assert (definition.guest, definition.agent, definition.clone) == ("linux", True, "")
    assert [item.target for item in definition.disks] == ["sda"]


def test_new_vm_is_refused(system: Any) -> None:
    blank, default = types.Template(name="Blank"), types.Cluster(name="Default")
    vms = system.vms_service()
    with pytest.raises(sdk.Error, match="name is already in use") as taken:
        vms.add(types.Vm(name="web", cluster=default, template=blank))
    assert taken.value.code == 409
    with pytest.raises(sdk.Error, match="required for add"):
        vms.add(types.Vm(name="x", cluster=default))
    with pytest.raises(sdk.Error, match="does not exist"):
        vms.add(types.Vm(name="x", cluster=types.Cluster(name="Nowhere"), template=blank))


def test_mac_addresses_are_unique(lab: Any, system: Any) -> None:
    taken = service(lab, system, "web").nics_service().list()[0].mac.address
    with pytest.raises(sdk.Error, match="is already in use by VM or snapshot: web") as error:
        service(lab, system, "db").nics_service().add(types.Nic(name="nic2", mac=types.Mac(address=taken.upper())))
    assert error.value.code == 409
