# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine restarts while a real host works for it: before the host has begun, or when it has done all unheard."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ovirtsdk4 import types

from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.infrastructure import StorageDomain
from ovirtlab.engine.entities.vms import Vm

MIB = 1 << 20
WHEN = pytest.mark.parametrize("when", ["before", "after"])
UP = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])


def content(path: Path, tmp: Path) -> bytes:
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", path, tmp], check=True, timeout=90)
    return tmp.read_bytes()[: 4 * MIB]


def filled(*pieces: tuple[int, int]) -> bytes:
    data = bytearray(4 * MIB)
    for offset, byte in pieces:
        data[offset * MIB : (offset + 1) * MIB] = bytes([byte]) * MIB
    return bytes(data)


def write(world: Any, vm: Vm, offset: int, byte: int) -> None:
    """Write one MiB, by a VM that runs or is started for it."""
    up = bool(vm.host_id)
    if not up:
        world.start_vm(vm)
    world.write(vm, f"write -P {byte} {offset}M 1M")
    if not up:
        world.stop_vm(vm)


def settled(world: Any) -> bool:
    state = world.state
    busy = [item for item in (*state.disks.values(), *state.snapshots.values()) if item.status == "locked"]
    busy += [disk for disk in state.disks.values() if disk.troubled]
    held = [vm for vm in state.vms.values() if state.locks.holder([("vm", vm.id)])]
    return not busy and not held and all(job.status == "finished" for job in state.jobs.values())


def restart(world: Any, halt: Any) -> None:
    """Restart the engine once the host is where it halts."""
    world.call(halt.reached.wait)
    world.restart_engine()
    assert not settled(world)


def files(disk: Disk) -> set[str]:
    return {path.name for path in disk.path.parent.iterdir()}


def snapshots(world: Any, vm: Vm) -> Any:
    return world.system.vms_service().vm_service(vm.id).snapshots_service()


def taken(world: Any, vm: Vm) -> Any:
    """The service of a snapshot that was made."""
    service = snapshots(world, vm)
    made = service.snapshot_service(service.add(types.Snapshot(description="first")).id)
    world.until(lambda: settled(world))
    return made


@pytest.fixture
def elsewhere(world: Any) -> types.StorageDomain:
    """Another storage domain."""
    domain = StorageDomain(id=world.state.new_id(), name="other", data_center_id="dc", path=world.folder / "other")
    world.state.storage_domains[domain.id] = domain
    return types.StorageDomain(id=domain.id)


@WHEN
@UP
def test_a_snapshot_is_made(world: Any, tmp_path: Path, when: str, up: bool) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk, up=up)
    write(world, vm, 0, 1)
    original = disk.image_id
    with world.halted("snapshot_vm" if up else "create_overlay", when=when) as halt:
        snapshots(world, vm).add(types.Snapshot(description="first"))
        restart(world, halt)
    world.until(lambda: settled(world))
    assert halt.calls == 1
    assert (disk.volumes, disk.status) == ([original], "ok")
    write(world, vm, 1, 2)
    assert content(disk.path.with_name(original), tmp_path / "t") == filled((0, 1))
    assert content(disk.path, tmp_path / "t") == filled((0, 1), (1, 2))


@WHEN
@UP
def test_a_snapshot_is_merged_away(world: Any, tmp_path: Path, when: str, up: bool) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk, up=up)
    write(world, vm, 0, 1)
    original = disk.image_id
    snapshot = taken(world, vm)
    write(world, vm, 1, 2)
    with world.halted("merge_live" if up else "merge_volumes", when=when) as halt:
        snapshot.remove()
        restart(world, halt)
        if up:
            write(world, vm, 2, 3)
    world.until(lambda: settled(world))
    assert halt.calls == 1
    assert (world.state.snapshots, disk.volumes, files(disk)) == ({}, [], {original})
    write(world, vm, 3, 4)
    expected = [(0, 1), (1, 2), (3, 4), *([(2, 3)] if up else [])]
    assert content(disk.path, tmp_path / "t") == filled(*expected)


