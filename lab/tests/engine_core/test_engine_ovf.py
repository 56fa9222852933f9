# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs and their OVF: kept, and made again from it, as themselves and as copies."""

from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from ovirtlab.engine import ovf, ovf_reader


def configuration(lab: Any, system: Any, name: str) -> str:
    return system.vms_service().vm_service(lab.vm_id(name)).get(all_content=True).initialization.configuration.data


def restore(system: Any, text: str, **fields: Any) -> Any:
    regenerate = fields.pop("regenerate_ids", None)
    initialization = types.Initialization(
        configuration=types.Configuration(type=types.ConfigurationType.OVF, data=text), regenerate_ids=regenerate
    )
    cluster = types.Cluster(name="Default")
    return system.vms_service().add(types.Vm(initialization=initialization, cluster=cluster, **fields))


def test_reading_gives_back_what_was_written(lab: Any) -> None:
    state = lab.engine.state
    vm = state.vms[lab.vm_id("web")]
    vm.custom_properties = {"a": "1", "b": "x=y"}
    vm.description = 'quotes " & <marks>'
    read = ovf_reader.read(ovf.write(state, vm))
    assert (read.id, read.name, read.description, read.memory) == (vm.id, vm.name, vm.description, vm.memory)
    assert read.custom_properties == vm.custom_properties
    assert read.os_cmdline == vm.os_cmdline
    assert [(disk.id, disk.image_id, disk.alias, disk.bootable, disk.incremental) for disk in read.disks] == [
        (disk.id, disk.image_id, disk.alias, vm.attachments[disk.id].bootable, disk.backup == "incremental")
        for disk in state.disks_of(vm)
    ]
    assert [(nic.mac, nic.network, nic.profile) for nic in read.nics] == [
        (nic.mac, "ovirtmgmt", "ovirtmgmt") for nic in vm.nics.values()
    ]


def test_withheld_while_a_disk_is_locked(lab: Any, system: Any) -> None:
    service = system.vms_service().vm_service(lab.vm_id("web"))
    assert service.get(all_content=True).initialization.configuration.data
    lab.engine.state.disks[lab.disk_id("web_data")].status = "locked"
    assert service.get(all_content=True).initialization.configuration is None
    lab.engine.state.disks[lab.disk_id("web_data")].status = "ok"
    lab.engine.state.vms[lab.vm_id("web")].status = "image_locked"
    assert service.get(all_content=True).initialization.configuration is None


def test_same_ids_when_the_old_vm_is_gone(lab: Any, system: Any) -> None:
    vm_id, disk_id = lab.vm_id("db"), lab.disk_id("db_system")
    text = configuration(lab, system, "db")
    mac = system.vms_service().vm_service(vm_id).nics_service().list()[0].mac.address
    system.vms_service().vm_service(vm_id).remove(detach_only=True)
    lab.wait(lambda: vm_id not in lab.engine.state.vms)
    made = restore(system, text)
    assert made.id == vm_id
    assert made.status == types.VmStatus.IMAGE_LOCKED
    service = system.vms_service().vm_service(vm_id)
    lab.wait(lambda: service.get().status == types.VmStatus.DOWN)
    assert [item.id for item in service.disk_attachments_service().list()] == [disk_id]
    assert service.nics_service().list()[0].mac.address == mac
    assert 174 in lab.codes()


def test_copy_beside_the_old_vm(lab: Any, system: Any) -> None:
    text = configuration(lab, system, "web")
    made = restore(system, text, name="copy", regenerate_ids=True)
    assert made.id != lab.vm_id("web")
    service = system.vms_service().vm_service(made.id)
    lab.wait(lambda: service.get().status == types.VmStatus.DOWN)
    assert service.get().os.custom_kernel_cmdline is None
    assert service.get().os.cmdline == "lab.guest=linux lab.agent=1"
    assert service.disk_attachments_service().list() == []
    assert 175 in lab.codes()
    old = system.vms_service().vm_service(lab.vm_id("web")).nics_service().list()[0].mac.address
    assert service.nics_service().list()[0].mac.address != old
    assert service.nics_service().list(follow="vnic_profile")[0].vnic_profile.name == "ovirtmgmt"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "VM with the same identifier already exists"),
        ({"regenerate_ids": True}, "VM name is already in use"),
    ],
)
def test_conflicts(lab: Any, system: Any, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(sdk.Error, match=text) as error:
        restore(system, configuration(lab, system, "db"), **fields)
    assert error.value.code == 409


def test_taken_mac_is_a_conflict(lab: Any, system: Any) -> None:
    text = configuration(lab, system, "db")
    new_id = "99999999-2222-4333-8444-555555555555"
    with pytest.raises(sdk.Error, match="is already in use by VM or snapshot: db"):
        restore(system, text.replace(lab.vm_id("db"), new_id), name="other")


def test_the_engines_prefixes_are_needed(lab: Any, system: Any) -> None:
    text = configuration(lab, system, "db")
    with pytest.raises(sdk.Error, match="could not be parsed"):
        restore(system, text.replace("xsi:", "ns9:").replace("xmlns:xsi", "xmlns:ns9"), regenerate_ids=True, name="x")


@pytest.mark.parametrize("text", ["no xml", "<a/>", "<Envelope><Content/></Envelope>"])
def test_what_is_no_ovf(system: Any, text: str) -> None:
    with pytest.raises(sdk.Error, match="could not be parsed") as error:
        restore(system, text)
    assert error.value.code == 400
