# SPDX-License-Identifier: GPL-3.0-or-later
"""What VMs hold that are made from others by a real host: the data of one moment, while the other VM writes on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ovirtsdk4 import types

from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm

MIB = 1 << 20
UP = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])


def content(path: Path, tmp: Path) -> bytes:
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", path, tmp], check=True, timeout=90)
    return tmp.read_bytes()[: 4 * MIB]


def info(path: Path) -> dict[str, Any]:
    shown = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], check=True, capture_output=True).stdout
    found: dict[str, Any] = json.loads(shown)
    return found


def filled(*pieces: tuple[int, int]) -> bytes:
    data = bytearray(4 * MIB)
    for offset, byte in pieces:
        data[offset * MIB : (offset + 1) * MIB] = bytes([byte]) * MIB
    return bytes(data)


def write(world: Any, vm: Vm, offset: int, byte: int, target: str = "sda") -> None:
    """Write one MiB, by a VM that runs or is started for it."""
    up = bool(vm.host_id)
    if not up:
        world.start_vm(vm)
    world.write(vm, f"write -P {byte} {offset}M 1M", target)
    if not up:
        world.stop_vm(vm)


def settled(world: Any) -> bool:
    state = world.state
    busy = [item for item in (*state.disks.values(), *state.snapshots.values()) if item.status == "locked"]
    held = [vm for vm in state.vms.values() if state.locks.holder([("vm", vm.id)])]
    return not busy and not held and all(job.status == "finished" for job in state.jobs.values())


def take(world: Any, vm: Vm, name: str) -> types.Snapshot:
    made = service(world, vm).snapshots_service().add(types.Snapshot(description=name))
    world.until(lambda: settled(world))
    return made


def service(world: Any, vm: Vm) -> Any:
    return world.system.vms_service().vm_service(vm.id)


def twin(world: Any) -> Vm:
    return next(vm for vm in world.state.vms.values() if vm.name == "twin")


def copies(world: Any) -> list[Disk]:
    """The disks of the new VM, once it is made."""
    world.until(lambda: settled(world))
    found: list[Disk] = list(world.state.disks_of(twin(world)))
    return found


@UP
@pytest.mark.parametrize("snapshots", [0, 1])
def test_a_clone_holds_one_moment_of_all_disks(world: Any, tmp_path: Path, *, up: bool, snapshots: int) -> None:
    disk, raw = world.add_disk(), world.add_disk(fmt="raw")
    vm = world.add_vm(disk, raw, up=up)
    write(world, vm, 0, 1)
    write(world, vm, 0, 5, "sdb")
    for _ in range(snapshots):
        take(world, vm, "first")
    write(world, vm, 1, 2)
    original = disk.image_id
    with world.halted("copy_volume", when="before") as halt:
        service(world, vm).clone(vm=types.Vm(name="twin"))
        world.call(halt.reached.wait)
        if up:
            world.write(vm, "write -P 9 2M 1M")
    copy, copy_raw = copies(world)
    assert content(copy.path, tmp_path / "t") == filled((0, 1), (1, 2))
    assert content(copy_raw.path, tmp_path / "t") == filled((0, 5))
    assert ["backing-filename" in info(item.path) for item in (copy, copy_raw)] == [False, False]
    assert [info(item.path)["format"] for item in (copy, copy_raw)] == ["qcow2", "raw"]
    assert (disk.image_id, len(disk.volumes), len(world.state.snapshots)) == (original, snapshots, snapshots)
    write(world, vm, 3, 4)
    if up:
        world.stop_vm(vm)
    assert content(disk.path, tmp_path / "t") == filled((0, 1), (1, 2), (3, 4), *([(2, 9)] if up else []))
    new = twin(world)
    world.start_vm(new)
    world.write(new, "write -P 7 0 1M")
    world.stop_vm(new)
    assert content(copy.path, tmp_path / "t") == filled((0, 7), (1, 2))
    assert content(disk.path, tmp_path / "t")[:MIB] == bytes([1]) * MIB


@pytest.mark.parametrize("fmt", ["cow", "raw"])
def test_a_clone_with_its_snapshots_goes_back_to_them(world: Any, tmp_path: Path, fmt: str) -> None:
    disk = world.add_disk(fmt=fmt)
    vm = world.add_vm(disk, up=False)
    for number, name in enumerate(["first", "second"]):
        write(world, vm, number, number + 1)
        take(world, vm, name)
    write(world, vm, 0, 3)
    service(world, vm).clone(vm=types.Vm(name="twin"), discard_snapshots=False)
    (copy,) = copies(world)
    chain = [copy.path.with_name(image_id) for image_id in (*copy.volumes, copy.image_id)]
    assert [info(path).get("backing-filename") for path in chain] == [None, *(path.name for path in chain[:-1])]
    assert [content(path, tmp_path / "t") for path in chain] == [
        filled((0, 1)),
        filled((0, 1), (1, 2)),
        filled((0, 3), (1, 2)),
    ]
    new = twin(world)
    snapshots = service(world, new).snapshots_service()
    first = next(item for item in snapshots.list() if item.description == "first")
    snapshots.snapshot_service(first.id).restore()
    world.until(lambda: settled(world) and new.status == "down")
    write(world, new, 3, 4)
    assert content(copy.path, tmp_path / "t") == filled((0, 1), (3, 4))
    assert content(disk.path, tmp_path / "t") == filled((0, 3), (1, 2))


@UP
def test_a_vm_from_a_snapshot_holds_what_that_has_frozen(world: Any, tmp_path: Path, up: bool) -> None:
    disk, raw = world.add_disk(), world.add_disk(fmt="raw")
    vm = world.add_vm(disk, raw, up=up)
    write(world, vm, 0, 1)
    take(world, vm, "older")
    write(world, vm, 1, 2)
    write(world, vm, 1, 2, "sdb")
    snapshot = take(world, vm, "first")
    write(world, vm, 0, 3)
    asked = types.Vm(name="twin", cluster=types.Cluster(name="Default"), snapshots=[types.Snapshot(id=snapshot.id)])
    with world.halted("copy_volume", when="before") as halt:
        world.system.vms_service().add(asked)
        world.call(halt.reached.wait)
        if up:
            write(world, vm, 2, 9)
    copy, copy_raw = copies(world)
    assert content(copy.path, tmp_path / "t") == filled((0, 1), (1, 2))
    assert content(copy_raw.path, tmp_path / "t") == filled((1, 2))
    assert [(item.format, info(item.path)["format"]) for item in (copy, copy_raw)] == [("cow", "qcow2"), ("raw", "raw")]
    assert not any("backing-filename" in info(item.path) for item in (copy, copy_raw))
    assert len(disk.volumes) == 2
    world.start_vm(twin(world))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_clone_is_made_over_a_restart_of_the_engine(world: Any, tmp_path: Path, when: str) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    write(world, vm, 0, 1)
    with world.halted("copy_volume", when=when) as halt:
        service(world, vm).clone(vm=types.Vm(name="twin"))
        world.call(halt.reached.wait)
        world.restart_engine()
        assert not settled(world)
    (copy,) = copies(world)
    assert halt.calls == 1
    assert content(copy.path, tmp_path / "t") == filled((0, 1))
    assert (disk.volumes, world.state.snapshots) == ([], {})
