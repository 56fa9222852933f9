# SPDX-License-Identifier: GPL-3.0-or-later
"""Table tests of the decision what a backup does with each disk."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from overkeep.model.inventory import Disk, DiskFormat, Vm, VmStatus
from overkeep.model.plan import Basis, NothingToBackUp, VmNotReady, plan_backup
from overkeep.model.points import Changes, DiskImage, Mode, RestorePoint
from overkeep.units import GIB

COW = Disk(id="d1", name="web_Disk1", size=10 * GIB, format=DiskFormat.COW)
RAW = Disk(id="d2", name="web_Disk2", size=5 * GIB, format=DiskFormat.RAW)


def vm(*disks: Disk, status: VmStatus = VmStatus.UP, hosted_engine: bool = False) -> Vm:
    return Vm(
        id="v1", name="web", status=status, cluster_id="c1", cluster="Default", disks=disks, hosted_engine=hosted_engine
    )


def image(disk: Disk, *, size: int | None = None, fmt: DiskFormat | None = None) -> DiskImage:
    return DiskImage(
        disk_id=disk.id,
        name=disk.name,
        file=f"p1-{disk.id}.qcow2",
        backing=None,
        mode=Mode.FULL,
        reason="",
        virtual_size=disk.size if size is None else size,
        stored=0,
        covered=0,
        moved=0,
        format=fmt or disk.format,
        interface="virtio",
        bootable=False,
    )


def point(*images: DiskImage, checkpoint: str | None = "cp1") -> RestorePoint:
    return RestorePoint(
        id="p1",
        workload_id="w",
        vm_id="v1",
        vm_name="web",
        created=dt.datetime(2026, 11, 22, tzinfo=dt.UTC),
        job_id="j1",
        mode=Mode.FULL,
        checkpoint_id=checkpoint,
        images=images,
    )


LAST = point(image(COW), image(RAW))

NO_POINT = Basis(last=None, checkpoints=())


def basis(last: RestorePoint | None = LAST, *checkpoints: str, **more: Any) -> Basis:
    return Basis(last=last, checkpoints=checkpoints or ("cp1",), **more)


SPOILT = {"d1": "the last restore point is damaged"}

FULL_CASES = {
    "first backup": (COW, basis(None), False, "it is the first backup of this VM"),
    "first backup of a raw disk": (RAW, basis(None), False, "it is the first backup of this VM"),
    "asked for": (COW, basis(), True, "a full backup was asked for"),
    "asked for a raw disk": (RAW, basis(), True, "a full backup was asked for"),
    "asked for, and nothing else is possible": (COW, basis(None, spoilt=SPOILT), True, "a full backup was asked for"),
    "spoilt": (COW, basis(spoilt=SPOILT), False, "the last restore point is damaged"),
    "spoilt and the checkpoint is lost": (COW, basis(LAST, "cp0", spoilt=SPOILT), False, "is damaged"),
    "new disk": (COW, basis(point(image(RAW))), False, "does not hold this disk"),
    "new raw disk": (RAW, basis(point(image(COW))), False, "does not hold this disk"),
}

COMPARED_CASES = {
    "raw": (RAW, basis(), "does not track changes of raw disks"),
    "raw without a checkpoint": (RAW, basis(point(image(RAW), checkpoint=None)), "does not track changes of raw disks"),
    "raw that shrank": (RAW, basis(point(image(RAW, size=6 * GIB))), "does not track changes of raw disks"),
    "no checkpoint": (COW, basis(point(image(COW), checkpoint=None)), "has no checkpoint"),
    "checkpoint lost": (COW, basis(LAST, "cp0", "cp2"), "no longer has the checkpoint"),
    "converted": (COW, basis(point(image(COW, fmt=DiskFormat.RAW))), "converted from raw"),
    "converted to raw": (RAW, basis(point(image(RAW, fmt=DiskFormat.COW))), "does not track changes of raw disks"),
    "shrunk": (COW, basis(point(image(COW, size=11 * GIB))), "smaller than in the last"),
    "not to be tracked": (COW, basis(untracked="a disk did not tell what changed"), "a disk did not tell what changed"),
    "another disk is spoilt": (RAW, basis(spoilt=SPOILT), "does not track changes of raw disks"),
}


@pytest.mark.parametrize("case", FULL_CASES)
def test_full(case: str) -> None:
    disk, given, full, reason = FULL_CASES[case]
    plan = plan_backup(vm(disk), given, full=full)
    assert [(d.mode, d.changes, d.backing) for d in plan.disks] == [(Mode.FULL, Changes.ALL, None)]
    assert reason in plan.disks[0].reason
    assert plan.mode is Mode.FULL
    assert plan.from_checkpoint is None


@pytest.mark.parametrize("case", COMPARED_CASES)
def test_compared(case: str) -> None:
    disk, given, reason = COMPARED_CASES[case]
    plan = plan_backup(vm(disk), given, full=False)
    expected = (Mode.INCREMENTAL, Changes.COMPARED, f"p1-{disk.id}.qcow2")
    assert [(d.mode, d.changes, d.backing) for d in plan.disks] == [expected]
    assert reason in plan.disks[0].reason
    assert "compared with the last restore point" in plan.disks[0].reason
    assert plan.mode is Mode.INCREMENTAL
    assert plan.from_checkpoint is None


@pytest.mark.parametrize("size", [10 * GIB, 9 * GIB], ids=["same size", "grown"])
def test_tracked(size: int) -> None:
    plan = plan_backup(vm(COW), basis(point(image(COW, size=size)), "cp0", "cp1"), full=False)
    assert [(d.mode, d.changes) for d in plan.disks] == [(Mode.INCREMENTAL, Changes.TRACKED)]
    assert plan.disks[0].backing == "p1-d1.qcow2"
    assert "p1" in plan.disks[0].reason
    assert plan.from_checkpoint == "cp1"


def test_each_disk_is_decided_for_itself() -> None:
    new = dataclasses.replace(COW, id="d3", name="web_Disk3")
    spoilt = dataclasses.replace(COW, id="d4", name="web_Disk4")
    last = point(image(COW), image(RAW), image(spoilt))
    plan = plan_backup(
        vm(COW, RAW, new, spoilt), basis(last, spoilt={"d4": "its chain has reached 256 images"}), full=False
    )
    assert [d.changes for d in plan.disks] == [Changes.TRACKED, Changes.COMPARED, Changes.ALL, Changes.ALL]
    assert plan.disks[3].reason == "its chain has reached 256 images"
    assert plan.mode is Mode.INCREMENTAL
    assert plan.from_checkpoint == "cp1"


def test_the_checkpoint_is_named_only_for_tracked_disks() -> None:
    plan = plan_backup(vm(RAW), basis(), full=False)
    assert (plan.mode, plan.from_checkpoint) == (Mode.INCREMENTAL, None)


LEFT_OUT_CASES = {
    "lun": (dataclasses.replace(COW, id="x", storage="lun"), "a lun disk"),
    "shareable": (dataclasses.replace(COW, id="x", shareable=True), "shared"),
    "transient": (dataclasses.replace(COW, id="x", transient=True), "transient"),
    "inactive": (dataclasses.replace(COW, id="x", active=False), "not active"),
}


@pytest.mark.parametrize("case", LEFT_OUT_CASES)
def test_left_out(case: str) -> None:
    disk, reason = LEFT_OUT_CASES[case]
    plan = plan_backup(vm(COW, disk), NO_POINT, full=False)
    assert [d.disk.id for d in plan.disks] == ["d1"]
    assert [name for name, _ in plan.left_out] == [disk.name]
    assert reason in plan.left_out[0][1]
    with pytest.raises(NothingToBackUp, match=reason):
        plan_backup(vm(disk), NO_POINT, full=False)


def test_a_locked_disk_that_is_left_out_does_not_hinder() -> None:
    lun = dataclasses.replace(COW, id="x", storage="lun", locked=True)
    assert len(plan_backup(vm(COW, lun), NO_POINT, full=False).disks) == 1


@pytest.mark.parametrize("status", [VmStatus.PAUSED, VmStatus.OTHER])
def test_status_in_which_the_manager_refuses(status: VmStatus) -> None:
    with pytest.raises(VmNotReady, match=str(status)) as caught:
        plan_backup(vm(COW, status=status), NO_POINT, full=False)
    assert caught.value.retry


def test_vm_that_is_down() -> None:
    assert plan_backup(vm(COW, status=VmStatus.DOWN), basis(), full=False).mode is Mode.INCREMENTAL


def test_locked_disk() -> None:
    with pytest.raises(VmNotReady, match="web_Disk1"):
        plan_backup(vm(dataclasses.replace(COW, locked=True), RAW), NO_POINT, full=False)


def test_no_disks() -> None:
    with pytest.raises(NothingToBackUp, match="no disks"):
        plan_backup(vm(), NO_POINT, full=False)


def test_hosted_engine() -> None:
    with pytest.raises(NothingToBackUp, match="its own VM"):
        plan_backup(vm(COW, hosted_engine=True), NO_POINT, full=False)
