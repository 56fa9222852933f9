# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates made from VMs, their versions, and VMs made from them."""

from __future__ import annotations

from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirtlab.host.api import HostError


@pytest.fixture
def template(system: Any, lab: Any) -> Any:
    """A template of the VM `db`, whose disk has something in it."""
    lab.engine.state.disks[lab.disk_id("db_system")].path.write_bytes(b"data" * 1024)
    made = system.templates_service().add(types.Template(name="gold", vm=types.Vm(id=lab.vm_id("db"))))
    service = system.templates_service().template_service(made.id)
    lab.wait(lambda: service.get().status == types.TemplateStatus.OK)
    return service


def add(system: Any, lab: Any, *, clone: bool = False, **disk: Any) -> Any:
    """A VM of the template, whose disk is to be made with `disk` instead of as it is."""
    wanted = types.Vm(name="new", cluster=types.Cluster(name="Default"), template=types.Template(name="gold"))
    if disk:
        wanted.disk_attachments = [types.DiskAttachment(disk=types.Disk(**disk))]
    vm = system.vms_service().vm_service(system.vms_service().add(wanted, clone=clone).id)
    lab.wait(lambda: vm.get().status == types.VmStatus.DOWN)
    return vm


def test_a_vm_has_copies_of_the_disks(system: Any, lab: Any, template: Any) -> None:
    kept = template.disk_attachments_service().list()
    vm = add(system, lab)
    [attachment] = vm.disk_attachments_service().list()
    assert attachment.disk.id != kept[0].disk.id
    assert lab.engine.state.disks[attachment.disk.id].path.read_bytes() == b"data" * 1024
    assert vm.get().template.id == template.get().id


def test_a_vm_is_locked_while_a_template_is_made_of_it(system: Any, lab: Any) -> None:
    db = system.vms_service().vm_service(lab.vm_id("db"))
    asked = types.Template(name="gold", vm=types.Vm(id=lab.vm_id("db")))
    making = "Template is being created from this VM"
    again = types.Template(name="silver", vm=types.Vm(id=lab.vm_id("db")))
    acts = [
        (db.start, f"Cannot run VM. {making}"),
        (db.remove, f"Cannot remove VM. {making}"),
        (lambda: db.snapshots_service().add(types.Snapshot(description="x")), f"Cannot create Snapshot. {making}"),
        (lambda: system.templates_service().add(again), "Cannot add Template. VM is locked or still running"),
    ]
    with lab.hold("copy_volume") as hold:
        system.templates_service().add(asked)
        lab.wait(lambda: hold.calls)
        assert db.get().status == types.VmStatus.IMAGE_LOCKED
        for act, text in acts:
            with pytest.raises(ovirtsdk4.Error, match=text) as error:
                act()
            assert error.value.code == 409
    lab.wait(lambda: db.get().status == types.VmStatus.DOWN)
    db.start()


def test_a_template_in_use_stays(system: Any, lab: Any, template: Any) -> None:
    vm = add(system, lab)
    with pytest.raises(ovirtsdk4.Error, match="being used by the following VMs: new"):
        template.remove()
    vm.remove()
    lab.wait(lambda: not system.vms_service().list(search="name=new"))
    disk = lab.engine.state.disks[template.disk_attachments_service().list()[0].disk.id]
    with pytest.raises(ovirtsdk4.Error, match="The image is the only remaining copy of a Template disk"):
        system.disks_service().disk_service(disk.id).remove()
    template.remove()
    lab.wait(lambda: not system.templates_service().list(search="name=gold"))
    assert not disk.path.exists()


def test_a_clone_does_not_hold_the_template(system: Any, lab: Any, template: Any) -> None:
    assert add(system, lab, clone=True).get().template.id == "00000000-0000-0000-0000-000000000000"
    template.remove()


