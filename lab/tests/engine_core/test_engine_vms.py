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
    with pytest.raises(sdk.Error, match="Cannot run VM because the VM is in Up status") as running:
        service(lab, system, "web").start()
    assert running.value.code == 409
    with pytest.raises(sdk.Error, match="Cannot restart VM because the VM is in Down status"):
        service(lab, system, "db").reboot()
    lab.engine.state.disks[lab.disk_id("db_system")].status = "locked"
    with pytest.raises(sdk.Error, match="The following disks are locked: db_system"):
        service(lab, system, "db").start()


def test_a_vm_that_is_down_is_stopped_already(lab: Any, system: Any) -> None:
    service(lab, system, "db").stop()
    service(lab, system, "db").shutdown()
    assert lab.codes()[-2:] == [254, 254]


def test_consoles_are_taken_away_and_given_back(lab: Any, system: Any) -> None:
    consoles = service(lab, system, "db").graphics_consoles_service()
    for console in consoles.list():
        consoles.console_service(console.id).remove()
    assert consoles.list() == []
    added = consoles.add(types.GraphicsConsole(protocol=types.GraphicsType.VNC))
    assert [console.id for console in consoles.list()] == [added.id]
    with pytest.raises(sdk.Error, match="Only one graphics device of each type"):
        consoles.add(types.GraphicsConsole(protocol=types.GraphicsType.VNC))


def test_a_running_console_has_an_address_and_gives_tickets(lab: Any, system: Any) -> None:
    consoles = service(lab, system, "web").graphics_consoles_service()
    [spice, _] = consoles.list(current=True)
    assert (spice.address, spice.port) == (lab.engine.state.hosts[lab.hosts[0].id].address, 5900)
    assert consoles.list()[0].address is None
    assert consoles.console_service(spice.id).ticket().expiry == 7200


def test_busy_vm_is_not_shut_down_unless_forced(lab: Any, system: Any) -> None:
    web = service(lab, system, "web")
    disk = types.Disk(id=lab.disk_id("web_system"))
    web.backups_service().add(types.Backup(disks=[disk]), query={"legacy": "true"})
    with pytest.raises(sdk.Error, match=r"Cannot stop VM\. The VM is during a backup operation"):
        web.stop()
    with pytest.raises(sdk.Error, match=r"Cannot restart VM\. The VM is during a backup operation"):
        web.reboot()
    web.stop(force=True)
    assert web.get().status == types.VmStatus.DOWN
    with pytest.raises(sdk.Error, match=r"Cannot remove VM\. The VM is during a backup operation"):
        web.remove()


def test_a_vm_is_stopped_while_a_snapshot_of_it_is_backed_up(lab: Any, system: Any) -> None:
    web = service(lab, system, "web")
    backups = web.backups_service()
    backup = backups.backup_service(backups.add(types.Backup(disks=[types.Disk(id=lab.disk_id("web_system"))])).id)
    lab.wait(lambda: backup.get().phase == types.BackupPhase.READY)
    web.stop()
    assert web.get().status == types.VmStatus.DOWN
    backup.finalize()
    lab.wait(lambda: backup.get().phase == types.BackupPhase.SUCCEEDED)
    assert len(web.snapshots_service().list()) == 1


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
    db = service(lab, system, "db")
    changed = db.update(
        types.Vm(
            description="front",
            memory=256 << 20,
            custom_properties=[types.CustomProperty(name="lab", value="yes")],
            cpu=types.Cpu(topology=types.CpuTopology(cores=2, sockets=1, threads=1)),
        )
    )
    assert (changed.description, changed.memory, changed.cpu.topology.cores) == ("front", 256 << 20, 2)
    assert db.get().custom_properties[0].value == "yes"
    with pytest.raises(sdk.Error, match="name is already in use"):
        db.update(types.Vm(name="web"))


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


def test_of_an_interface_in_use_address_and_kind_stay(lab: Any, system: Any) -> None:
    web = service(lab, system, "web")
    nic = web.nics_service().nic_service(web.nics_service().list()[0].id)
    for change in (
        types.Nic(interface=types.NicInterface.E1000),
        types.Nic(mac=types.Mac(address="56:6f:00:00:00:99")),
    ):
        with pytest.raises(sdk.Error, match="Please un-plug the interface, update the properties") as refused:
            nic.update(change)
        assert refused.value.code == 409
    nic.update(types.Nic(linked=False))
    assert not nic.get().linked
    assert lab.codes()[-1] == 934
    nic.deactivate()
    nic.update(types.Nic(interface=types.NicInterface.E1000, mac=types.Mac(address="56:6F:00:00:00:99")))
    assert (nic.get().interface, nic.get().mac.address) == (types.NicInterface.E1000, "56:6f:00:00:00:99")


