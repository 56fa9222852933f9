# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients see, and what they are refused, while a snapshot is made, removed or previewed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

BUSY = "The VM is performing an operation on a Snapshot. Please wait for the operation to finish, and try again."
STATUS = {"web": types.VmStatus.UP, "db": types.VmStatus.DOWN}
DISKS = {"web": ["web_system", "web_data"], "db": ["db_system"]}
MAKES = {"web": "snapshot_vm", "db": "create_overlay"}
MERGES = {"web": "merge_live", "db": "merge_volumes"}


@dataclass(frozen=True)
class Hands:
    """What a client does with one VM, its first disk and one of its snapshots."""

    lab: Any
    system: Any
    name: str

    @property
    def vm(self) -> Any:
        return self.system.vms_service().vm_service(self.lab.vm_id(self.name))

    @property
    def disk(self) -> Any:
        return self.system.disks_service().disk_service(self.lab.disk_id(DISKS[self.name][0]))

    @property
    def snapshots(self) -> Any:
        return self.vm.snapshots_service()

    def take(self, description: str = "first", *aliases: str) -> types.Snapshot:
        """Ask for a snapshot, of some disks or all."""
        chosen = [types.DiskAttachment(disk=types.Disk(id=self.lab.disk_id(alias))) for alias in aliases]
        asked = types.Snapshot(description=description, persist_memorystate=False, disk_attachments=chosen or None)
        return self.snapshots.add(asked)

    def taken(self, description: str = "first", *aliases: str) -> Any:
        """The service of a snapshot that is there."""
        made = self.snapshots.snapshot_service(self.take(description, *aliases).id)
        self.lab.wait(lambda: made.get().snapshot_status == types.SnapshotStatus.OK and not self.held)
        return made

    def back_up(self, *, legacy: bool) -> None:
        asked = types.Backup(disks=[types.Disk(id=self.disk.get().id)])
        self.vm.backups_service().add(asked, query={"legacy": str(legacy).lower()})

    def plug(self, *, active: bool) -> None:
        attachments = self.vm.disk_attachments_service()
        attachments.attachment_service(self.disk.get().id).update(types.DiskAttachment(active=active))

    def attach_spare(self) -> None:
        disk = types.Disk(id=self.lab.disk_id("spare"))
        hung = types.DiskAttachment(disk=disk, interface=types.DiskInterface.VIRTIO)
        self.vm.disk_attachments_service().add(hung)

    def read(self, image_id: str) -> None:
        snapshot = types.DiskSnapshot(id=image_id)
        down = types.ImageTransferDirection.DOWNLOAD
        self.system.image_transfers_service().add(types.ImageTransfer(snapshot=snapshot, direction=down))

    @property
    def statuses(self) -> list[str]:
        """Of the disks of the VM, as the API lists them."""
        disks = {disk.name: disk.status.value for disk in self.system.disks_service().list()}
        return [disks[alias] for alias in DISKS[self.name]]

    @property
    def images(self) -> list[str]:
        """Of the volumes of the first disk, the oldest first."""
        return [item.status.value for item in self.disk.disk_snapshots_service().list(include_active=True)]

    @property
    def held(self) -> bool:
        """Whether the engine's table has a lock of the VM."""
        return self.lab.engine.state.locks.holder([("vm", self.lab.vm_id(self.name))]) is not None


@pytest.fixture(params=["web", "db"])
def hands(lab: Any, system: Any, request: pytest.FixtureRequest) -> Hands:
    """A VM that runs, and one that is down."""
    return Hands(lab, system, request.param)


@pytest.fixture
def web(lab: Any, system: Any) -> Hands:
    return Hands(lab, system, "web")


@pytest.fixture
def spare(lab: Any, system: Any) -> None:
    """A disk of no VM."""
    domain = [types.StorageDomain(name="data")]
    system.disks_service().add(
        types.Disk(alias="spare", format=types.DiskFormat.COW, provisioned_size=1 << 20, storage_domains=domain)
    )
    lab.wait(lambda: 2021 in lab.codes())


