# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-memory twin of the Manager keeps the contract, and fails when told to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from overkeep.engine.api import ObjectKind, TransferRequest
from overkeep.engine.errors import EngineUnreachable, VmLocked
from overkeep.errors import Unauthorized
from overkeep.model.inventory import Disk, DiskFormat, Nic, Vm, VmStatus
from overkeep.testing.access import MemoryAccess
from overkeep.testing.engine import MemoryEngine
from overkeep.units import GIB

from .contract import EngineContract, World, backed_up, disk_spec, new_id, start, transferring


def disk(disk_id: str, fmt: DiskFormat, *, bootable: bool) -> Disk:
    return Disk(
        id=disk_id,
        name=f"{disk_id}_name",
        size=GIB,
        format=fmt,
        bootable=bootable,
        storage_domain_id="domain-1",
        storage_domain="data1",
    )


@pytest.fixture
def memory() -> MemoryEngine:
    engine = MemoryEngine()
    nic = Nic(
        id="n1",
        name="nic1",
        mac="56:6f:aa:00:00:01",
        vnic_profile_id="profile-1",
        vnic_profile="ovirtmgmt",
        network="ovirtmgmt",
    )
    up = Vm(
        id="vm-up",
        name="web",
        status=VmStatus.UP,
        cluster_id="cluster-1",
        cluster="Default",
        host_id="host-1",
        disks=(disk("d1", DiskFormat.COW, bootable=True), disk("d2", DiskFormat.RAW, bootable=False)),
        nics=(nic,),
    )
    engine.add_vm(up)
    engine.add_vm(
        Vm(
            id="vm-down",
            name="db",
            status=VmStatus.DOWN,
            cluster_id="cluster-1",
            cluster="Default",
            disks=(disk("d3", DiskFormat.COW, bootable=True),),
        )
    )
    return engine


@pytest.fixture
def world(memory: MemoryEngine) -> World:
    def describe(vm_id: str) -> None:
        memory.describe(vm_id, tags=("child", "parent"), lab="yes")

    def refuse_merges() -> Callable[[], None]:
        memory.failing_merges["vm-up"] = 99
        return memory.failing_merges.clear

    return World(
        engine=memory,
        up="vm-up",
        down="vm-down",
        describe=describe,
        mute=lambda: memory.mute.add("vm-up"),
        refuse_merges=refuse_merges,
    )


class TestMemoryEngine(EngineContract):
    """The whole suite."""


DOWN = EngineUnreachable(url="https://engine", reason="down")


def test_fault_before_the_effect(world: World, memory: MemoryEngine) -> None:
    memory.fail("start_backup", DOWN, on=2)
    start(world, "b1")
    with pytest.raises(EngineUnreachable):
        start(world, "b1")
    start(world, "b1")
    assert len(memory.backups("vm-up")) == 1


def test_fault_after_the_effect(world: World, memory: MemoryEngine) -> None:
    memory.fail("create_disk", DOWN, after=True)
    spec = disk_spec(world)
    with pytest.raises(EngineUnreachable):
        memory.create_disk(spec)
    assert memory.disk_status(spec.id) == "ok"
    memory.create_disk(spec)


def test_lock_of_another_operation(world: World, memory: MemoryEngine) -> None:
    memory.hold("vm-up", "VM is locked by a migration.")
    with pytest.raises(VmLocked, match="migration"):
        start(world, "b1")
    memory.let_go("vm-up")
    start(world, "b1")


def test_a_paused_upload_is_resumed(world: World, memory: MemoryEngine) -> None:
    spec = disk_spec(world)
    memory.create_disk(spec)
    request = TransferRequest(disk_id=spec.id, upload=True)
    transfer_id = memory.start_transfer(request)
    first = transferring(memory, transfer_id).ticket
    memory.set_phase(transfer_id, "paused_system")
    assert memory.start_transfer(request) == transfer_id
    assert transferring(memory, transfer_id).ticket not in ("", first)


def test_purged_and_lost(world: World, memory: MemoryEngine) -> None:
    with backed_up(world, new_id()) as ready:
        pass
    memory.purge(ready.id)
    memory.lose_checkpoints("vm-up")
    assert memory.backup("vm-up", ready.id).phase == "gone"
    assert memory.checkpoints("vm-up") == ()


def test_calls_are_recorded(memory: MemoryEngine) -> None:
    memory.find_vm("web")
    memory.post_event("normal", "x", number=1, vm_id="vm-up")
    assert memory.calls == ["find_vm", "post_event"]
    assert memory.events == [("normal", "x", "vm-up")]


def test_access() -> None:
    access = MemoryAccess()
    access.add("t1", user_id="u1", name="ann@internal")
    access.add("t2", user_id="u2", admin=True)
    access.allow("u1", "v1", "backup_disk", "run_vm")
    assert access.authenticate("t1").name == "ann@internal"
    assert access.permits("t1", "v1") == {"backup_disk", "run_vm"}
    assert access.permits("t1", "v2") == frozenset()
    assert "run_vm" in access.permits("t2", "v2")
    access.allow("u1", "c1", "create_vm", of=ObjectKind.CLUSTER)
    assert access.permits("t1", "c1") == frozenset()
    assert access.permits("t1", "c1", of=ObjectKind.CLUSTER) == {"create_vm"}
    access.forbid("u1", "v1", "run_vm")
    assert access.permits("t1", "v1") == {"backup_disk"}
    access.revoke("t1")
    with pytest.raises(Unauthorized):
        access.permits("t1", "v1")