def test_a_clone_has_its_disks_as_they_are_asked_for(system: Any, lab: Any, template: Any) -> None:
    [held] = template.disk_attachments_service().list()
    raw: dict[str, Any] = {"id": held.disk.id, "format": types.DiskFormat.RAW, "alias": "other"}
    with pytest.raises(ovirtsdk4.Error, match=r"Cannot add VM. Disk configuration \(RAW Sparse backup-Incremental\)"):
        add(system, lab, clone=True, **raw)
    place = {"storage_domains": [types.StorageDomain(name="data2")], "backup": types.DiskBackup.NONE}
    vm = add(system, lab, clone=True, **raw, **place)
    [attachment] = vm.disk_attachments_service().list(follow="disk")
    disk = attachment.disk
    assert (disk.format, disk.alias) == (types.DiskFormat.RAW, "other")
    assert disk.storage_domains[0].id == system.storage_domains_service().list(search="name=data2")[0].id
    assert len(list(lab.engine.state.disks[disk.id].path.parent.glob(disk.image_id))) == 1


def test_disks_that_a_template_holds_are_layers_on_its_domain(system: Any, lab: Any, template: Any) -> None:
    [held] = template.disk_attachments_service().list()
    for refusal, disk in (
        ("can not be defined as Raw", {"format": types.DiskFormat.RAW}),
        ("does not contain the VM Template", {"storage_domains": [types.StorageDomain(name="data2")]}),
    ):
        with pytest.raises(ovirtsdk4.Error, match=refusal):
            add(system, lab, id=held.disk.id, **disk)
    with pytest.raises(ovirtsdk4.NotFoundError):
        add(system, lab, id=lab.disk_id("db_system"))
    assert not system.vms_service().list(search="name=new")
    vm = add(system, lab, id=held.disk.id, alias="layer")
    disk = vm.disk_attachments_service().list(follow="disk")[0].disk
    assert (disk.alias, disk.format, disk.sparse) == ("layer", types.DiskFormat.COW, True)


def test_versions_share_a_name(system: Any, lab: Any, template: Any) -> None:
    version = types.TemplateVersion(base_template=types.Template(id=template.get().id), version_name="second")
    wanted = types.Template(name="any", vm=types.Vm(id=lab.vm_id("db")), version=version)
    made = system.templates_service().add(wanted)
    service = system.templates_service().template_service(made.id)
    lab.wait(lambda: service.get().status == types.TemplateStatus.OK)
    found = service.get()
    assert (found.name, found.version.version_number, found.version.version_name) == ("gold", 2, "second")
    with pytest.raises(ovirtsdk4.Error, match="other versions"):
        template.remove()


def test_what_cannot_be_a_template_is_refused(system: Any, lab: Any) -> None:
    templates = system.templates_service()
    lab.engine.state.vms[lab.vm_id("web")].status = "up"
    with pytest.raises(ovirtsdk4.Error, match="VM is locked or still running, try again once VM is in the Down state"):
        templates.add(types.Template(name="live", vm=types.Vm(id=lab.vm_id("web"))))
    with pytest.raises(ovirtsdk4.Error, match="already in use"):
        templates.add(types.Template(name="Blank", vm=types.Vm(id=lab.vm_id("db"))))
    with pytest.raises(ovirtsdk4.Error, match="Blank Template"):
        templates.template_service("00000000-0000-0000-0000-000000000000").remove()


def nics_of(service: Any) -> dict[str, Any]:
    return {nic.name: nic for nic in service.nics_service().list()}


def test_a_template_keeps_the_nics_of_its_vm_without_their_addresses(system: Any, lab: Any, template: Any) -> None:
    [source] = system.vms_service().vm_service(lab.vm_id("db")).nics_service().list()
    kept = nics_of(template)[source.name]
    assert (kept.interface, kept.vnic_profile.id, kept.mac) == (source.interface, source.vnic_profile.id, None)
    assert (kept.template.id, kept.vm) == (template.get().id, None)
    assert kept.href == f"{template.get().href}/nics/{kept.id}"


