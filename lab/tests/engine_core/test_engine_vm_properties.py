# SPDX-License-Identifier: GPL-3.0-or-later
"""What VMs and templates are set to: kept, shown, and when a VM runs put off until it goes down."""

from __future__ import annotations

from typing import Any

import httpx
import ovirtsdk4
import pytest
from ovirtsdk4 import types

JSON = {"Accept": "application/json"}
MIB = 1 << 20


def service(lab: Any, system: Any, name: str) -> Any:
    return system.vms_service().vm_service(lab.vm_id(name))


def test_a_new_vm_shows_what_an_engine_shows_of_one(system: Any, lab: Any) -> None:
    cluster, blank = types.Cluster(name="Default"), types.Template(name="Blank")
    vm = system.vms_service().add(types.Vm(name="new", cluster=cluster, template=blank, memory=64 * MIB))
    policy = vm.memory_policy
    assert (policy.guaranteed, policy.max, policy.ballooning) == (64 * MIB, 256 * MIB, True)
    assert (vm.display.monitors, vm.io.threads, vm.cpu_shares, vm.soundcard_enabled) == (1, 0, 0, True)
    assert [method.id for method in vm.sso.methods] == [types.SsoMethod.GUEST_AGENT]
    assert [device.value for device in vm.os.boot.devices] == ["hd"]
    assert system.cpu_profiles_service().profile_service(vm.cpu_profile.id).get().name == "Default"
    assert vm.use_latest_template_version is None  # told of stateless VMs only


def test_what_says_whether_a_new_vm_has_a_sound_card(system: Any, lab: Any) -> None:
    """The request, else the instance type, else the template; from scratch every VM has one."""
    vms, default = system.vms_service(), types.Cluster(name="Default")
    kinds = system.instance_types_service()
    mute, loud = (
        kinds.add(types.InstanceType(name=name, memory=64 * MIB, soundcard_enabled=sound))
        for name, sound in (("mute", False), ("loud", True))
    )
    blank = types.Template(name="Blank")
    silent = vms.add(types.Vm(name="silent", cluster=default, template=blank, soundcard_enabled=False))
    made = system.templates_service().add(types.Template(name="made", vm=types.Vm(id=silent.id)))
    lab.wait(lambda: system.templates_service().template_service(made.id).get().status == types.TemplateStatus.OK)

    def sound(name: str, template: types.Template, **fields: Any) -> bool:
        wanted = types.Vm(name=name, cluster=default, template=template, **fields)
        return bool(vms.add(wanted, clone=name.startswith("clone")).soundcard_enabled)

    assert sound("a", blank)
    assert not sound("clone", blank)
    assert not sound("b", made)
    assert sound("c", made, instance_type=loud)
    assert not sound("d", blank, instance_type=mute)
    assert sound("e", blank, instance_type=mute, soundcard_enabled=True)


def test_properties_are_kept_beside_those_that_are_not_named(system: Any, lab: Any) -> None:
    db = service(lab, system, "db")
    db.update(
        types.Vm(
            bios=types.Bios(boot_menu=types.BootMenu(enabled=True)),
            os=types.OperatingSystem(boot=types.Boot(devices=[types.BootDevice.NETWORK, types.BootDevice.HD])),
            memory_policy=types.MemoryPolicy(guaranteed=8 * MIB),
            cpu=types.Cpu(mode=types.CpuMode.HOST_PASSTHROUGH),
            custom_compatibility_version=types.Version(major=4, minor=6),
            lease=types.StorageDomainLease(storage_domain=types.StorageDomain(name="data")),
        )
    )
    pins = types.CpuTune(vcpu_pins=[types.VcpuPin(vcpu=0, cpu_set="0-1")])
    db.update(types.Vm(cpu=types.Cpu(cpu_tune=pins), custom_emulated_machine="pc-q35-rhel9.2.0"))
    vm = db.get()
    assert vm.bios.boot_menu.enabled
    assert [device.value for device in vm.os.boot.devices] == ["network", "hd"]
    assert (vm.memory_policy.guaranteed, vm.memory_policy.ballooning) == (8 * MIB, True)
    assert (vm.cpu.mode, vm.cpu.cpu_tune.vcpu_pins[0].cpu_set) == (types.CpuMode.HOST_PASSTHROUGH, "0-1")
    assert (vm.cpu.topology.cores, vm.custom_emulated_machine) == (1, "pc-q35-rhel9.2.0")
    assert lab.engine.state.vms[vm.id].level == (vm.custom_compatibility_version.major, 6)
    assert vm.lease.storage_domain.href.startswith("/ovirt-engine/api/storagedomains/")
    db.update(types.Vm(custom_compatibility_version=types.Version(major=-1, minor=-1)))
    assert db.get().custom_compatibility_version is None


