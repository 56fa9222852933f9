# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of a snapshot that hang on another VM, as backup programs in an agent VM read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

MIB = 1 << 20


@contextmanager
def refused(text: str, code: int = 409) -> Iterator[None]:
    with pytest.raises(sdk.Error, match=text) as error:
        yield
    assert error.value.code == code


def snapshot_of(world: Any, vm: Any, text: str) -> Any:
    """Make a snapshot and return its service."""
    snapshots = world.system.vms_service().vm_service(vm.id).snapshots_service()
    made = snapshots.add(types.Snapshot(description=text, persist_memorystate=False))
    service = snapshots.snapshot_service(made.id)
    world.until(lambda: service.get().snapshot_status == types.SnapshotStatus.OK)
    return service


def attachments_of(world: Any, vm: Any) -> Any:
    return world.system.vms_service().vm_service(vm.id).disk_attachments_service()


def attach(world: Any, agent: Any, disk: Any, snapshot: Any, *, active: bool = True) -> Any:
    wanted = types.Disk(id=disk.id, snapshot=types.Snapshot(id=snapshot.get().id))
    return attachments_of(world, agent).add(
        types.DiskAttachment(disk=wanted, interface=types.DiskInterface.VIRTIO, bootable=False, active=active)
    )


def reads(world: Any, vm: Any, target: str, pattern: int, offset: str) -> bool:
    """Whether a VM reads nothing but the pattern there."""
    return "failed" not in world.call(world.host.block_io, vm.id, target, f"read -P {pattern} {offset} 64k")


def test_an_agent_reads_what_was_there_when_the_snapshot_was_made(world: Any) -> None:
    """It sees neither what the VM writes later, nor does what it writes itself reach the VM or the snapshot."""
    disk, own = world.add_disk(), world.add_disk()
    vm, agent = world.add_vm(disk), world.add_vm(own)
    world.write(vm, "write -P 1 0 1M")
    first = snapshot_of(world, vm, "first")
    world.write(vm, "write -P 2 0 64k")
    world.write(vm, "write -P 2 2M 64k")
    second = snapshot_of(world, vm, "second")
    world.write(vm, "write -P 3 0 64k")

    shown = attach(world, agent, disk, second)
    assert (shown.id, shown.active) == (disk.id, True)
    target = world.state.vms[agent.id].snapshot_disks[disk.id].target
    assert reads(world, agent, target, 2, "0")
    assert reads(world, agent, target, 1, "64k")
    assert reads(world, agent, target, 2, "2M")
    world.write(agent, "write -P 9 0 64k", target)
    assert reads(world, agent, target, 9, "0")
    assert reads(world, vm, "sda", 3, "0")

    attachment = attachments_of(world, agent).attachment_service(disk.id)
    attachment.update(types.DiskAttachment(active=False))
    attachment.update(types.DiskAttachment(active=True))
    assert reads(world, agent, target, 2, "0")  # nothing of what it wrote is left
    attachment.remove()
    assert not [path for path in (world.run / "transient").rglob("*") if path.is_file()]

    attach(world, agent, disk, first)
    assert reads(world, agent, target, 1, "0")
    assert reads(world, agent, target, 0, "2M")
    attachments_of(world, agent).attachment_service(disk.id).remove()
    for snapshot in (first, second):
        snapshot.remove()
        world.until(lambda: all(item.status == "ok" for item in world.state.snapshots.values()))
    world.until(lambda: not world.state.snapshots)
    assert reads(world, vm, "sda", 3, "0")


def test_a_snapshot_that_hangs_elsewhere_stays(world: Any) -> None:
    disk = world.add_disk()
    vm, agent = world.add_vm(disk), world.add_vm(world.add_disk(), up=False)
    snapshot = snapshot_of(world, vm, "held")
    attach(world, agent, disk, snapshot, active=False)
    with refused(f"{disk.alias} ,held, {agent.name}"):
        snapshot.remove()
    with refused("already attached to VM"):
        attach(world, agent, disk, snapshot)
    with refused("already attached to VM"):
        attach(world, vm, disk, snapshot)
    with refused("VM's Snapshot does not exist", code=400):
        unknown = types.Disk(id=disk.id, snapshot=types.Snapshot(id=world.state.new_id()))
        attachments_of(world, agent).add(types.DiskAttachment(disk=unknown, interface=types.DiskInterface.VIRTIO))
    attachments_of(world, agent).attachment_service(disk.id).remove()
    snapshot.remove()
    world.until(lambda: not world.state.snapshots)


def test_what_hangs_there_of_others_is_neither_backed_up_nor_snapshotted(world: Any) -> None:
    disk, own = world.add_disk(), world.add_disk()
    vm, agent = world.add_vm(disk), world.add_vm(own)
    snapshot = snapshot_of(world, vm, "mine")
    attach(world, agent, disk, snapshot)
    listed = attachments_of(world, agent).list()
    assert {item.id for item in listed} == {own.id, disk.id}
    with refused("are not active"):
        world.backups(agent).add(types.Backup(disks=[types.Disk(id=disk.id)]), query={"legacy": "true"})
    of_agent = snapshot_of(world, agent, "of the agent")
    assert [item.id for item in of_agent.disks_service().list()] == [own.id]
    attachments_of(world, agent).attachment_service(disk.id).remove()
    # the VM's own disk is backed up meanwhile as ever
    backup = world.start_backup(vm, disk)
    assert world.finalize_backup(vm, backup).phase == types.BackupPhase.SUCCEEDED
