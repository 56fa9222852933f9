# SPDX-License-Identifier: GPL-3.0-or-later
"""Hybrid backups: they read a snapshot, leave the VM free, and merge at the end; what goes wrong shows late."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.snapshots import creating

MIB = 1 << 20


@pytest.fixture
def hybrid(world: Any) -> Any:
    """An engine that makes hybrid backups."""
    world.state.settings.use_hybrid_backup = True
    return world


def filled(*pieces: tuple[int, int]) -> bytes:
    data = bytearray(4 * MIB)
    for offset, byte in pieces:
        data[offset * MIB : (offset + 1) * MIB] = bytes([byte]) * MIB
    return bytes(data)


def content(path: Path, tmp: Path) -> bytes:
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", path, tmp], check=True, timeout=90)
    return tmp.read_bytes()


def get(world: Any, url: str) -> bytes:
    context = ssl.create_default_context(cafile=str(world.daemon.ca))
    with urllib.request.urlopen(url, context=context, timeout=20) as answer:
        data: bytes = answer.read()
    return data


def read(world: Any, backup: types.Backup, disk: Disk, *, dirty: bool) -> tuple[bytes, list[tuple[int, int]]]:
    """All data of a disk of a backup, and its dirty extents in MiB."""
    transfer = world.start_transfer(backup=types.Backup(id=backup.id), disk=types.Disk(id=disk.id))
    data = get(world, transfer.transfer_url)
    extents = json.loads(get(world, f"{transfer.transfer_url}/extents?context=dirty")) if dirty else []
    world.finalize_transfer(transfer)
    return data, [(item["start"] // MIB, item["length"] // MIB) for item in extents if item["dirty"]]


def snapshots(world: Any, vm: Vm) -> list[types.Snapshot]:
    listed = world.system.vms_service().vm_service(vm.id).snapshots_service().list()
    return [item for item in listed if item.snapshot_type != types.SnapshotType.ACTIVE]


def write(world: Any, vm: Vm, offset: int, byte: int, *, up: bool) -> None:
    if not vm.host_id:
        world.start_vm(vm)
    world.write(vm, f"write -P {byte} {offset}M 1M")
    if not up:
        world.stop_vm(vm)


@pytest.mark.parametrize("up", [True, False])
def test_full_then_two_incrementals(hybrid: Any, tmp_path: Path, up: bool) -> None:
    disk, raw = hybrid.add_disk(), hybrid.add_disk(fmt="raw")
    vm = hybrid.add_vm(disk, raw, up=up)
    original = disk.image_id
    write(hybrid, vm, 0, 1, up=up)
    full = hybrid.start_backup(vm, disk, raw)
    assert full.host is None
    [snapshot] = snapshots(hybrid, vm)
    assert (snapshot.description, full.snapshot.id) == ("Auto-generated for Backup VM", snapshot.id)
    assert disk.status == "ok"
    # what is written meanwhile is not in it, and is in the next
    write(hybrid, vm, 1, 2, up=up)
    assert read(hybrid, full, disk, dirty=False)[0] == filled((0, 1))
    assert read(hybrid, full, raw, dirty=False)[0] == filled()
    with pytest.raises(sdk.Error, match="during a backup operation"):
        hybrid.system.vms_service().vm_service(vm.id).snapshots_service().snapshot_service(snapshot.id).remove()
    hybrid.finalize_backup(vm, full)
    assert snapshots(hybrid, vm) == []
    assert (disk.image_id, disk.volumes, raw.format) == (original, [], "raw")

    write(hybrid, vm, 2, 3, up=up)
    second = hybrid.start_backup(vm, disk, from_checkpoint_id=full.to_checkpoint_id)
    data, extents = read(hybrid, second, disk, dirty=True)
    assert (data, extents) == (filled((0, 1), (1, 2), (2, 3)), [(1, 2)])
    write(hybrid, vm, 3, 4, up=up)
    hybrid.finalize_backup(vm, second)
    third = hybrid.start_backup(vm, disk, from_checkpoint_id=second.to_checkpoint_id)
    data, extents = read(hybrid, third, disk, dirty=True)
    assert (data, extents) == (filled((0, 1), (1, 2), (2, 3), (3, 4)), [(3, 1)])
    hybrid.finalize_backup(vm, third)
    if up:
        hybrid.stop_vm(vm)
    assert content(disk.path, tmp_path / "t") == data
    assert len(hybrid.call(hybrid.host.bitmaps, disk.path)) == 3


def test_a_live_backup_follows_a_hybrid_one(hybrid: Any) -> None:
    disk = hybrid.add_disk()
    vm = hybrid.add_vm(disk)
    full = hybrid.start_backup(vm, disk)
    hybrid.finalize_backup(vm, full)
    write(hybrid, vm, 1, 5, up=True)
    hybrid.state.settings.use_hybrid_backup = False
    live = hybrid.start_backup(vm, disk, from_checkpoint_id=full.to_checkpoint_id)
    assert live.host.id == vm.host_id
    assert read(hybrid, live, disk, dirty=True) == (filled((1, 5)), [(1, 1)])
    hybrid.finalize_backup(vm, live)


def test_a_merge_that_fails_leaves_the_snapshot_and_the_backup_succeeds(hybrid: Any) -> None:
    disk = hybrid.add_disk()
    vm = hybrid.add_vm(disk)
    backup = hybrid.start_backup(vm, disk)
    hybrid.host.broken = frozenset({"merge_live"})
    assert hybrid.finalize_backup(vm, backup).phase.value == "succeeded"
    told = hybrid.told()[-2:]
    assert told[0] == (
        10813,
        "warning",
        "Possible failure while removing a snapshot that was generated automatically during backup of VM "
        f"'{vm.name}'. The snapshot may be removed manually",
    )
    assert told[1][0] == 10793
    [leftover] = snapshots(hybrid, vm)
    hybrid.host.broken = frozenset()
    hybrid.system.vms_service().vm_service(vm.id).snapshots_service().snapshot_service(leftover.id).remove()
    hybrid.until(lambda: not snapshots(hybrid, vm))


def test_a_checkpoint_of_no_use_shows_at_the_transfer(hybrid: Any) -> None:
    """The engine knows checkpoints, and not whether their bitmaps are there."""
    disk = hybrid.add_disk()
    vm = hybrid.add_vm(disk, up=False)
    full = hybrid.finalize_backup(vm, hybrid.start_backup(vm, disk))
    unknown = types.Backup(disks=[types.Disk(id=disk.id)], from_checkpoint_id=hybrid.state.new_id())
    with pytest.raises(sdk.Error, match="doesn't exist") as caught:
        hybrid.backups(vm).add(unknown)
    assert caught.value.code == 400
    hybrid.call(hybrid.host.remove_bitmap, disk.path, full.to_checkpoint_id)
    backup = hybrid.start_backup(vm, disk, from_checkpoint_id=full.to_checkpoint_id)
    assert backup.phase.value == "ready"
    transfer = hybrid.start_broken_transfer(backup=types.Backup(id=backup.id), disk=types.Disk(id=disk.id))
    assert hybrid.wait_transfer(transfer.id, "finished_failure").phase.value == "finished_failure"
    assert 1068 in hybrid.codes()
    hybrid.finalize_backup(vm, backup)
    assert snapshots(hybrid, vm) == []


def test_a_snapshot_that_fails_or_is_refused_fails_the_backup(hybrid: Any) -> None:
    disk = hybrid.add_disk()
    vm = hybrid.add_vm(disk)
    hybrid.host.broken = frozenset({"snapshot_vm"})
    assert hybrid.start_backup(vm, disk).phase.value == "failed"
    assert (disk.status, disk.volumes, hybrid.checkpoints(vm).list()) == ("ok", [], [])
    assert hybrid.codes() == [45, 10790, 170, 69, 10792]
    disk.status = "locked"
    with pytest.raises(sdk.Error, match="The following disks are locked"):
        hybrid.backups(vm).add(types.Backup(disks=[types.Disk(id=disk.id)]))
    assert disk.status == "locked"
    assert hybrid.codes()[5:] == [117, 10790, 10792]
    assert hybrid.state.locks.holder([("disk", disk.id)]) is None
    assert [backup.phase.value for backup in hybrid.backups(vm).list()] == ["failed", "failed"]


def test_a_backup_is_stopped_and_goes_on_from_there(hybrid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finalizing only marks it, also before it is ready; once more is an error. What happens is told in this order."""
    make_snapshot, stopped = creating.run, threading.Event()

    async def make_snapshot_then(*args: Any) -> Any:
        while not stopped.is_set():
            await asyncio.sleep(0.01)
        return await make_snapshot(*args)

    monkeypatch.setattr(creating, "run", make_snapshot_then)
    disk = hybrid.add_disk()
    vm = hybrid.add_vm(disk)
    backup = hybrid.backups(vm).add(types.Backup(disks=[types.Disk(id=disk.id)]))
    assert backup.phase.value == "starting"
    assert (backup.host, backup.snapshot is None) == (None, False)
    service = hybrid.backups(vm).backup_service(backup.id)
    assert service.disks_service().list() == []
    assert hybrid.checkpoints(vm).list() == []
    service.finalize()
    with pytest.raises(sdk.Error, match="is already stopped, no need to stop the backup again") as caught:
        service.finalize()
    assert caught.value.code == 400
    stopped.set()
    hybrid.wait_backup(vm, backup.id, "succeeded")
    assert [item.id for item in hybrid.checkpoints(vm).list()] == [service.get().to_checkpoint_id]
    assert hybrid.codes() == [45, 10790, 10796, 68, 342, 356, 10793]
    text = f"Backup {backup.id} for VM {vm.name} stopped (User: admin@internal-authz)."
    assert (10796, "normal", text) in hybrid.told()


