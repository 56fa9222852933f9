# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots over the API: data of each of them, removal live and cold, refusals, failed merges and their cure."""

from __future__ import annotations

import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from ovirtlab.engine.entities.disks import Disk, DiskAttachment
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.hooks import Refusal

MIB = 1 << 20


def service(world: Any, vm: Vm) -> Any:
    return world.system.vms_service().vm_service(vm.id).snapshots_service()


def take(world: Any, vm: Vm, name: str, **fields: Any) -> types.Snapshot:
    """Make a snapshot and wait until it is ok."""
    asked = types.Snapshot(description=name, persist_memorystate=False, **fields)
    made = service(world, vm).add(asked)
    assert made.snapshot_status == types.SnapshotStatus.LOCKED
    world.until(lambda: shown(world, vm, made.id).snapshot_status == types.SnapshotStatus.OK)
    return shown(world, vm, made.id)


def shown(world: Any, vm: Vm, snapshot_id: str, **query: Any) -> types.Snapshot:
    return service(world, vm).snapshot_service(snapshot_id).get(**query)


def remove(world: Any, vm: Vm, snapshot: types.Snapshot) -> None:
    """Remove a snapshot and wait until it is gone."""
    service(world, vm).snapshot_service(snapshot.id).remove()
    world.until(lambda: snapshot.id not in [item.id for item in service(world, vm).list()])


def content(path: Path, tmp: Path) -> bytes:
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", path, tmp], check=True, timeout=90)
    return tmp.read_bytes()[: 4 * MIB]


def filled(*pieces: tuple[int, int]) -> bytes:
    data = bytearray(4 * MIB)
    for offset, byte in pieces:
        data[offset * MIB : (offset + 1) * MIB] = bytes([byte]) * MIB
    return bytes(data)


def disk_snapshots(world: Any, disk: Disk) -> list[types.DiskSnapshot]:
    listed = world.system.disks_service().disk_service(disk.id).disk_snapshots_service()
    return list(listed.list(include_active=True, include_template=True))


def fetch(world: Any, transfer: types.ImageTransfer) -> bytes:
    context = ssl.create_default_context(cafile=str(world.daemon.ca))
    with urllib.request.urlopen(transfer.transfer_url, context=context, timeout=20) as answer:
        data: bytes = answer.read()
    return data


def refused(act: Any, code: int, text: str) -> None:
    with pytest.raises(sdk.Error) as caught:
        act()
    assert caught.value.code == code
    assert text in str(caught.value)


@pytest.mark.parametrize("up", [True, False])
def test_two_snapshots_of_two_disks_come_and_go(world: Any, tmp_path: Path, up: bool) -> None:
    """The older one is removed first (a merge in the middle), then the newer; raw disks are raw again at the end."""
    disk, raw = world.add_disk(), world.add_disk(fmt="raw")
    vm = world.add_vm(disk, raw)
    original = disk.image_id

    def write(offset: int, byte: int, target: str = "sda") -> None:
        if not vm.host_id:
            world.start_vm(vm)
        world.write(vm, f"write -P {byte} {offset}M 1M", target)
        if not up:
            world.stop_vm(vm)

    write(0, 1)
    first = take(world, vm, "first")
    write(1, 2)
    write(1, 7, "sdb")
    second = take(world, vm, "second")
    write(2, 3)
    assert [item.description for item in service(world, vm).list()] == ["Active VM", "first", "second"]
    volumes = disk_snapshots(world, disk)
    assert [item.parent.id if item.parent else None for item in volumes] == [None, volumes[0].id, volumes[1].id]
    assert [item.id for item in volumes] == [original, disk.volumes[1], disk.image_id]
    assert [str(item.format) for item in disk_snapshots(world, raw)] == ["raw", "cow", "cow"]
    held = service(world, vm).snapshot_service(first.id).disks_service().list()
    assert [item.image_id for item in held] == [original, raw.volumes[0]]

    remove(world, vm, first)
    assert disk.volumes == [original]
    assert content(disk.path.with_name(original), tmp_path / "t") == filled((0, 1), (1, 2))
    write(3, 4)
    remove(world, vm, second)
    assert (disk.volumes, disk.image_id, raw.format) == ([], original, "raw")
    write(0, 5)
    if up:
        world.stop_vm(vm)
    assert content(disk.path, tmp_path / "t") == filled((0, 5), (1, 2), (2, 3), (3, 4))
    assert content(raw.path, tmp_path / "t") == filled((1, 7))
    assert len(list(disk.path.parent.iterdir())) == len(list(raw.path.parent.iterdir())) == 1
    assert {45, 68, 342, 356} <= set(world.codes())
    assert vm.status == "down"


