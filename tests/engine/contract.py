# SPDX-License-Identifier: GPL-3.0-or-later
"""What every adapter of the port to the Manager must do: one suite for the real one and for the twin."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from overkeep.engine.api import (
    AttachSpec,
    BackupRequest,
    BackupSession,
    DiskSpec,
    Engine,
    NicSpec,
    Transfer,
    TransferRequest,
    VmSpec,
)
from overkeep.engine.errors import (
    Busy,
    CheckpointInvalid,
    DiskInUse,
    EngineRefused,
    EventNumberTaken,
    GuestNotFrozen,
    GuestNotThawed,
    NameInUse,
    NoSuchVm,
    NotFoundInEngine,
    VmLocked,
)
from overkeep.engine.ovf import BadOvf
from overkeep.model.inventory import DiskFormat, Place, VmStatus
from overkeep.model.points import BackupKind, Mode
from overkeep.units import MIB

NOBODY = "11111111-2222-3333-4444-555555555555"
_DEADLINE = 90.0


@dataclass(frozen=True, kw_only=True)
class World:
    """A Manager with a VM that is up (disks: one QCOW2, one raw; one NIC) and one that is down (one QCOW2 disk)."""

    engine: Engine
    up: str
    down: str
    describe: Callable[[str], None]
    """Give a VM the tag `child` below `parent`, and the custom property `lab` with the value `yes`."""
    mute: Callable[[], None]
    """Take the guest's agent away from the VM that is up; it has one."""
    refuse_merges: Callable[[], Callable[[], None]]
    """Let no snapshot of the VM that is up be merged, until what is returned is called."""


