# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs made from others, as clients see them: settings, events and jobs, refusals, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from ovirtlab.engine.entities.people import Permission, User


def service(lab: Any, system: Any, name: str = "web") -> Any:
    return system.vms_service().vm_service(lab.vm_id(name))


def clone(lab: Any, system: Any, name: str = "web", **options: Any) -> Any:
    """Ask for a clone and wait until it is made."""
    service(lab, system, name).clone(vm=types.Vm(name="twin"), **options)
    finish(lab)
    return service(lab, system, "twin")


def take(lab: Any, system: Any, name: str = "web") -> types.Snapshot:
    snapshots = service(lab, system, name).snapshots_service()
    made = snapshots.add(types.Snapshot(description="first"))
    lab.wait(lambda: not locked(lab))
    return made


def unfreeze(lab: Any, system: Any, snapshot: types.Snapshot, **fields: Any) -> Any:
    """Ask for a VM from a snapshot."""
    cluster = types.Cluster(name="Default")
    asked = types.Vm(name="twin", cluster=cluster, snapshots=[types.Snapshot(id=snapshot.id)], **fields)
    return system.vms_service().add(asked)


def finish(lab: Any) -> None:
    """Wait until the VM is made, or is known not to be; its event is the last thing that the engine does."""
    lab.wait(lambda: {53, 60} & set(lab.codes()))


def record(lab: Any, name: str) -> Any:
    return lab.engine.state.vms[lab.vm_id(name)]


def locked(lab: Any) -> bool:
    state = lab.engine.state
    busy = any(item.status == "locked" for item in (*state.disks.values(), *state.snapshots.values()))
    return busy or any(state.locks.holder([("vm", vm_id)]) for vm_id in state.vms)


def aliases(lab: Any, name: str) -> list[str]:
    return [disk.alias for disk in lab.engine.state.disks_of(record(lab, name))]


def jobs(lab: Any) -> list[tuple[str, str]]:
    return [(job.description, job.status) for job in lab.engine.state.jobs.values()]


@contextmanager
def refused(text: str, code: int = 409) -> Iterator[None]:
    with pytest.raises(sdk.Error, match=text) as error:
        yield
    assert error.value.code == code


@pytest.mark.parametrize("name", ["web", "db"])
def test_a_clone_is_a_vm_of_its_own(lab: Any, system: Any, name: str) -> None:
    """Of a VM that runs, and of one that is down."""
    origin = record(lab, name)
    nic = next(iter(origin.nics.values()))
    service(lab, system, name).watchdogs_service().add(
        types.Watchdog(model=types.WatchdogModel.I6300ESB, action=types.WatchdogAction.RESET)
    )
    service(lab, system, name).update(
        types.Vm(description="the first", high_availability=types.HighAvailability(enabled=True, priority=50))
    )
    twin = clone(lab, system, name)
    shown = twin.get()
    assert (shown.description, shown.high_availability.priority) == ("the first", 50)
    assert (shown.memory, shown.template.id) == (origin.memory, "00000000-0000-0000-0000-000000000000")
    assert aliases(lab, "twin") == [f"{alias}_twin" for alias in aliases(lab, name)]
    assert not {*record(lab, "twin").attachments} & {*origin.attachments}
    (own,) = record(lab, "twin").nics.values()
    assert (own.name, own.vnic_profile_id) == (nic.name, nic.vnic_profile_id)
    assert own.id != nic.id
    assert own.mac != nic.mac
    assert [item.model for item in twin.watchdogs_service().list()] == [types.WatchdogModel.I6300ESB]
    assert not lab.engine.state.snapshots
    assert {37, 53} <= set(lab.codes())
    assert not {45, 68, 342, 356} & set(lab.codes())
    assert (f"Creating VM twin as a clone of VM {name}", "finished") in jobs(lab)
    assert not [text for text, _ in jobs(lab) if "Snapshot" in text]
    assert record(lab, name).status == ("up" if name == "web" else "down")


def test_clones_of_disks_lie_where_they_are_wanted(lab: Any, system: Any) -> None:
    data2 = system.storage_domains_service().list(search="name=data2")[0]
    clone(lab, system, "db", storage_domain=types.StorageDomain(id=data2.id))
    disks = lab.engine.state.disks_of(record(lab, "twin"))
    assert {disk.storage_domain_id for disk in disks} == {data2.id}
    folder = lab.engine.state.storage_domains[data2.id].path
    assert all(disk.path.exists() and disk.path.is_relative_to(folder) for disk in disks)


def test_a_shared_disk_hangs_on_the_clone_and_an_unplugged_one_is_copied(lab: Any, system: Any) -> None:
    shared = lab.engine.state.disks[lab.disk_id("web_data")]
    shared.shareable = True
    db = service(lab, system, "db")
    db.disk_attachments_service().add(
        types.DiskAttachment(disk=types.Disk(id=shared.id), interface=types.DiskInterface.VIRTIO, active=True)
    )
    db.disk_attachments_service().attachment_service(lab.disk_id("db_system")).update(
        types.DiskAttachment(active=False)
    )
    clone(lab, system, "db")
    attachments = record(lab, "twin").attachments
    assert set(attachments) == {shared.id, lab.disk_id("db_system_twin")}
    assert not attachments[lab.disk_id("db_system_twin")].active