def test_a_snapshot_of_one_disk_with_its_configuration(world: Any) -> None:
    disk, other = world.add_disk(), world.add_disk()
    vm = world.add_vm(disk, other, up=False)
    image = world.state.new_id()
    asked = [types.DiskAttachment(disk=types.Disk(id=disk.id, image_id=image))]
    before = disk.image_id
    snapshot = take(world, vm, "partial", disk_attachments=asked)
    assert (disk.image_id, disk.volumes, other.volumes) == (image, [before], [])
    vm.name = "renamed"
    full = shown(world, vm, snapshot.id, query={"all_content": "true"})
    assert "vm-0" in full.initialization.configuration.data
    assert full.initialization.configuration.type == types.ConfigurationType.OVF
    assert shown(world, vm, snapshot.id).initialization is None
    job = next(job for job in world.state.jobs.values() if "partial" in job.description)
    assert job.status == "finished"
    refused(lambda: service(world, vm).add(types.Snapshot()), 400, "required for add")


def test_disk_snapshots_are_downloaded_whole_and_as_one_layer(world: Any) -> None:
    """Each while the VM runs on."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    world.write(vm, "write -P 1 0 1M")
    take(world, vm, "first")
    world.write(vm, "write -P 2 1M 1M")
    take(world, vm, "second")
    world.write(vm, "write -P 3 2M 1M")
    lower = types.DiskSnapshot(id=disk.volumes[0])
    upper = types.DiskSnapshot(id=disk.volumes[1])
    for snapshot, shallow, expected in (
        (lower, False, filled((0, 1))),
        (upper, False, filled((0, 1), (1, 2))),
        (upper, True, filled((1, 2))),
    ):
        transfer = world.start_transfer(snapshot=snapshot, shallow=shallow)
        assert fetch(world, transfer) == expected
        assert disk.status == "ok"
        assert world.finalize_transfer(transfer).phase.value == "finished_success"
    transfer = world.start_transfer(snapshot=upper, format=types.DiskFormat.COW)
    assert fetch(world, transfer) == disk.path.with_name(disk.volumes[1]).read_bytes()
    world.finalize_transfer(transfer)


def test_disk_snapshots_are_locked_while_they_are_downloaded(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    snapshot, _ = take(world, vm, "first"), take(world, vm, "second")
    lower, upper = (types.DiskSnapshot(id=image_id) for image_id in disk.volumes)
    begun = [world.start_transfer(snapshot=lower), world.start_transfer(snapshot=upper)]
    assert [item.status.value for item in disk_snapshots(world, disk)] == ["locked", "locked", "ok"]
    text = f"Cannot remove Snapshot. Disk {disk.alias} is being transferred."
    refused(lambda: remove(world, vm, snapshot), 409, text)
    refused(lambda: world.start_transfer(snapshot=upper), 409, f"The following disks are locked: {disk.alias}")
    for transfer in begun:
        world.finalize_transfer(transfer)
    assert [item.status.value for item in disk_snapshots(world, disk)] == ["ok", "ok", "ok"]
    remove(world, vm, snapshot)


def test_a_merge_that_fails_leaves_illegal_images_until_it_is_tried_again(world: Any, tmp_path: Path) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    world.write(vm, "write -P 1 0 1M")
    snapshot = take(world, vm, "once")
    world.host.broken = frozenset({"merge_live"})
    service(world, vm).snapshot_service(snapshot.id).remove()
    world.until(lambda: 357 in world.codes())
    assert shown(world, vm, snapshot.id).snapshot_status == types.SnapshotStatus.OK
    assert [item.status.value for item in disk_snapshots(world, disk)] == ["illegal", "ok"]
    held = service(world, vm).snapshot_service(snapshot.id).disks_service().list()
    assert [(item.id, item.status) for item in held] == [(disk.id, types.DiskStatus.ILLEGAL)]
    illegal = f"The following attached disks are in ILLEGAL status: {disk.alias} - please remove them and try again."
    domain = world.system.storage_domains_service().storage_domain_service(world.domain)
    one = domain.disk_snapshots_service().snapshot_service(disk.volumes[0])
    refused(one.remove, 500, f"Cannot remove Disk Snapshot. {illegal}")
    world.stop_vm(vm)
    refused(lambda: remove(world, vm, snapshot), 500, f"Cannot remove Snapshot. {illegal}")
    world.start_vm(vm)
    world.write(vm, "write -P 2 1M 1M")
    world.host.broken = frozenset()
    remove(world, vm, snapshot)
    world.stop_vm(vm)
    assert content(disk.path, tmp_path / "t") == filled((0, 1), (1, 2))


def test_only_what_is_active_must_be_legal_for_a_new_snapshot(world: Any) -> None:
    """The removal of that one then writes its status over the whole chain, as the engine's does."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    take(world, vm, "once")
    world.host.broken = frozenset({"merge_live"})
    service(world, vm).snapshot_service(service(world, vm).list()[1].id).remove()
    world.until(lambda: 357 in world.codes())
    world.host.broken = frozenset()
    more = take(world, vm, "more")
    assert [item.status.value for item in disk_snapshots(world, disk)] == ["illegal", "ok", "ok"]
    remove(world, vm, more)
    assert [item.status.value for item in disk_snapshots(world, disk)] == ["ok", "ok"]