@pytest.mark.parametrize("clone", [False, True])
def test_a_vm_has_the_nics_of_its_template_with_addresses_of_its_own(
    system: Any, lab: Any, template: Any, clone: bool
) -> None:
    mac = types.Mac(address="56:6f:00:00:00:99")
    template.nics_service().add(types.Nic(name="second", interface=types.NicInterface.E1000, linked=False, mac=mac))
    made = nics_of(add(system, lab, clone=clone))
    assert set(made) == set(nics_of(template))
    assert (made["second"].interface, made["second"].linked) == (types.NicInterface.E1000, False)
    macs = [nic.mac for vm in lab.engine.state.vms.values() for nic in vm.nics.values()]
    assert len(macs) == len(set(macs))
    assert mac.address not in macs


def test_nics_of_a_template_are_changed_and_removed(system: Any, lab: Any, template: Any) -> None:
    nics = template.nics_service()
    profile = system.vnic_profiles_service().list()[0].id
    added = nics.add(types.Nic(name="extra", vnic_profile=types.VnicProfile(id=profile)))
    assert (added.interface, added.plugged, added.linked) == (types.NicInterface.VIRTIO, True, True)
    nic = nics.nic_service(added.id)
    nic.update(types.Nic(name="other", vnic_profile=types.VnicProfile()))
    assert (nic.get().name, nic.get().vnic_profile) == ("other", None)
    nic.remove()
    with pytest.raises(ovirtsdk4.NotFoundError):
        nic.get()
    told = [event.description for event in system.events_service().list(search="template.name=gold")]
    for verb in ("extra (VirtIO) was added to", "other (VirtIO) was updated for", "other (VirtIO) was removed from"):
        assert f"Interface {verb} Template gold. (User: admin@internal-authz)" in " ".join(told)


def test_nics_that_a_template_cannot_have_are_refused(system: Any, template: Any) -> None:
    nics = template.nics_service()
    [kept] = nics.list()
    unknown = types.VnicProfile(id="00000000-0000-0000-0000-00000000dead")
    blank = system.templates_service().template_service("00000000-0000-0000-0000-000000000000").nics_service()
    for refusal, service, nic in (
        (r"\[Network interface name is already in use\]", nics, types.Nic(name=kept.name)),
        ("profile doesn't exist", nics, types.Nic(name="a", vnic_profile=unknown)),
        ("MAC address must be in format", nics, types.Nic(name="a", mac=types.Mac(address="56:6f"))),
        ("Multi-cast MAC address", nics, types.Nic(name="a", mac=types.Mac(address="01:00:5e:00:00:01"))),
        (r"Nic \[name\] required for add", nics, types.Nic()),
        ("The relevant Cluster doesn't exist", blank, types.Nic(name="a")),
    ):
        with pytest.raises(ovirtsdk4.Error, match=refusal):
            service.add(nic)
    other = nics.nic_service(nics.add(types.Nic(name="b")).id)
    with pytest.raises(ovirtsdk4.Error, match="name is already in use"):
        other.update(types.Nic(name=kept.name))
    assert {nic.name for nic in nics.list()} == {kept.name, "b"}


def test_a_profile_that_a_template_uses_stays(system: Any, lab: Any, template: Any) -> None:
    profiles = system.vnic_profiles_service()
    network = system.networks_service().list()[0]
    made = profiles.add(types.VnicProfile(name="only-here", network=types.Network(id=network.id)))
    nic = template.nics_service().add(types.Nic(name="n", vnic_profile=types.VnicProfile(id=made.id)))
    with pytest.raises(ovirtsdk4.Error, match="This VM network interface profile is used by template: gold") as error:
        profiles.profile_service(made.id).remove()
    assert error.value.code == 409
    template.nics_service().nic_service(nic.id).remove()
    profiles.profile_service(made.id).remove()


def copied(system: Any, lab: Any, template: Any, domain: str = "data2") -> Any:
    """The disk of the template, which another domain has, too."""
    [held] = template.disk_attachments_service().list()
    disk = system.disks_service().disk_service(held.disk.id)
    disk.copy(storage_domain=types.StorageDomain(name=domain), query={"correlation_id": "copying"})
    lab.wait(lambda: disk.get().status == types.DiskStatus.OK)
    return disk