def refused(act: Callable[[], object], code: int = 409) -> str:
    """What a client is told that may not do something, without the brackets."""
    with pytest.raises(sdk.Error) as error:
        act()
    assert error.value.code == code
    return str(error.value).partition('Fault detail is "[')[2].partition(']"')[0]


@contextmanager
def making(hands: Hands) -> Iterator[types.Snapshot]:
    """While a host works at a new snapshot."""
    with hands.lab.hold(MAKES[hands.name]) as hold:
        made = hands.take("new")
        hands.lab.wait(lambda: hold.calls)
        yield made
    hands.lab.wait(lambda: set(hands.statuses) == {"ok"} and not hands.held)


@contextmanager
def merging(hands: Hands, snapshot: Any) -> Iterator[None]:
    """While a host works at the removal of a snapshot."""
    with hands.lab.hold(MERGES[hands.name]) as hold:
        snapshot.remove()
        hands.lab.wait(lambda: hold.calls)
        yield
    hands.lab.wait(lambda: set(hands.statuses) == {"ok"} and len(hands.snapshots.list()) == 1)


def test_what_is_seen_while_a_snapshot_is_made(hands: Hands) -> None:
    """The VM keeps its status and is locked in the engine's table; what is written to from now on is locked, too."""
    with making(hands) as made:
        snapshot = hands.snapshots.snapshot_service(made.id)
        assert snapshot.get().snapshot_status == types.SnapshotStatus.LOCKED
        assert [item.status for item in snapshot.disks_service().list()] == [types.DiskStatus.OK] * len(hands.statuses)
        assert hands.vm.get().status == STATUS[hands.name]
        assert set(hands.statuses) == {"locked"}
        assert hands.held
    assert snapshot.get().snapshot_status == types.SnapshotStatus.OK
    assert hands.images == ["ok", "ok"]


def test_what_is_refused_while_a_snapshot_is_made(hands: Hands, spare: None) -> None:
    older = hands.taken("older")
    why = f"Snapshot is currently being created for VM {hands.name}."
    with making(hands):
        assert refused(lambda: hands.take("another")) == f"Cannot create Snapshot. {why}"
        assert refused(older.remove) == f"Cannot remove Snapshot. {why}"
        assert refused(lambda: hands.back_up(legacy=True)) == f"Cannot backup VM. {why}"
        assert refused(lambda: hands.vm.clone(vm=types.Vm(name="twin"))) == f"Cannot add VM. {why}"
        assert refused(lambda: hands.plug(active=False)) == f"Cannot hot unplug Virtual Disk. {why}"
        assert refused(hands.vm.remove) == f"Cannot remove VM. {why}"
        if hands.name == "web":
            assert refused(hands.vm.migrate) == f"Cannot migrate VM. {why}"
        else:
            assert refused(hands.vm.start) == f"Cannot run VM. {why}"
            preview = types.Snapshot(id=older.get().id)
            assert refused(lambda: hands.vm.preview_snapshot(snapshot=preview)) == f"Cannot preview Snapshot. {why}"


def test_a_vm_is_stopped_while_a_snapshot_is_made(web: Hands) -> None:
    """No lock keeps anybody from that; the snapshot then comes to nothing."""
    with making(web):
        web.vm.stop()
        assert web.vm.get().status == types.VmStatus.DOWN
    assert len(web.snapshots.list()) == 1
    web.vm.start()


def test_what_is_seen_while_a_snapshot_is_removed(hands: Hands) -> None:
    """The VM is as it was, and not locked; the snapshot is, with all volumes of its disks."""
    snapshot = hands.taken()
    with merging(hands, snapshot):
        assert snapshot.get().snapshot_status == types.SnapshotStatus.LOCKED
        assert {item.status for item in snapshot.disks_service().list()} == {types.DiskStatus.LOCKED}
        assert hands.vm.get().status == STATUS[hands.name]
        assert (set(hands.statuses), hands.images) == ({"locked"}, ["locked", "locked"])
        assert not hands.held
    assert hands.images == ["ok"]