class EngineContract:
    """Subclasses give the fixture `world`."""

    @pytest.fixture
    def engine(self, world: World) -> Engine:
        return world.engine

    # inventory

    def test_version(self, engine: Engine) -> None:
        assert engine.test().startswith("4.")

    def test_vm(self, world: World) -> None:
        vm = world.engine.vm(world.up)
        assert (vm.id, vm.status) == (world.up, VmStatus.UP)
        assert vm.host_id in {host.id for host in world.engine.hosts()}
        assert world.engine.clusters()[vm.cluster] == vm.cluster_id
        assert {disk.format for disk in vm.disks} == {DiskFormat.COW, DiskFormat.RAW}
        assert all(disk.size > 0 and disk.active and not disk.locked for disk in vm.disks)
        domains = world.engine.storage_domains()
        assert all(domains[disk.storage_domain] == disk.storage_domain_id for disk in vm.disks)
        assert [disk.bootable for disk in vm.disks].count(True) == 1
        (nic,) = vm.nics
        assert nic.mac
        assert world.engine.vnic_profiles()[f"{nic.vnic_profile}/{nic.network}"] == nic.vnic_profile_id

    def test_places(self, world: World) -> None:
        found = world.engine.places([world.up, world.down, NOBODY])
        names = {host.id: host.name for host in world.engine.hosts()}
        assert set(found) == {world.up, world.down}
        for vm_id, place in found.items():
            vm = world.engine.vm(vm_id)
            assert place == Place.of(names.get(vm.host_id, ""), vm.disks)
            assert place.domains
        assert found[world.up].host

    def test_hosts_that_see_a_storage_domain(self, world: World) -> None:
        (disk,) = world.engine.vm(world.down).disks
        seeing = world.engine.hosts_seeing(disk.storage_domain_id)
        assert world.engine.vm(world.up).host_id in {host.id for host in seeing}
        assert set(seeing) <= {host for host in world.engine.hosts() if host.status == "up"}
        assert world.engine.hosts_seeing(NOBODY) == ()

    def test_vm_that_is_down(self, world: World) -> None:
        assert world.engine.vm(world.down).status is VmStatus.DOWN

    def test_unknown_vm(self, engine: Engine) -> None:
        with pytest.raises(NotFoundInEngine, match=NOBODY):
            engine.vm(NOBODY)

    def test_find_vm_by_name_or_id(self, world: World) -> None:
        vm = world.engine.vm(world.up)
        assert world.engine.find_vm(vm.name) == world.engine.find_vm(vm.id) == vm

    @pytest.mark.parametrize("name", ["no-such-vm", NOBODY, "", "*", 'a" or name="*'])
    def test_find_unknown_vm(self, engine: Engine, name: str) -> None:
        with pytest.raises(NoSuchVm, match="no VM"):
            engine.find_vm(name)

    def test_vms(self, world: World) -> None:
        found = {vm.id: vm for vm in world.engine.vms()}
        assert {world.up, world.down} <= set(found)
        assert found[world.up].name == world.engine.vm(world.up).name
        assert found[world.up].disks == ()

    def test_candidates(self, world: World) -> None:
        world.describe(world.down)
        plain, described = sorted(
            world.engine.candidates(["child", "par*", "other"]), key=lambda vm: (vm.id == world.down, vm.name)
        )[-2:]
        assert (described.id, described.name, described.cluster) == (world.down, "db", "Default")
        assert (described.tags, described.properties) == ({"child", "par*"}, {"lab": "yes"})
        assert (plain.id, plain.tags, plain.properties) == (world.up, frozenset(), {})

    def test_names_of_one_data_center(self, world: World) -> None:
        cluster = world.engine.vm(world.up).cluster_id
        assert world.engine.storage_domains(cluster_id=cluster)
        assert world.engine.vnic_profiles(cluster_id=cluster)

    def test_configuration(self, world: World) -> None:
        vm = world.engine.vm(world.up)
        kept = world.engine.configuration(world.up)
        assert "Envelope" in kept.ovf
        assert kept.document["version"] == 1
        assert kept.document["cluster"] == {"id": vm.cluster_id, "name": vm.cluster}
        nics = kept.document["nics"]
        assert isinstance(nics, list)
        assert [(nic["name"], nic["mac"], nic["network"]["name"]) for nic in nics] == [
            (nic.name, nic.mac, nic.network) for nic in vm.nics
        ]

    # guests

    def test_a_guest_is_frozen_and_thawed(self, world: World) -> None:
        world.engine.freeze(world.up)
        for _ in range(2):
            world.engine.thaw(world.up)

    def test_a_guest_without_an_agent_is_not_frozen(self, world: World) -> None:
        world.mute()
        with pytest.raises(GuestNotFrozen, match="Guest agent non responsive"):
            world.engine.freeze(world.up)
        with pytest.raises(GuestNotThawed, match=world.up) as caught:
            world.engine.thaw(world.up)
        assert caught.value.retry

    def test_a_vm_that_is_down_or_unknown_holds_nothing_still(self, world: World) -> None:
        for vm_id in (world.down, NOBODY):
            world.engine.thaw(vm_id)
            with pytest.raises(EngineRefused) as caught:
                world.engine.freeze(vm_id)
            assert not isinstance(caught.value, GuestNotFrozen), "it says nothing about the guest"

    def test_a_guest_is_frozen_before_its_backup_and_thawed_while_it_is(self, world: World) -> None:
        world.engine.freeze(world.up)
        with backed_up(world, new_id()):
            world.engine.thaw(world.up)

    def test_a_backup_that_must_freeze_its_guest_and_cannot_fails(self, world: World) -> None:
        engine, backup_id = world.engine, new_id()
        world.mute()
        disks = tuple(disk.id for disk in engine.vm(world.up).disks)
        request = BackupRequest(
            id=backup_id,
            vm_id=world.up,
            disk_ids=disks,
            from_checkpoint=None,
            description="x",
            require_consistency=True,
        )
        engine.start_backup(request)
        wait_until(lambda: engine.backup(world.up, backup_id).phase == "failed")
        assert engine.checkpoints(world.up) == ()
        assert not any(disk.locked for disk in engine.vm(world.up).disks)

    # backups

    def test_backup_from_start_to_end(self, world: World) -> None:
        engine, backup_id = world.engine, new_id()
        assert engine.backup(world.up, backup_id).phase == "gone"
        vm = engine.vm(world.up)
        with backed_up(world, backup_id) as ready:
            assert ready.modes == {disk.id: Mode.FULL for disk in vm.disks}
            assert ready.checkpoint_id
            assert ready.host_id == vm.host_id
            assert all(disk.locked for disk in engine.vm(world.up).disks)
            assert ready.description == "Overkeep job 1"
            told = {session.id: session.description for session in engine.backups(world.up)}
            assert told[backup_id] == ready.description
        assert not any(disk.locked for disk in engine.vm(world.up).disks)
        assert engine.checkpoints(world.up) == (ready.checkpoint_id,)

    def test_starting_twice_starts_one(self, world: World) -> None:
        with backed_up(world, new_id()) as ready:
            start(world, ready.id)
            running = [s for s in world.engine.backups(world.up) if s.phase not in ("succeeded", "failed")]
            assert [session.id for session in running] == [ready.id]

    def test_finalizing_again_is_success(self, world: World) -> None:
        with backed_up(world, new_id()) as ready:
            pass
        world.engine.finalize_backup(world.up, ready.id)
        world.engine.finalize_backup(world.up, NOBODY)
        world.engine.finalize_backup(NOBODY, NOBODY)

    def test_a_second_backup_is_refused(self, world: World) -> None:
        with backed_up(world, new_id()), pytest.raises(VmLocked) as caught:
            start(world, new_id())
        assert caught.value.retry
        assert caught.value.fields["words"]

    def test_backup_of_an_unknown_vm(self, engine: Engine) -> None:
        request = BackupRequest(id=new_id(), vm_id=NOBODY, disk_ids=(NOBODY,), from_checkpoint=None, description="x")
        with pytest.raises(NotFoundInEngine, match=NOBODY):
            engine.start_backup(request)

    def test_incremental_backup_tells_modes(self, world: World) -> None:
        with backed_up(world, new_id()) as first:
            pass
        modes = {DiskFormat.COW: Mode.INCREMENTAL, DiskFormat.RAW: Mode.FULL}
        with backed_up(world, new_id(), base=first.checkpoint_id) as second:
            assert second.modes == {disk.id: modes[disk.format] for disk in world.engine.vm(world.up).disks}
        assert world.engine.checkpoints(world.up) == (first.checkpoint_id, second.checkpoint_id)

    def test_unknown_checkpoint(self, world: World) -> None:
        with pytest.raises(CheckpointInvalid, match="full backup"):
            start(world, new_id(), base=NOBODY)

    def test_deleting_a_checkpoint(self, world: World) -> None:
        with backed_up(world, new_id()) as ready:
            assert ready.checkpoint_id
            with pytest.raises(VmLocked):
                world.engine.delete_checkpoint(world.up, ready.checkpoint_id)
        for _ in range(2):
            world.engine.delete_checkpoint(world.up, ready.checkpoint_id)
        assert world.engine.checkpoints(world.up) == ()
        world.engine.delete_checkpoint(world.up, NOBODY)
        world.engine.delete_checkpoint(NOBODY, NOBODY)

    def test_cold_backup(self, world: World) -> None:
        with backed_up(world, new_id(), vm_id=world.down) as ready:
            assert set(ready.modes.values()) == {Mode.FULL}
            with pytest.raises(VmLocked):
                world.engine.start_vm(world.down)
        assert world.engine.checkpoints(world.down) == (ready.checkpoint_id,)

    # hybrid backups

    def test_a_hybrid_backup_reads_a_snapshot_and_leaves_the_vm_free(self, world: World) -> None:
        engine, backup_id = world.engine, new_id()
        vm = engine.vm(world.up)
        with backed_up(world, backup_id, kind=BackupKind.HYBRID) as ready:
            assert ready.kind is BackupKind.HYBRID
            assert ready.snapshot_id
            assert ready.checkpoint_id
            assert (ready.host_id, ready.modes) == (None, {disk.id: Mode.FULL for disk in vm.disks})
            assert engine.snapshot_status(world.up, ready.snapshot_id) == "ok"
            assert not any(disk.locked for disk in engine.vm(world.up).disks)
            with pytest.raises(VmLocked):
                start(world, new_id())
            with pytest.raises(VmLocked):
                engine.delete_checkpoint(world.up, ready.checkpoint_id)
        assert engine.backup(world.up, backup_id).snapshot_id in (ready.snapshot_id, None)
        assert engine.snapshot_status(world.up, ready.snapshot_id) is None
        assert engine.checkpoints(world.up) == (ready.checkpoint_id,)
        assert [disk.format for disk in engine.vm(world.up).disks] == [disk.format for disk in vm.disks]

    def test_a_legacy_backup_has_no_snapshot(self, world: World) -> None:
        with backed_up(world, new_id()) as ready:
            assert (ready.kind, ready.snapshot_id) == (BackupKind.LEGACY, None)

    def test_backups_of_both_kinds_follow_upon_each_other(self, world: World) -> None:
        told = {DiskFormat.COW: Mode.INCREMENTAL, DiskFormat.RAW: Mode.FULL}
        modes = {disk.id: told[disk.format] for disk in world.engine.vm(world.up).disks}
        base = None
        for kind in (BackupKind.LEGACY, BackupKind.HYBRID, BackupKind.HYBRID, BackupKind.LEGACY):
            with backed_up(world, new_id(), base=base, kind=kind) as ready:
                assert ready.kind is kind
                assert base is None or ready.modes == modes
            base = ready.checkpoint_id

    def test_a_hybrid_backup_opens_its_disks(self, world: World) -> None:
        engine = world.engine
        with backed_up(world, new_id(), kind=BackupKind.HYBRID) as ready:
            disk_id = next(iter(ready.modes))
            transfer_id = engine.start_transfer(TransferRequest(disk_id=disk_id, upload=False, backup_id=ready.id))
            open_ = transferring(engine, transfer_id)
            assert (open_.host_id, bool(open_.ticket)) == (engine.vm(world.up).host_id, True)
            engine.finalize_transfer(transfer_id)
            assert ended_transfer(engine, transfer_id).phase == "finished_success"

    def test_a_vm_may_be_started_during_its_hybrid_backup(self, world: World) -> None:
        with backed_up(world, new_id(), vm_id=world.down, kind=BackupKind.HYBRID) as ready:
            world.engine.start_vm(world.down)
            wait_until(lambda: world.engine.vm(world.down).status is VmStatus.UP)
        assert ready.snapshot_id
        assert world.engine.snapshot_status(world.down, ready.snapshot_id) is None

    def test_a_snapshot_that_could_not_be_merged_stays_until_it_is_removed(self, world: World) -> None:
        engine, allow = world.engine, world.refuse_merges()
        with backed_up(world, new_id(), kind=BackupKind.HYBRID) as ready:
            assert ready.snapshot_id
        snapshot_id = ready.snapshot_id
        assert engine.backup(world.up, ready.id).phase == "succeeded", "the Manager calls it a success"
        assert engine.snapshot_status(world.up, snapshot_id) == "ok"
        engine.delete_snapshot(world.up, snapshot_id)
        wait_until(lambda: engine.snapshot_status(world.up, snapshot_id) != "locked")
        assert engine.snapshot_status(world.up, snapshot_id) == "ok"
        allow()
        for _ in range(2):
            engine.delete_snapshot(world.up, snapshot_id)
            wait_until(lambda: engine.snapshot_status(world.up, snapshot_id) is None)

    def test_unknown_snapshot(self, world: World) -> None:
        for vm_id in (world.up, NOBODY):
            assert world.engine.snapshot_status(vm_id, NOBODY) is None
            world.engine.delete_snapshot(vm_id, NOBODY)

    # transfers

    def test_download(self, world: World) -> None:
        engine = world.engine
        with backed_up(world, new_id()) as ready:
            disk_id = next(iter(ready.modes))
            request = TransferRequest(disk_id=disk_id, upload=False, backup_id=ready.id)
            transfer_id = engine.start_transfer(request)
            open_ = transferring(engine, transfer_id)
            assert (open_.disk_id, open_.host_id) == (disk_id, ready.host_id)
            assert open_.ticket
            assert engine.start_transfer(request) == transfer_id  # taken up again
            assert transfer_id in {transfer.id for transfer in engine.transfers()}
            with pytest.raises(Busy, match="transfer"):
                engine.finalize_backup(world.up, ready.id)
            for _ in range(2):
                engine.finalize_transfer(transfer_id)
            ended = ended_transfer(engine, transfer_id)
            assert (ended.phase, ended.ticket) == ("finished_success", "")
            engine.cancel_transfer(transfer_id)
            assert engine.transfer(transfer_id).phase == "finished_success"

    def test_cancelled_download_and_a_new_one_in_the_same_backup(self, world: World) -> None:
        engine = world.engine
        with backed_up(world, new_id()) as ready:
            request = TransferRequest(disk_id=next(iter(ready.modes)), upload=False, backup_id=ready.id)
            first = engine.start_transfer(request)
            transferring(engine, first)
            engine.cancel_transfer(first)
            assert ended_transfer(engine, first).phase != "finished_success"
            second = engine.start_transfer(request)
            assert second != first
            assert transferring(engine, second).ticket
            engine.finalize_transfer(second)
            ended_transfer(engine, second)

    def test_unknown_transfer(self, engine: Engine) -> None:
        assert engine.transfer(NOBODY) == Transfer(id=NOBODY, disk_id="", phase="gone")
        engine.finalize_transfer(NOBODY)
        engine.cancel_transfer(NOBODY)

    def test_transfer_of_an_unknown_disk(self, engine: Engine) -> None:
        with pytest.raises(EngineRefused):
            engine.start_transfer(TransferRequest(disk_id=NOBODY, upload=True))

    # disks and VMs of a restore

    def test_new_disk(self, world: World) -> None:
        engine, spec = world.engine, disk_spec(world)
        assert engine.disk_status(spec.id) is None
        for _ in range(2):
            engine.create_disk(spec)
            assert engine.disk_status(spec.id) == "ok"
        for _ in range(2):
            engine.delete_disk(spec.id)
            wait_until(lambda: engine.disk_status(spec.id) is None)

    def test_a_disk_of_somebody_else(self, world: World) -> None:
        engine, spec = world.engine, disk_spec(world)
        engine.create_disk(spec)
        with pytest.raises(DiskInUse):
            engine.create_disk(disk_spec(world, disk_id=spec.id, description="of another job"))
        engine.delete_disk(spec.id)

    def test_a_disk_on_an_unknown_domain(self, world: World) -> None:
        with pytest.raises(EngineRefused):
            world.engine.create_disk(disk_spec(world, domain_id=NOBODY))

    def test_upload(self, world: World) -> None:
        engine, spec = world.engine, disk_spec(world)
        engine.create_disk(spec)
        transfer_id = engine.start_transfer(TransferRequest(disk_id=spec.id, upload=True))
        assert transferring(engine, transfer_id).host_id in {host.id for host in engine.hosts()}
        assert engine.disk_status(spec.id) == "locked"
        engine.finalize_transfer(transfer_id)
        assert ended_transfer(engine, transfer_id).phase == "finished_success"
        wait_until(lambda: engine.disk_status(spec.id) == "ok")
        engine.delete_disk(spec.id)

    def test_a_cancelled_upload_takes_its_disk_with_it(self, world: World) -> None:
        engine, spec = world.engine, disk_spec(world)
        engine.create_disk(spec)
        transfer_id = engine.start_transfer(TransferRequest(disk_id=spec.id, upload=True))
        transferring(engine, transfer_id)
        engine.cancel_transfer(transfer_id)
        ended_transfer(engine, transfer_id)
        wait_until(lambda: engine.disk_status(spec.id) is None)

    def test_restored_vm(self, world: World) -> None:
        engine, disk = world.engine, disk_spec(world)
        engine.create_disk(disk)
        spec = vm_spec(world, disk.id)
        vm_id = engine.create_vm(spec)
        assert engine.create_vm(spec) == vm_id  # once more is no other VM
        made, original = engine.vm(vm_id), engine.vm(world.up)
        assert (made.name, made.status, made.cluster_id) == (spec.name, VmStatus.DOWN, spec.cluster_id)
        assert [(d.id, d.interface, d.bootable, d.active) for d in made.disks] == [(disk.id, "virtio", True, True)]
        assert [(n.name, n.vnic_profile_id) for n in made.nics] == [
            ("nic1", original.nics[0].vnic_profile_id),
            ("nic2", ""),
        ]
        assert not {nic.mac for nic in made.nics} & {nic.mac for nic in original.nics}
        assert engine.vm(world.up) == original
        engine.start_vm(vm_id)
        wait_until(lambda: engine.vm(vm_id).status is VmStatus.UP)
        engine.start_vm(vm_id)
        with pytest.raises(EngineRefused):
            engine.delete_vm(vm_id, detach_only=True)

    def test_kept_mac(self, world: World) -> None:
        nic = NicSpec(name="nic1", interface="virtio", vnic_profile_id="", mac="56:6f:1a:2b:00:77")
        vm_id = world.engine.create_vm(vm_spec(world, nics=(nic,)))
        assert [n.mac for n in world.engine.vm(vm_id).nics] == [nic.mac]
        world.engine.delete_vm(vm_id, detach_only=False)

    def test_deleted_vm_leaves_its_disks(self, world: World) -> None:
        engine, disk = world.engine, disk_spec(world)
        engine.create_disk(disk)
        vm_id = engine.create_vm(vm_spec(world, disk.id))
        for _ in range(2):
            engine.delete_vm(vm_id, detach_only=True)
        with pytest.raises(NotFoundInEngine):
            engine.vm(vm_id)
        assert engine.disk_status(disk.id) == "ok"
        engine.delete_disk(disk.id)

    def test_finding_a_vm_by_its_mark(self, world: World) -> None:
        engine, spec = world.engine, vm_spec(world, NOBODY)
        assert engine.find_marked_vm(spec.name, spec.description) is None
        with pytest.raises(EngineRefused) as caught:
            engine.create_vm(spec)  # half-made, as nobody has that disk
        vm_id = caught.value.fields["vm_id"]
        assert engine.find_marked_vm(spec.name, spec.description) == vm_id
        assert engine.find_marked_vm(spec.name, "of another job") is None
        assert engine.find_marked_vm("another name", spec.description) is None
        assert engine.find_marked_vm(engine.vm(world.down).name, spec.description) is None
        engine.delete_vm(vm_id, detach_only=True)
        assert engine.find_marked_vm(spec.name, spec.description) is None

    def test_name_of_somebody_else(self, world: World) -> None:
        with pytest.raises(NameInUse, match="another name"):
            world.engine.create_vm(vm_spec(world, name=world.engine.vm(world.down).name))

    def test_a_half_made_vm_names_itself(self, world: World) -> None:
        spec = vm_spec(world, NOBODY)
        with pytest.raises(EngineRefused) as caught:
            world.engine.create_vm(spec)
        vm_id = caught.value.fields["vm_id"]
        assert world.engine.vm(vm_id).name == spec.name
        world.engine.delete_vm(vm_id, detach_only=True)

    def test_hostile_ovf(self, world: World) -> None:
        with pytest.raises(BadOvf):
            world.engine.create_vm(vm_spec(world, ovf='<!DOCTYPE a [<!ENTITY a "b">]><Envelope>&a;</Envelope>'))

    def test_events(self, world: World) -> None:
        first = uuid.uuid4().int % (1 << 30)
        for _ in range(2):  # a repeat is success
            world.engine.post_event("normal", "Overkeep backed up the VM", number=first, vm_id=world.up)
        world.engine.post_event("warning", "an event of no VM", number=first + 1)
        with pytest.raises(EventNumberTaken):
            world.engine.post_event("normal", "another one", number=first)
        with pytest.raises(EngineRefused):
            world.engine.post_event("normal", "of a VM that is gone", number=first + 2, vm_id=NOBODY)
        assert world.engine.explain(NOBODY) == ""