def test_what_does_not_change_while_a_vm_runs_waits_until_it_is_down(system: Any, lab: Any) -> None:
    web = service(lab, system, "web")
    before = web.get().memory
    wanted = types.Vm(memory=before * 2, description="front", time_zone=types.TimeZone(name="Europe/Berlin"))
    answer = web.update(wanted)
    assert (answer.memory, answer.description, answer.time_zone.name) == (before, "front", "Etc/GMT")
    assert answer.next_run_configuration_exists
    coming = web.get(next_run=True)
    assert (coming.memory, coming.time_zone.name) == (before * 2, "Europe/Berlin")
    assert web.update(types.Vm(cpu_shares=512), next_run=True).memory == before * 2
    web.stop()
    lab.wait(lambda: web.get().status == types.VmStatus.DOWN)
    vm = web.get()
    assert (vm.memory, vm.cpu_shares, vm.time_zone.name) == (before * 2, 512, "Europe/Berlin")
    assert not vm.next_run_configuration_exists


def test_a_change_that_is_taken_back_waits_no_longer(system: Any, lab: Any) -> None:
    web = service(lab, system, "web")
    before = web.get().memory
    assert web.update(types.Vm(memory=before * 2)).next_run_configuration_exists
    assert not web.update(types.Vm(memory=before)).next_run_configuration_exists


def test_unknown_words_are_refused(lab: Any, http: httpx.Client) -> None:
    body = {"os": {"boot": {"devices": {"device": ["floppy"]}}}}
    answer = http.put(f"vms/{lab.vm_id('db')}", json=body, headers=JSON)
    assert (answer.status_code, "floppy" in answer.text) == (400, True)


def test_a_template_has_the_properties_of_its_vm_and_gives_them_on(system: Any, lab: Any) -> None:
    service(lab, system, "db").update(types.Vm(high_availability=types.HighAvailability(enabled=True, priority=50)))
    wanted = types.Template(name="gold", vm=types.Vm(name="db"), description="d", comment="c", memory=48 * MIB)
    made = system.templates_service().template_service(system.templates_service().add(wanted).id)
    lab.wait(lambda: made.get().status == types.TemplateStatus.OK)
    template = made.get()
    assert (template.comment, template.memory, template.high_availability.priority) == ("c", 48 * MIB, 50)
    made.update(types.Template(memory=32 * MIB, cpu_shares=1024))
    cluster = types.Cluster(name="Default")
    vm = system.vms_service().add(types.Vm(name="child", cluster=cluster, template=types.Template(name="gold")))
    assert (vm.memory, vm.cpu_shares, vm.high_availability.priority) == (32 * MIB, 1024, 50)
    lab.wait(lambda: service(lab, system, "child").get().status == types.VmStatus.DOWN)
    service(lab, system, "child").update(types.Vm(cpu_shares=1))
    assert made.get().cpu_shares == 1024
    with pytest.raises(ovirtsdk4.Error, match="already in use"):
        made.update(types.Template(name="Blank"))


def test_a_snapshot_tells_what_the_vm_was(system: Any, lab: Any) -> None:
    db = service(lab, system, "db")
    snapshots = db.snapshots_service()
    made = snapshots.add(types.Snapshot(description="s", persist_memorystate=False))
    db.update(types.Vm(name="renamed", comment="later"))
    found = snapshots.snapshot_service(made.id).get().vm
    assert (found.id, found.name, found.comment, found.href) == (lab.vm_id("renamed"), "db", "", None)