def test_what_is_refused_while_a_snapshot_is_removed(hands: Hands, spare: None) -> None:
    """Each act finds the snapshot, or the disks, by itself."""
    snapshot = hands.taken()
    alias = DISKS[hands.name][0]
    locked = f"The following disks are locked: {alias}. Please try again in a few minutes."
    frozen = hands.disk.disk_snapshots_service().list()[0].id
    with merging(hands, snapshot):
        assert refused(lambda: hands.take("another")) == f"Cannot create Snapshot. {BUSY}"
        assert refused(snapshot.remove) == f"Cannot remove Snapshot. {BUSY}"
        assert refused(lambda: hands.back_up(legacy=True)) == f"Cannot backup VM: {locked}"
        assert refused(lambda: hands.back_up(legacy=False)) == f"Cannot create Snapshot. {BUSY}"
        assert refused(hands.attach_spare) == f"Cannot attach Virtual Disk. {BUSY}"
        assert refused(lambda: hands.plug(active=False)) == f"Cannot hot unplug Virtual Disk. {BUSY}"
        assert refused(lambda: hands.disk.update(types.Disk(alias="x"))) == f"Cannot edit Virtual Disk: {locked}"
        assert refused(lambda: hands.read(frozen)) == f"Cannot transfer Virtual Disk: {locked}"
        if hands.name == "web":
            assert refused(hands.vm.migrate) == f"Cannot migrate VM. {BUSY}"
            assert "VM has asynchronous running tasks" in refused(hands.vm.suspend)
        else:
            busy = "Related operation is currently in progress. Please try again later."
            assert refused(hands.vm.start) == f"Cannot run VM. {BUSY}"
            assert refused(hands.vm.remove) == f"Cannot remove VM. {BUSY}"
            assert refused(hands.disk.remove) == f"Cannot remove Virtual Disk. {busy}"
            preview = types.Snapshot(id=snapshot.get().id)
            assert refused(lambda: hands.vm.preview_snapshot(snapshot=preview)) == f"Cannot preview Snapshot. {BUSY}"


def test_snapshots_of_different_disks_are_removed_at_the_same_time(web: Hands) -> None:
    both = [web.taken(alias, alias) for alias in DISKS["web"]]
    with web.lab.hold("merge_live") as hold:
        for place, snapshot in enumerate(both, start=1):
            snapshot.remove()
            web.lab.wait(lambda place=place: hold.calls == place)
        assert web.statuses == ["locked", "locked"]
    web.lab.wait(lambda: web.statuses == ["ok", "ok"] and len(web.snapshots.list()) == 1)


def test_the_status_of_a_disk_while_others_are_merged(web: Hands) -> None:
    """It is ok when its own merge is done, and the snapshot still there."""
    disks = web.lab.engine.state.disks
    snapshot = web.taken()
    first, second = (disks[web.lab.disk_id(alias)] for alias in DISKS["web"])
    with web.lab.hold("delete_volume") as hold:
        snapshot.remove()
        web.lab.wait(lambda: hold.calls)
        assert (first.status, second.status) == ("ok", "locked")
        assert snapshot.get().snapshot_status == types.SnapshotStatus.LOCKED
    web.lab.wait(lambda: web.statuses == ["ok", "ok"])


def test_one_disk_of_a_snapshot_is_removed(web: Hands) -> None:
    """Its volumes are locked, the snapshot is not, and stays with nothing in it."""
    alias = DISKS["web"][0]
    snapshot = web.taken("one", alias)
    domain = web.system.storage_domains_service().storage_domain_service(web.disk.get().storage_domains[0].id)
    wanted = domain.disk_snapshots_service().snapshot_service(web.disk.disk_snapshots_service().list()[0].id)
    locked = f"The following disks are locked: {alias}, {alias}. Please try again in a few minutes."
    with web.lab.hold("merge_live") as hold:
        wanted.remove()
        web.lab.wait(lambda: hold.calls)
        assert (web.statuses, web.images) == (["locked", "ok"], ["locked", "locked"])
        assert snapshot.get().snapshot_status == types.SnapshotStatus.OK
        assert refused(wanted.remove) == f"Cannot remove Disk Snapshot: {locked}"
        assert refused(snapshot.remove) == f"Cannot remove Snapshot: {locked}"
    web.lab.wait(lambda: web.statuses == ["ok", "ok"])
    assert snapshot.disks_service().list() == []
    snapshot.remove()
    web.lab.wait(lambda: len(web.snapshots.list()) == 1)