def test_a_cold_merge_that_fails_leaves_all_as_it_was(world: Any) -> None:
    disk, other = world.add_disk(), world.add_disk()
    vm = world.add_vm(disk, other, up=False)
    snapshot = take(world, vm, "once")
    world.host.broken = frozenset({"merge_volumes"})
    service(world, vm).snapshot_service(snapshot.id).remove()
    world.until(lambda: 357 in world.codes())
    assert shown(world, vm, snapshot.id).snapshot_status == types.SnapshotStatus.OK
    assert [item.status.value for item in disk_snapshots(world, disk)] == ["ok", "ok"]
    assert (disk.status, other.status) == ("ok", "ok")
    text = f"Snapshot 'once' of VM '{vm.name}' now contains only the following disks: '{disk.alias}, {other.alias}'."
    assert any(text in told for _, _, told in world.told())
    world.host.broken = frozenset()
    remove(world, vm, snapshot)


def test_a_disk_that_is_not_plugged_is_in_a_snapshot(world: Any) -> None:
    """It is frozen though no VM writes to it, and merged when it is plugged or the VM is down."""
    disk, loose = world.add_disk(), world.add_disk()
    vm = world.add_vm(disk, up=True)
    world.state.attach(DiskAttachment(disk_id=loose.id, vm_id=vm.id, active=False))
    before = loose.image_id
    snapshot = take(world, vm, "both")
    held = service(world, vm).snapshot_service(snapshot.id).disks_service().list()
    assert {item.id for item in held} == {disk.id, loose.id}
    assert (loose.volumes, loose.status, loose.image_id != before) == ([before], "ok", True)
    text = f"The following disks are either unplugged or unattached: \n {loose.alias}"
    refused(lambda: remove(world, vm, snapshot), 409, text)
    world.stop_vm(vm)
    remove(world, vm, snapshot)
    assert (loose.volumes, loose.image_id) == ([], before)