def new_id() -> str:
    return str(uuid.uuid4())


def wait_until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not look():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.05)


def start(
    world: World,
    backup_id: str,
    *,
    base: str | None = None,
    vm_id: str | None = None,
    kind: BackupKind = BackupKind.LEGACY,
) -> None:
    vm = world.engine.vm(vm_id or world.up)
    world.engine.start_backup(
        BackupRequest(
            id=backup_id,
            vm_id=vm.id,
            disk_ids=tuple(disk.id for disk in vm.disks),
            from_checkpoint=base,
            description="Overkeep job 1",
            kind=kind,
        )
    )


@contextmanager
def backed_up(
    world: World,
    backup_id: str,
    *,
    base: str | None = None,
    vm_id: str | None = None,
    kind: BackupKind = BackupKind.LEGACY,
) -> Iterator[BackupSession]:
    """Start a backup, yield it when it is ready, and end it."""
    vm_id = vm_id or world.up
    start(world, backup_id, base=base, vm_id=vm_id, kind=kind)
    phases = []

    def reached(*wanted: str) -> bool:
        phases.append(world.engine.backup(vm_id, backup_id))
        assert phases[-1].phase != "failed"
        return phases[-1].phase in wanted

    wait_until(lambda: reached("ready"))
    try:
        yield phases[-1]
    finally:
        world.engine.finalize_backup(vm_id, backup_id)
        wait_until(lambda: reached("succeeded", "gone"))