def test_what_is_refused_while_a_preview_is_made(lab: Any, system: Any) -> None:
    """The VM is not in the engine's table; its status stands in the way."""
    db = Hands(lab, system, "db")
    snapshot = db.taken()
    wanted = types.Snapshot(id=snapshot.get().id)
    with lab.hold("create_overlay") as hold:
        db.vm.preview_snapshot(snapshot=wanted, async_=True)
        lab.wait(lambda: hold.calls)
        assert (db.vm.get().status, db.held) == (types.VmStatus.IMAGE_LOCKED, False)
        locked = "VM is locked. Please try again in a few minutes."
        assert refused(db.vm.start) == f"Cannot run VM: {locked}"
        assert refused(db.vm.remove) == f"Cannot remove VM. {BUSY}"
        assert refused(db.take) == "Cannot create Snapshot because the VM is in Image Locked status."
        assert refused(snapshot.remove) == f"Cannot remove Snapshot. {BUSY}"
        [before] = [item for item in db.snapshots.list() if item.snapshot_type == types.SnapshotType.PREVIEW]
        assert before.snapshot_status == types.SnapshotStatus.LOCKED
        text = "Cannot preview Snapshot. At least one of the VMs is not down."
        assert refused(lambda: db.vm.preview_snapshot(snapshot=wanted)) == text
    lab.wait(lambda: db.vm.get().status == types.VmStatus.DOWN)
    with lab.hold("delete_volume") as hold:
        db.vm.undo_snapshot(async_=True)
        lab.wait(lambda: hold.calls)
        assert (db.vm.get().status, db.held) == (types.VmStatus.IMAGE_LOCKED, False)
        text = "Cannot revert to Snapshot. VM's Snapshot does not exist."
        assert refused(db.vm.commit_snapshot, 400) == text
        assert refused(db.vm.remove) == f"Cannot remove VM: {locked}"
    lab.wait(lambda: db.vm.get().status == types.VmStatus.DOWN)


def test_the_end_of_a_hybrid_backup_leaves_the_vm_free(hands: Hands) -> None:
    """Its disks are locked while the snapshot goes, and nothing is when it is over."""
    backups = hands.vm.backups_service()
    backup = backups.backup_service(backups.add(types.Backup(disks=[types.Disk(id=hands.disk.get().id)])).id)
    hands.lab.wait(lambda: backup.get().phase == types.BackupPhase.READY)
    assert hands.statuses[0] == "ok"
    with hands.lab.hold(MERGES[hands.name]) as hold:
        backup.finalize()
        hands.lab.wait(lambda: hold.calls)
        assert (hands.vm.get().status, hands.held, hands.statuses[0]) == (STATUS[hands.name], False, "locked")
        assert refused(hands.vm.migrate if hands.name == "web" else hands.vm.start).endswith(BUSY)
    hands.lab.wait(lambda: backup.get().phase == types.BackupPhase.SUCCEEDED)
    assert (set(hands.statuses), len(hands.snapshots.list())) == ({"ok"}, 1)


def test_a_live_backup_locks_all_volumes_of_its_disks(web: Hands) -> None:
    web.taken()
    backups = web.vm.backups_service()
    asked = types.Backup(disks=[types.Disk(id=web.disk.get().id)])
    backup = backups.backup_service(backups.add(asked, query={"legacy": "true"}).id)
    assert (web.statuses, web.images) == (["locked", "ok"], ["locked", "locked"])
    web.lab.wait(lambda: backup.get().phase == types.BackupPhase.READY)
    backup.finalize()
    web.lab.wait(lambda: backup.get().phase == types.BackupPhase.SUCCEEDED)
    assert (web.statuses, web.images) == (["ok", "ok"], ["ok", "ok"])