def domains_of(system: Any, disk: Any) -> list[str]:
    domains = system.storage_domains_service()
    return [domains.storage_domain_service(item.id).get().name for item in disk.get().storage_domains]


def test_the_disk_of_a_template_is_copied_to_another_domain(system: Any, lab: Any, template: Any) -> None:
    """It is the same disk there, and VMs are made on either domain."""
    disk = copied(system, lab, template)
    assert domains_of(system, disk) == ["data", "data2"]
    assert [job.status for job in system.jobs_service().list(search="correlation_id=copying")] == [
        types.JobStatus.FINISHED
    ]
    for name in ("data", "data2"):
        found = system.disks_service().list(search=f"storage.name={name}")
        assert disk.get().id in [item.id for item in found]
    vm = add(system, lab, id=disk.get().id, storage_domains=[types.StorageDomain(name="data2")])
    own = vm.disk_attachments_service().list(follow="disk")[0].disk
    assert domains_of(system, system.disks_service().disk_service(own.id)) == ["data2"]
    assert lab.engine.state.disks[own.id].path.read_bytes() == b"data" * 1024


def test_a_copy_of_a_templates_disk_is_taken_from_a_domain(system: Any, lab: Any, template: Any) -> None:
    disk, domains = copied(system, lab, template), system.storage_domains_service()
    record = lab.engine.state.disks[disk.get().id]
    first, second = record.path, next(iter(record.copies.values()))
    assert (first.exists(), second.exists()) == (True, True)
    with pytest.raises(ovirtsdk4.Error, match="A storage domain must be specified when deleting one of a") as refused:
        disk.remove()
    assert refused.value.code == 400
    places = {item.name: domains.storage_domain_service(item.id).disks_service() for item in domains.list()}
    vm = add(system, lab, id=record.id, storage_domains=[types.StorageDomain(name="data")])
    with pytest.raises(ovirtsdk4.Error, match="Template is being used by the following VMs: new") as refused:
        places["data"].disk_service(record.id).remove()
    assert refused.value.code == 409
    vm.remove()
    lab.wait(lambda: not system.vms_service().list(search="name=new"))
    places["data"].disk_service(record.id).remove()
    lab.wait(lambda: domains_of(system, disk) == ["data2"] and disk.get().status == types.DiskStatus.OK)
    assert (first.exists(), second.exists()) == (False, True)
    with pytest.raises(ovirtsdk4.Error, match="The image is the only remaining copy of a Template disk"):
        places["data2"].disk_service(record.id).remove()
    assert add(system, lab, id=record.id).disk_attachments_service().list()


def test_copies_and_moves_of_templates_disks_that_are_refused(system: Any, lab: Any, template: Any) -> None:
    disk, other = copied(system, lab, template), types.StorageDomain(name="data2")
    with pytest.raises(ovirtsdk4.Error, match="One of the Template Images already exists") as refused:
        disk.copy(storage_domain=other)
    assert refused.value.code == 409
    with pytest.raises(
        ovirtsdk4.Error, match=r"The following disk\(s\) are not attached to any VM: db_system"
    ) as refused:
        disk.move(storage_domain=other)
    assert refused.value.code == 400


def test_a_template_goes_with_all_copies_of_its_disks(system: Any, lab: Any, template: Any) -> None:
    record = lab.engine.state.disks[copied(system, lab, template).get().id]
    paths = [record.path, *record.copies.values()]
    template.remove()
    lab.wait(lambda: not system.templates_service().list(search="name=gold"))
    assert not any(path.parent.exists() for path in paths)


def test_a_copy_of_a_templates_disk_that_fails_leaves_it_as_it_was(system: Any, lab: Any, template: Any) -> None:
    async def fail(*args: object, **kwargs: object) -> None:
        raise HostError("no space left")

    for host in lab.hosts:
        host.copy_volume = fail
    disk = copied(system, lab, template)
    assert domains_of(system, disk) == ["data"]
    assert lab.codes()[-1] == 2007