@WHEN
def test_a_disk_is_copied(world: Any, tmp_path: Path, elsewhere: types.StorageDomain, when: str) -> None:
    disk = world.add_disk()
    write(world, world.add_vm(disk, up=False), 0, 1)
    service = world.system.disks_service().disk_service(disk.id)
    with world.halted("copy_volume", when=when) as halt:
        service.copy(storage_domain=elsewhere, disk=types.Disk(alias="again"))
        restart(world, halt)
    world.until(lambda: settled(world))
    copy = next(item for item in world.state.disks.values() if item.alias == "again")
    assert (halt.calls, copy.storage_domain_id) == (1, elsewhere.id)
    assert content(copy.path, tmp_path / "t") == filled((0, 1))


@WHEN
@pytest.mark.parametrize("verb", ["copy_volume", "delete_volume"])
def test_a_disk_is_moved(world: Any, tmp_path: Path, elsewhere: Any, *, when: str, verb: str) -> None:
    disk = world.add_disk()
    old = disk.path
    write(world, world.add_vm(disk, up=False), 0, 1)
    world.call(world.host.add_bitmap, disk.path, "mark")
    with world.halted(verb, when=when) as halt:
        world.system.disks_service().disk_service(disk.id).move(storage_domain=elsewhere)
        world.call(halt.reached.wait)
        world.restart_engine()
    world.until(lambda: settled(world) and disk.storage_domain_id == elsewhere.id and not old.exists())
    assert halt.calls == 1
    assert content(disk.path, tmp_path / "t") == filled((0, 1))
    assert list(world.call(world.host.bitmaps, disk.path)) == ["mark"]


@WHEN
def test_a_template_is_made(world: Any, tmp_path: Path, when: str) -> None:
    disk, other = world.add_disk(), world.add_disk()
    vm = world.add_vm(disk, other, up=False)
    write(world, vm, 0, 1)
    templates = world.system.templates_service()
    with world.halted("copy_volume", when=when) as halt:
        template = templates.add(types.Template(name="golden", vm=types.Vm(id=vm.id)))
        restart(world, halt)
        assert templates.template_service(template.id).get().status == types.TemplateStatus.LOCKED
    world.until(lambda: settled(world))
    assert templates.template_service(template.id).get().status == types.TemplateStatus.OK
    assert halt.calls == 2
    copies = [world.state.disks[disk_id] for disk_id in world.state.templates[template.id].attachments]
    assert [content(copy.path, tmp_path / "t") for copy in copies] == [filled((0, 1)), filled()]


@WHEN
@UP
def test_the_snapshot_of_a_hybrid_backup_goes(world: Any, tmp_path: Path, when: str, up: bool) -> None:
    """The backup itself has failed, as an engine that restarts marks all that were under way."""
    world.state.settings.use_hybrid_backup = True
    disk = world.add_disk()
    vm = world.add_vm(disk, up=up)
    write(world, vm, 0, 1)
    backup = world.start_backup(vm, disk)
    world.wait_backup(vm, backup.id, "ready")
    write(world, vm, 1, 2)
    with world.halted("merge_live" if up else "merge_volumes", when=when) as halt:
        world.backups(vm).backup_service(backup.id).finalize()
        restart(world, halt)
    world.until(lambda: settled(world))
    assert (world.state.snapshots, disk.volumes) == ({}, [])
    assert content(disk.path, tmp_path / "t") == filled((0, 1), (1, 2))


@WHEN
def test_the_snapshot_of_a_hybrid_backup_is_made_and_can_be_removed(world: Any, when: str) -> None:
    world.state.settings.use_hybrid_backup = True
    disk = world.add_disk()
    vm = world.add_vm(disk)
    with world.halted("snapshot_vm", when=when) as halt:
        world.backups(vm).add(types.Backup(disks=[types.Disk(id=disk.id)]))
        restart(world, halt)
    world.until(lambda: settled(world))
    (snapshot,) = world.state.snapshots
    snapshots(world, vm).snapshot_service(snapshot).remove()
    world.until(lambda: settled(world) and not world.state.snapshots)
    assert disk.volumes == []
