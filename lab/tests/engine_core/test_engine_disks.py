# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks: made, refused, changed, hung on VMs and taken off, deleted."""

from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

MIB = 1 << 20


def disk_of(**changes: Any) -> types.Disk:
    fields = {
        "name": "d",
        "provisioned_size": MIB,
        "format": types.DiskFormat.COW,
        "storage_domains": [types.StorageDomain(name="data")],
    }
    return types.Disk(**{**fields, **changes})


def make(lab: Any, system: Any, **changes: Any) -> Any:
    disk = system.disks_service().add(disk_of(**changes))
    service = system.disks_service().disk_service(disk.id)
    lab.wait(lambda: service.get().status == types.DiskStatus.OK)
    return service


def test_ids_are_kept_and_the_volume_lies_where_vdsm_has_it(lab: Any, system: Any) -> None:
    disk_id, image_id = "11111111-2222-4333-8444-555555555555", "66666666-2222-4333-8444-555555555555"
    disk = make(lab, system, id=disk_id, image_id=image_id, backup=types.DiskBackup.INCREMENTAL).get()
    assert (disk.id, disk.image_id, disk.backup) == (disk_id, image_id, types.DiskBackup.INCREMENTAL)
    domain = system.storage_domains_service().list(search="name=data")[0]
    expected = lab.engine.context.directory / "storage" / domain.id / "images" / disk_id / image_id
    assert expected.stat().st_size == MIB
    with pytest.raises(sdk.Error, match=f"The selected disk ID: {disk_id} is already used") as taken:
        system.disks_service().add(disk_of(id=disk_id))
    assert taken.value.code == 409


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": types.DiskFormat.RAW, "backup": types.DiskBackup.INCREMENTAL}, "RAW Sparse backup-Incremental"),
        ({"sparse": False}, "COW Preallocated backup-None"),
        ({"shareable": True}, "not supported for shareable"),
        ({"provisioned_size": 0}, "has to be greater than 0"),
        ({"storage_domains": [types.StorageDomain(name="nowhere")]}, "Storage Domain doesn't exist"),
        ({"storage_domains": None}, "required for add"),
        ({"format": None}, "required for add"),
    ],
)
def test_refused(system: Any, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(sdk.Error, match=text):
        system.disks_service().add(disk_of(**changes))


def test_preallocated_cow_is_allowed_with_incremental(lab: Any, system: Any) -> None:
    assert make(lab, system, sparse=False, backup=types.DiskBackup.INCREMENTAL).get().sparse is False


def test_incremental_of_a_raw_disk_is_refused_and_conversion_allows_it(lab: Any, system: Any) -> None:
    service = make(lab, system, format=types.DiskFormat.RAW)
    incremental = types.Disk(backup=types.DiskBackup.INCREMENTAL)
    with pytest.raises(sdk.Error, match="not supported for RAW format disks") as error:
        service.update(incremental)
    assert error.value.code == 400
    service.convert(disk=types.Disk(format=types.DiskFormat.COW, backup=types.DiskBackup.INCREMENTAL))
    lab.wait(lambda: service.get().format == types.DiskFormat.COW and service.get().status == types.DiskStatus.OK)
    assert service.get().backup == types.DiskBackup.INCREMENTAL


def test_extend(lab: Any, system: Any) -> None:
    service = make(lab, system)
    service.update(types.Disk(provisioned_size=2 * MIB))
    lab.wait(lambda: service.get().status == types.DiskStatus.OK)
    assert service.get().provisioned_size == 2 * MIB
    with pytest.raises(sdk.Error, match="must be larger"):
        service.update(types.Disk(provisioned_size=MIB))


def test_search(lab: Any, system: Any) -> None:
    find = system.disks_service().list
    assert [disk.alias for disk in find(search="vm_names=web sortby alias asc")] == ["web_data", "web_system"]
    assert [disk.alias for disk in find(search="alias=db_*")] == ["db_system"]
    assert [disk.alias for disk in find(search=f"id={lab.disk_id('web_data')}")] == ["web_data"]


def test_attach_detach_while_running(lab: Any, system: Any) -> None:
    disk = make(lab, system)
    vm_id = lab.vm_id("web")
    attachments = system.vms_service().vm_service(vm_id).disk_attachments_service()
    attachments.add(
        types.DiskAttachment(disk=types.Disk(id=disk.get().id), interface=types.DiskInterface.VIRTIO, active=True)
    )
    disk_id = disk.get().id
    assert lab.hosts[0].machines[vm_id].disks[disk_id].target == "vdc"
    with pytest.raises(sdk.Error, match="already attached to VM"):
        attachments.add(types.DiskAttachment(disk=types.Disk(id=disk_id), interface=types.DiskInterface.VIRTIO))
    with pytest.raises(sdk.Error, match="is not down"):
        disk.remove()
    attachments.attachment_service(disk_id).remove()
    assert disk_id not in lab.hosts[0].machines[vm_id].disks
    assert disk.get().status == types.DiskStatus.OK


def test_one_boot_disk(lab: Any, system: Any) -> None:
    disk = make(lab, system)
    attachments = system.vms_service().vm_service(lab.vm_id("web")).disk_attachments_service()
    with pytest.raises(sdk.Error, match="Disk web_system in VM web is already marked as boot"):
        attachments.add(
            types.DiskAttachment(
                disk=types.Disk(id=disk.get().id), interface=types.DiskInterface.VIRTIO, bootable=True, active=True
            )
        )


def test_remove_by_attachment(lab: Any, system: Any) -> None:
    disk_id = lab.disk_id("db_system")
    path = lab.engine.state.disks[disk_id].path
    attachments = system.vms_service().vm_service(lab.vm_id("db")).disk_attachments_service()
    attachments.attachment_service(disk_id).remove(detach_only=False)
    lab.wait(lambda: not path.parent.exists())
    with pytest.raises(sdk.NotFoundError):
        system.disks_service().disk_service(disk_id).get()


def test_locked_disk_is_left_alone(lab: Any, system: Any) -> None:
    disk = make(lab, system)
    lab.engine.state.disks[disk.get().id].status = "locked"
    alias = disk.get().name
    edit = (lambda: disk.update(types.Disk(description="x")), f"The following disks are locked: {alias}.")
    for act, text in (edit, (disk.remove, "Related operation is currently in progress")):
        with pytest.raises(sdk.Error, match=text) as error:
            act()
        assert error.value.code == 409


def test_enable_incremental_through_the_attachment(lab: Any, system: Any) -> None:
    disk_id = lab.disk_id("db_system")
    attachments = system.vms_service().vm_service(lab.vm_id("db")).disk_attachments_service()
    off = types.DiskAttachment(disk=types.Disk(backup=types.DiskBackup.NONE))
    attachments.attachment_service(disk_id).update(off)
    assert system.disks_service().disk_service(disk_id).get().backup == types.DiskBackup.NONE


def test_a_known_disk_is_attached_whatever_else_is_said_of_it(lab: Any, system: Any) -> None:
    disk = make(lab, system).get()
    attachments = system.vms_service().vm_service(lab.vm_id("db")).disk_attachments_service()
    wanted = types.Disk(id=disk.id, name=disk.name, provisioned_size=disk.provisioned_size, format=disk.format)
    made = attachments.add(types.DiskAttachment(disk=wanted, interface=types.DiskInterface.VIRTIO))
    assert (made.id, made.active) == (disk.id, False)
    attachments.attachment_service(disk.id).remove()
    unknown = types.Disk(id=lab.vm_id("db"), provisioned_size=1 << 20, format=types.DiskFormat.COW)
    with pytest.raises(sdk.Error, match="The specified disk does not exist") as error:
        attachments.add(types.DiskAttachment(disk=unknown, interface=types.DiskInterface.VIRTIO))
    assert error.value.code == 400


@pytest.mark.parametrize(("vm", "asked", "active"), [("db", None, True), ("web", None, False), ("web", True, True)])
def test_a_new_disk_is_plugged_into_a_running_vm_only_when_asked(
    lab: Any, system: Any, vm: str, asked: bool | None, active: bool
) -> None:
    attachments = system.vms_service().vm_service(lab.vm_id(vm)).disk_attachments_service()
    domain = types.StorageDomain(name="data")
    disk = types.Disk(provisioned_size=1 << 20, format=types.DiskFormat.COW, storage_domains=[domain])
    made = attachments.add(types.DiskAttachment(disk=disk, interface=types.DiskInterface.VIRTIO, active=asked))
    service = system.disks_service().disk_service(made.disk.id)
    lab.wait(lambda: service.get().status == types.DiskStatus.OK)
    lab.wait(lambda: attachments.attachment_service(made.id).get().active is active)


def test_a_disk_has_a_profile_of_its_domain(lab: Any, system: Any) -> None:
    disk = make(lab, system)
    link = disk.get().disk_profile
    assert system.disk_profiles_service().disk_profile_service(link.id).get().name == "data"
    domains = {item.name: item.id for item in system.storage_domains_service().list()}
    other = system.disk_profiles_service().add(
        types.DiskProfile(name="quick", storage_domain=types.StorageDomain(id=domains["data"]))
    )
    assert disk.update(types.Disk(disk_profile=other)).disk_profile.id == other.id
    disk.move(storage_domain=types.StorageDomain(id=domains["data2"]))
    lab.wait(lambda: disk.get().status == types.DiskStatus.OK)
    link = disk.get().disk_profile
    assert system.disk_profiles_service().disk_profile_service(link.id).get().name == "data2"
    with pytest.raises(sdk.Error, match="does not belong"):
        disk.update(types.Disk(disk_profile=other))


def test_a_disk_is_shared_only_raw_and_counts_for_its_quota(lab: Any, system: Any) -> None:
    disk = system.disks_service().disk_service(lab.disk_id("db_system"))
    with pytest.raises(sdk.Error, match="not supported for shareable"):
        disk.update(types.Disk(shareable=True))
    center = system.data_centers_service().list()[0]
    quota = system.data_centers_service().data_center_service(center.id).quotas_service().add(types.Quota(name="q"))
    assert disk.update(types.Disk(quota=quota)).quota.href == quota.href