def test_what_a_backup_holds(hybrid: Any) -> None:
    """All disks of the VM from beginning to end, but not the VM; a second backup at a time is refused."""
    disk, other = hybrid.add_disk(), hybrid.add_disk()
    vm = hybrid.add_vm(disk, other)
    backup = hybrid.start_backup(vm, disk)
    assert [item.id for item in hybrid.backups(vm).backup_service(backup.id).disks_service().list()] == [disk.id]
    assert (disk.status, other.status) == ("ok", "ok")
    assert hybrid.state.locks.holder([("disk", other.id)]) is not None
    assert hybrid.state.locks.holder([("vm", vm.id)]) is None
    for query in ({}, {"legacy": "true"}):
        with pytest.raises(sdk.Error, match="Disk is locked") as caught:
            hybrid.backups(vm).add(types.Backup(disks=[types.Disk(id=other.id)]), query=query)
        assert caught.value.code == 409
    hybrid.finalize_backup(vm, backup)
    assert hybrid.state.locks.holder([("disk", other.id)]) is None


def test_raw_disks_alone_make_an_empty_checkpoint(hybrid: Any) -> None:
    disk = hybrid.add_disk(fmt="raw")
    vm = hybrid.add_vm(disk)
    backup = hybrid.start_backup(vm, disk)
    checkpoint = hybrid.checkpoints(vm).checkpoint_service(backup.to_checkpoint_id)
    assert checkpoint.disks_service().list() == []
    hybrid.finalize_backup(vm, backup)