def test_a_clone_with_all_its_snapshots(lab: Any, system: Any) -> None:
    take(lab, system, "db")
    origin = next(iter(lab.engine.state.snapshots.values()))
    service(lab, system, "db").update(types.Vm(comment="later"))
    twin = clone(lab, system, "db", discard_snapshots=False)
    (snapshot,) = [item for item in twin.snapshots_service().list() if item.snapshot_type.value == "regular"]
    assert snapshot.description == "first"
    assert abs((snapshot.date - origin.date).total_seconds()) < 1
    shown = twin.snapshots_service().snapshot_service(snapshot.id).get(query={"all_content": "true"})
    text = shown.initialization.configuration.data
    disk = lab.engine.state.disks[lab.disk_id("db_system_twin")]
    assert len(disk.volumes) == 1
    assert all(key in text for key in (twin.get().id, disk.id, disk.volumes[0], "<Name>twin</Name>"))
    assert not any(key in text for key in (lab.vm_id("db"), lab.disk_id("db_system"), "later"))
    twin.snapshots_service().snapshot_service(snapshot.id).remove()
    lab.wait(lambda: len(lab.engine.state.snapshots) == 1)
    assert disk.volumes == []


def test_what_cannot_be_cloned_is_refused(lab: Any, system: Any) -> None:
    web, db = service(lab, system), service(lab, system, "db")
    with refused("vm.name", 400):
        web.clone()
    with refused("name is already in use"):
        web.clone(vm=types.Vm(name="db"))
    with refused("not down"):
        web.clone(vm=types.Vm(name="twin"), discard_snapshots=False)
    disk = lab.engine.state.disks[lab.disk_id("db_system")]
    for status, text, code in (("locked", "disks are locked", 409), ("illegal", "disks are in ILLEGAL status", 500)):
        disk.status = status
        with refused(f"{text}: db_system", code):
            db.clone(vm=types.Vm(name="twin"))
    disk.status = "ok"
    system.storage_domains_service().list(search="name=data2")
    domain = next(item for item in lab.engine.state.storage_domains.values() if item.name == "data2")
    domain.status = "maintenance"
    with refused("Storage Domain's status is Maintenance"):
        db.clone(vm=types.Vm(name="twin"), storage_domain=types.StorageDomain(id=domain.id))
    assert len(lab.engine.state.vms) == 2
    assert not locked(lab)


def test_a_vm_that_is_being_cloned_does_nothing_else(lab: Any, system: Any) -> None:
    db = service(lab, system, "db")
    with lab.hold("copy_volume") as hold:
        db.clone(vm=types.Vm(name="twin"))
        lab.wait(lambda: hold.calls)
        assert record(lab, "twin").status == "image_locked"
        for act in (db.start, db.remove, lambda: db.clone(vm=types.Vm(name="third"))):
            with refused("VM is being cloned"):
                act()
        disk = system.disks_service().disk_service(lab.disk_id("db_system"))
        with refused("VM is being cloned"):
            disk.copy(storage_domain=types.StorageDomain(name="data2"))
    finish(lab)
    db.start()


@pytest.mark.parametrize("verb", ["create_overlay", "copy_volume", "merge_volumes"])
def test_what_is_left_when_a_clone_fails(lab: Any, system: Any, verb: str) -> None:
    """Nothing of the clone; when its snapshot is not merged, it is there to be removed."""
    before = set(lab.engine.state.disks)
    with lab.hold(verb, failing=True) as hold:
        service(lab, system, "db").clone(vm=types.Vm(name="twin"))
        lab.wait(lambda: hold.calls)
    finish(lab)
    made = verb == "merge_volumes"
    assert ("twin" in [vm.name for vm in lab.engine.state.vms.values()]) == made
    assert (set(lab.engine.state.disks) == before) != made
    assert [item.description for item in lab.engine.state.snapshots.values()] == (
        ["Auto-generated for Clone VM"] if made else []
    )
    assert lab.codes().count(53 if made else 60) == 1
    assert jobs(lab)[-1] == ("Creating VM twin as a clone of VM db", "finished" if made else "failed")
    assert record(lab, "db").status == "down"