def transferring(engine: Engine, transfer_id: str) -> Transfer:
    wait_until(lambda: engine.transfer(transfer_id).phase == "transferring")
    return engine.transfer(transfer_id)


def ended_transfer(engine: Engine, transfer_id: str) -> Transfer:
    wait_until(lambda: engine.transfer(transfer_id).over)
    return engine.transfer(transfer_id)


def disk_spec(
    world: World, *, disk_id: str | None = None, description: str = "Overkeep job 1", domain_id: str | None = None
) -> DiskSpec:
    return DiskSpec(
        id=disk_id or new_id(),
        name="restored_Disk1",
        size=64 * MIB,
        format=DiskFormat.COW,
        sparse=True,
        tracks_changes=True,
        storage_domain_id=domain_id or next(iter(world.engine.storage_domains().values())),
        description=description,
    )


def vm_spec(
    world: World,
    *disk_ids: str,
    name: str | None = None,
    ovf: str | None = None,
    nics: tuple[NicSpec, ...] | None = None,
) -> VmSpec:
    original = world.engine.vm(world.up)
    plugged = NicSpec(name="nic1", interface="virtio", vnic_profile_id=original.nics[0].vnic_profile_id)
    loose = NicSpec(name="nic2", interface="virtio", vnic_profile_id="")
    return VmSpec(
        name=name or f"restored-{new_id()[:8]}",
        ovf=world.engine.configuration(world.up).ovf if ovf is None else ovf,
        cluster_id=original.cluster_id,
        description="Overkeep job 1",
        disks=tuple(AttachSpec(disk_id=disk_id, interface="virtio", bootable=True) for disk_id in disk_ids),
        nics=(plugged, loose) if nics is None else nics,
    )