def instance_type(system: Any, name: str) -> Any:
    return next(item for item in system.instance_types_service().list() if item.name == name)


def test_what_an_instance_type_says_counts_more_than_a_request(system: Any, lab: Any) -> None:
    wanted = types.Vm(
        name="new",
        cluster=types.Cluster(name="Default"),
        template=types.Template(name="Blank"),
        instance_type=types.InstanceType(name="Medium"),
        memory=64 * MIB,
        memory_policy=types.MemoryPolicy(guaranteed=32 * MIB, max=8192 * MIB),
    )
    vms = system.vms_service()
    vm = vms.add(wanted)
    medium = instance_type(system, "Medium")
    assert (vm.instance_type.id, vm.memory) == (medium.id, 4096 * MIB)
    assert (vm.cpu.topology.sockets, vm.cpu.topology.cores) == (2, 1)
    assert (vm.memory_policy.guaranteed, vm.memory_policy.max) == (4096 * MIB, 8192 * MIB)
    changed = vms.vm_service(vm.id).update(types.Vm(memory=64 * MIB))
    assert changed.memory == 4096 * MIB
    smaller = vms.vm_service(vm.id).update(types.Vm(instance_type=instance_type(system, "Tiny")))
    assert (smaller.memory, smaller.cpu.topology.sockets) == (512 * MIB, 1)


def test_an_instance_type_of_ones_own_has_what_it_was_given(system: Any, lab: Any) -> None:
    kind = types.InstanceType(
        name="mine",
        memory=256 * MIB,
        cpu=types.Cpu(topology=types.CpuTopology(cores=2, sockets=3, threads=1)),
        high_availability=types.HighAvailability(enabled=True, priority=50),
    )
    made = system.instance_types_service().add(kind)
    db = service(lab, system, "db").update(types.Vm(instance_type=types.InstanceType(id=made.id)))
    assert db.memory == 256 * MIB
    assert (db.cpu.topology.cores, db.cpu.topology.sockets) == (2, 3)
    assert (db.high_availability.enabled, db.high_availability.priority) == (True, 50)


@pytest.mark.parametrize("name", ["with blank", "exclaimed!", "a/b", "semi;colon"])
def test_names_have_letters_numbers_and_few_signs(system: Any, lab: Any, name: str) -> None:
    blank = {"cluster": types.Cluster(name="Default"), "template": types.Template(name="Blank")}
    vms, templates = system.vms_service(), system.templates_service()
    for refusal, act in (
        ("Can not add VM", lambda: vms.add(types.Vm(name=name, **blank))),
        ("Can not edit VM", lambda: service(lab, system, "db").update(types.Vm(name=name))),
        ("Can not add Template", lambda: templates.add(types.Template(name=name, vm=types.Vm(id=lab.vm_id("db"))))),
    ):
        with pytest.raises(ovirtsdk4.Error, match=f"{refusal}. The given name contains special characters") as refused:
            act()
        assert refused.value.code == 400
    assert vms.add(types.Vm(name="Käse_1.2-3", **blank)).name == "Käse_1.2-3"


def test_a_vm_with_an_illegal_disk_says_so(system: Any, lab: Any) -> None:
    db = service(lab, system, "db")
    assert db.get().has_illegal_images is None
    lab.engine.state.disks[lab.disk_id("db_system")].status = "illegal"
    assert db.get().has_illegal_images


def test_instance_types_have_lists_of_devices_that_are_empty(system: Any, lab: Any) -> None:
    types_service = system.instance_types_service()
    service = types_service.instance_type_service(instance_type(system, "Tiny").id)
    assert service.nics_service().list() == service.watchdogs_service().list() == []
    with pytest.raises(ovirtsdk4.NotFoundError):
        types_service.instance_type_service("00000000-0000-0000-0000-00000000dead").nics_service().list()