@pytest.mark.parametrize("name", ["web", "db"])
def test_a_vm_from_a_snapshot_is_as_it_was_then(lab: Any, system: Any, name: str) -> None:
    """But for what the request says of it."""
    service(lab, system, name).update(types.Vm(description="then", comment="then"))
    snapshot = take(lab, system, name)
    service(lab, system, name).update(types.Vm(description="now"))
    made = unfreeze(lab, system, snapshot, comment="my own")
    assert (made.status, made.description, made.comment) == (types.VmStatus.IMAGE_LOCKED, "then", "my own")
    finish(lab)
    assert aliases(lab, "twin") == [f"{alias}_twin" for alias in aliases(lab, name)]
    assert [disk.format for disk in lab.engine.state.disks_of(record(lab, "twin"))] == (
        ["cow", "raw"] if name == "web" else ["cow"]
    )
    (own,), (nic,) = record(lab, "twin").nics.values(), record(lab, name).nics.values()
    assert own.mac != nic.mac
    assert {37, 53} <= set(lab.codes())
    assert ("Creating VM twin from Snapshot first in Cluster Default", "finished") in jobs(lab)
    assert [item.status for item in lab.engine.state.snapshots.values()] == ["ok"]


def test_disks_from_a_snapshot_are_as_they_are_wanted(lab: Any, system: Any) -> None:
    snapshot = take(lab, system)
    data2 = system.storage_domains_service().list(search="name=data2")[0]
    volume = lab.engine.state.disks[lab.disk_id("web_data")].volumes[0]
    disk = types.Disk(image_id=volume, format=types.DiskFormat.COW, storage_domains=[types.StorageDomain(id=data2.id)])
    unfreeze(lab, system, snapshot, disk_attachments=[types.DiskAttachment(disk=disk)])
    finish(lab)
    made = lab.engine.state.disks[lab.disk_id("web_data_twin")]
    assert (made.format, made.storage_domain_id) == ("cow", data2.id)
    other = lab.engine.state.disks[lab.disk_id("web_system_twin")]
    assert other.storage_domain_id != data2.id


def test_a_snapshot_that_is_read_stays(lab: Any, system: Any) -> None:
    snapshot = take(lab, system, "db")
    db = service(lab, system, "db")
    with lab.hold("copy_volume") as hold:
        unfreeze(lab, system, snapshot)
        lab.wait(lambda: hold.calls)
        assert db.snapshots_service().snapshot_service(snapshot.id).get().snapshot_status.value == "locked"
        for act in (db.snapshots_service().snapshot_service(snapshot.id).remove, db.start):
            with refused("performing an operation on a Snapshot"):
                act()
        with refused("performing an operation on a Snapshot"):
            unfreeze(lab, system, snapshot)
    finish(lab)
    db.snapshots_service().snapshot_service(snapshot.id).remove()


def test_what_is_left_when_a_copy_of_a_snapshot_fails(lab: Any, system: Any) -> None:
    snapshot = take(lab, system, "web")
    before = set(lab.engine.state.disks)
    with lab.hold("copy_volume", failing=True) as hold:
        unfreeze(lab, system, snapshot)
        lab.wait(lambda: hold.calls)
    finish(lab)
    assert set(lab.engine.state.disks) == before
    assert len(lab.engine.state.vms) == 2
    assert lab.codes().count(60) == 1


def test_no_vm_is_made_of_what_is_no_regular_snapshot(lab: Any, system: Any) -> None:
    snapshot = take(lab, system, "db")
    db = service(lab, system, "db")
    with refused("Not Found|not found|", 404):
        unfreeze(lab, system, types.Snapshot(id="00000000-0000-4000-8000-0000000000ff"))
    with refused("required for", 400):
        system.vms_service().add(
            types.Vm(name="x", cluster=types.Cluster(name="Default"), snapshots=[types.Snapshot(description="first")])
        )
    with refused("required for", 400):
        system.vms_service().add(types.Vm(name="x", snapshots=[types.Snapshot(id=snapshot.id)]))
    db.preview_snapshot(snapshot=types.Snapshot(id=snapshot.id))
    lab.wait(lambda: not locked(lab))
    with refused("previewing a Snapshot"):
        unfreeze(lab, system, snapshot)


def test_who_may_make_vms_of_others(lab: Any, system: Any) -> None:
    """A right on the VM lets its holder clone it, and the clone is the holder's own then."""
    snapshot = take(lab, system, "db")
    state = lab.engine.state
    user = User(id=state.new_id(), name="joe", domain="internal", password="pw")
    state.users[user.id] = user
    role = {role.name: role.id for role in state.roles.values()}

    def allow(name: str, on: tuple[str, str]) -> None:
        key = state.new_id()
        state.permissions[key] = Permission(id=key, user_id=user.id, role_id=role[name], on=on)

    allow("UserRole", ("vm", lab.vm_id("db")))
    connection = lab.connect("joe@internal", "pw")
    joe = connection.system_service()
    with pytest.raises(sdk.AuthError):
        service(lab, joe, "db").clone(vm=types.Vm(name="twin"))
    with pytest.raises(sdk.AuthError):
        unfreeze(lab, joe, snapshot)
    allow("VmCreator", ("vm", lab.vm_id("db")))
    service(lab, joe, "db").clone(vm=types.Vm(name="twin"))
    finish(lab)
    service(lab, joe, "twin").update(types.Vm(comment="mine"))
    with pytest.raises(sdk.AuthError):
        unfreeze(lab, joe, snapshot)
    connection.close()