def test_a_snapshot_that_cannot_be_made_is_gone(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    before = (disk.image_id, disk.format)
    world.host.broken = frozenset({"snapshot_vm"})
    service(world, vm).add(types.Snapshot(description="no", persist_memorystate=False))
    world.until(lambda: 69 in world.codes())
    assert (disk.image_id, disk.format) == before
    assert disk.status == "ok"
    assert len(list(disk.path.parent.iterdir())) == 1
    assert len(service(world, vm).list()) == 1


def test_a_merge_is_refused_on_demand(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    snapshot = take(world, vm, "once")
    clear = world.context.faults.refuse(Refusal(act="merge", text="no space left", about=vm.id))
    service(world, vm).snapshot_service(snapshot.id).remove()
    world.until(lambda: 357 in world.codes())
    clear()
    remove(world, vm, snapshot)


def test_refusals(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = world.start_backup(vm, disk)
    add = types.Snapshot(description="no", persist_memorystate=False)
    refused(lambda: service(world, vm).add(add), 409, "during a backup operation")
    world.finalize_backup(vm, backup)
    snapshot = take(world, vm, "yes")
    backup = world.start_backup(vm, disk)
    refused(lambda: remove(world, vm, snapshot), 409, "during a backup operation")
    world.finalize_backup(vm, backup)
    refused(lambda: service(world, vm).snapshot_service(vm.id).remove(), 409, "only allowed for regular snapshots")
    missing = types.DiskAttachment(disk=types.Disk(id=vm.id))
    refused(lambda: service(world, vm).add(types.Snapshot(description="x", disk_attachments=[missing])), 400, "exist")
    with world.log_in("other@internal") as other:
        theirs = other.system_service().vms_service().vm_service(vm.id).snapshots_service()
        refused(lambda: theirs.add(add), 403, "not authorized")


def test_one_disk_of_a_snapshot_is_removed(world: Any) -> None:
    disk, other = world.add_disk(), world.add_disk()
    vm = world.add_vm(disk, other)
    snapshot = take(world, vm, "both")
    domain = world.system.storage_domains_service().storage_domain_service(world.domain).disk_snapshots_service()
    assert {item.id for item in domain.list()} == {disk.volumes[0], other.volumes[0]}
    wanted = domain.snapshot_service(disk.volumes[0])
    assert wanted.get().disk.id == disk.id
    wanted.remove()
    world.until(lambda: not disk.volumes)
    world.until(lambda: shown(world, vm, snapshot.id).snapshot_status == types.SnapshotStatus.OK)
    assert [item.id for item in service(world, vm).snapshot_service(snapshot.id).disks_service().list()] == [other.id]


def test_a_preview_is_undone_and_committed(world: Any, tmp_path: Path) -> None:
    """Undone, all is as before; committed, newer snapshots and the checkpoints are gone."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    world.finalize_backup(vm, world.start_backup(vm, disk))
    world.write(vm, "write -P 1 0 1M")
    first = take(world, vm, "first")
    world.write(vm, "write -P 2 0 1M")
    take(world, vm, "second")
    api = world.system.vms_service().vm_service(vm.id)
    refused(
        lambda: api.preview_snapshot(snapshot=types.Snapshot(id=first.id)), 409, "At least one of the VMs is not down."
    )
    world.stop_vm(vm)
    before = (disk.image_id, list(disk.volumes))
    api.preview_snapshot(snapshot=types.Snapshot(id=first.id))
    assert shown(world, vm, first.id).snapshot_status == types.SnapshotStatus.IN_PREVIEW
    assert content(disk.path, tmp_path / "t") == filled((0, 1))
    refused(lambda: service(world, vm).add(types.Snapshot(description="no")), 409, "previewing")
    world.start_vm(vm)
    world.write(vm, "write -P 9 3M 1M")
    world.stop_vm(vm)
    api.undo_snapshot()
    assert (disk.image_id, disk.volumes) == before
    assert content(disk.path, tmp_path / "t") == filled((0, 2))
    assert len(world.checkpoints(vm).list()) == 1

    api.preview_snapshot(snapshot=types.Snapshot(id=first.id))
    api.commit_snapshot()
    assert content(disk.path, tmp_path / "t") == filled((0, 1))
    assert [item.description for item in service(world, vm).list()] == ["Active VM", "first"]
    assert world.checkpoints(vm).list() == []
    assert len(list(disk.path.parent.iterdir())) == 2
    assert vm.status == "down"
    refused(lambda: api.undo_snapshot(), 400, "VM's Snapshot does not exist")


def test_a_preview_ends_while_the_vm_runs_in_it(world: Any, tmp_path: Path) -> None:
    """Committed, the VM goes on with what it has written; undone, what it writes is lost."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    world.write(vm, "write -P 1 0 1M")
    first = take(world, vm, "first")
    api = world.system.vms_service().vm_service(vm.id)
    for end in (api.commit_snapshot, api.undo_snapshot):
        world.stop_vm(vm)
        before = (disk.image_id, list(disk.volumes), content(disk.path, tmp_path / "t"))
        api.preview_snapshot(snapshot=types.Snapshot(id=first.id))
        world.start_vm(vm)
        world.write(vm, "write -P 3 2M 1M")
        end()
        assert vm.status == "up"
        world.write(vm, "write -P 4 3M 1M")
    world.stop_vm(vm)
    assert (disk.image_id, disk.volumes, content(disk.path, tmp_path / "t")) == before
    assert before[2] == filled((0, 1), (2, 3), (3, 4))
    assert len(list(disk.path.parent.iterdir())) == 2


def test_a_vm_is_removed_in_the_middle_of_a_preview(world: Any) -> None:
    """With all volumes of its disks, those that were put aside, too."""
    disk = world.add_disk()
    vm = world.add_vm(disk, up=False)
    first = take(world, vm, "first")
    take(world, vm, "second")
    api = world.system.vms_service().vm_service(vm.id)
    api.preview_snapshot(snapshot=types.Snapshot(id=first.id))
    assert [item.description for item in service(world, vm).list()][-1] == "Active VM before the preview"
    assert len(list(disk.path.parent.iterdir())) == 4
    api.remove()
    assert (world.state.disks, world.state.snapshots, disk.path.parent.exists()) == ({}, {}, False)


def test_a_snapshot_is_restored(world: Any, tmp_path: Path) -> None:
    disk = world.add_disk(fmt="raw")
    vm = world.add_vm(disk)
    world.write(vm, "write -P 1 0 1M")
    snapshot = take(world, vm, "good")
    world.write(vm, "write -P 2 0 2M")
    world.stop_vm(vm)
    service(world, vm).snapshot_service(snapshot.id).restore()
    assert content(disk.path, tmp_path / "t") == filled((0, 1))
    remove(world, vm, snapshot)
    assert (disk.format, content(disk.path, tmp_path / "t")) == ("raw", filled((0, 1)))