def test_names_and_profiles_of_interfaces_are_checked(lab: Any, system: Any) -> None:
    nics = service(lab, system, "db").nics_service()
    first, second = nics.list()[0], nics.add(types.Nic(name="second"))
    unknown = types.VnicProfile(id="00000000-0000-0000-0000-00000000dead")
    for refusal, code, change in (
        (r"\[Network interface name is already in use\]", 409, types.Nic(name=first.name)),
        (
            "Cannot edit Interface. The specified VM network interface profile doesn't",
            400,
            types.Nic(vnic_profile=unknown),
        ),
    ):
        with pytest.raises(sdk.Error, match=refusal) as refused:
            nics.nic_service(second.id).update(change)
        assert refused.value.code == code
    assert nics.nic_service(second.id).get().name == "second"


def test_interfaces_are_plugged_and_unplugged(lab: Any, system: Any) -> None:
    web = service(lab, system, "web")
    nic = web.nics_service().nic_service(web.nics_service().list()[0].id)
    with pytest.raises(sdk.Error, match="plugged to a running VM"):
        nic.remove()
    nic.deactivate()
    assert not nic.get().plugged
    assert lab.codes()[-1] == 1014
    before = len(lab.codes())
    nic.deactivate()  # nothing to do is success, and no event
    assert len(lab.codes()) == before
    nic.activate()
    assert nic.get().plugged
    assert lab.codes()[-1] == 1012
    lab.engine.state.vms[lab.vm_id("web")].status = "paused"
    with pytest.raises(sdk.Error, match="Cannot hot unplug Interface because the VM is in paused status") as refused:
        nic.deactivate()
    assert refused.value.code == 409


def test_a_start_with_settings_for_once(lab: Any, system: Any) -> None:
    """They count until the VM is down again; what is the VM's own stays as it was."""
    db, record = service(lab, system, "db"), lab.engine.state.vms[lab.vm_id("db")]
    once = types.Vm(
        os=types.OperatingSystem(type="rhel_9x64", cmdline="lab.guest=linux lab.agent=0"),
        placement_policy=types.VmPlacementPolicy(hosts=[types.Host(name="host1")]),
        initialization=types.Initialization(host_name="once", root_password="secret"),
    )
    db.start(vm=once, use_cloud_init=True)
    lab.wait(lambda: db.get().status == types.VmStatus.UP)
    shown = db.get()
    assert (shown.run_once, shown.host.id, shown.initialization) == (True, lab.hosts[0].id, None)
    definition = lab.hosts[0].machines[record.id].definition
    assert (definition.guest, definition.agent) == ("linux", False)
    assert (record.once.initialization_type, record.once.os_type) == ("cloud_init", "rhel_9x64")
    db.stop()
    assert db.get().run_once is False
    db.start()
    lab.wait(lambda: db.get().status == types.VmStatus.UP)
    assert lab.hosts[1].machines[record.id].definition.guest == "none"


def test_two_ways_to_set_up_a_guest_are_refused(lab: Any, system: Any) -> None:
    with pytest.raises(sdk.Error, match="multiple initialization tags simultaneously") as both:
        service(lab, system, "db").start(vm=types.Vm(), use_cloud_init=True, use_sysprep=True)
    assert both.value.code == 409


def test_initialization_is_kept_and_its_password_is_not_told(lab: Any, system: Any) -> None:
    db = service(lab, system, "db")
    nics = [types.NicConfiguration(name="eth0", on_boot=True, boot_protocol=types.BootProtocol.DHCP)]
    mine = types.Initialization(host_name="db.lab", root_password="secret", nic_configurations=nics)
    db.update(types.Vm(initialization=mine))
    db.update(types.Vm(initialization=types.Initialization(dns_servers="10.0.0.1")))
    kept = db.get().initialization
    assert (kept.host_name, kept.dns_servers, kept.root_password) == ("db.lab", "10.0.0.1", None)
    assert [nic.name for nic in kept.nic_configurations] == ["eth0"]
    whole = db.get(all_content=True).initialization
    assert whole.host_name == "db.lab"
    assert "<Name>db</Name>" in whole.configuration.data


def test_a_vm_bound_to_a_host_runs_nowhere_else(lab: Any, system: Any) -> None:
    db = service(lab, system, "db")
    policy = types.VmPlacementPolicy(affinity=types.VmAffinity.PINNED, hosts=[types.Host(id=lab.hosts[0].id)])
    db.update(types.Vm(placement_policy=policy))
    db.start()
    lab.wait(lambda: db.get().status == types.VmStatus.UP)
    assert db.get().host.id == lab.hosts[0].id
    db.stop()
    lab.engine.state.hosts[lab.hosts[0].id].status = "maintenance"
    with pytest.raises(sdk.Error, match="no host that satisfies current scheduling constraints"):
        db.start()
    with pytest.raises(sdk.Error, match="does not exist"):
        db.update(types.Vm(placement_policy=types.VmPlacementPolicy(hosts=[types.Host(name="nowhere")])))
