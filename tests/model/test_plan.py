# SPDX-License-Identifier: GPL-3.0-or-later
"""Table tests of the decision what a backup does with each disk."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from overkeep.model.inventory import Disk, DiskFormat, Vm, VmStatus
from overkeep.model.plan import NothingToBackUp, VmNotReady, plan_backup
from overkeep.model.points import DiskImage, Mode, RestorePoint
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

FULL_CASES = {
    "first backup": (COW, None, ["cp1"], False, "it is the first backup of this VM"),
    "asked for": (COW, LAST, ["cp1"], True, "a full backup was asked for"),
    "no checkpoint": (COW, point(image(COW), checkpoint=None), ["cp1"], False, "has no checkpoint"),
    "checkpoint lost": (COW, LAST, ["cp0", "cp2"], False, "no longer has the checkpoint"),
    "raw": (RAW, LAST, ["cp1"], False, "does not track changes of raw disks"),
    "new disk": (COW, point(image(RAW)), ["cp1"], False, "does not hold this disk"),
    "converted": (COW, point(image(COW, fmt=DiskFormat.RAW)), ["cp1"], False, "converted from raw"),
    "shrunk": (COW, point(image(COW, size=11 * GIB)), ["cp1"], False, "smaller than in the last"),
}


def test_a_point_that_is_spoilt_is_not_built_on() -> None:
    plan = plan_backup(vm(COW), LAST, ["cp1"], full=False, spoilt="the last restore point is damaged")
    assert [(p.mode, p.reason) for p in plan.disks] == [(Mode.FULL, "the last restore point is damaged")]
    assert plan.from_checkpoint is None


@pytest.mark.parametrize("case", FULL_CASES)
def test_full(case: str) -> None:
    disk, last, checkpoints, full, reason = FULL_CASES[case]
    plan = plan_backup(vm(disk), last, checkpoints, full=full)
    assert [(d.mode, d.backing) for d in plan.disks] == [(Mode.FULL, None)]
    assert reason in plan.disks[0].reason
    assert plan.mode is Mode.FULL
    assert plan.from_checkpoint is None


@pytest.mark.parametrize("size", [10 * GIB, 9 * GIB], ids=["same size", "grown"])
def test_incremental(size: int) -> None:
    plan = plan_backup(vm(COW), point(image(COW, size=size)), ["cp0", "cp1"], full=False)
    assert [(d.mode, d.backing) for d in plan.disks] == [(Mode.INCREMENTAL, "p1-d1.qcow2")]
    assert "p1" in plan.disks[0].reason
    assert plan.from_checkpoint == "cp1"


def test_raw_and_tracked_disks_in_one_backup() -> None:
    plan = plan_backup(vm(COW, RAW), LAST, ["cp1"], full=False)
    assert [d.mode for d in plan.disks] == [Mode.INCREMENTAL, Mode.FULL]
    assert plan.mode is Mode.INCREMENTAL
    assert plan.from_checkpoint == "cp1"


LEFT_OUT_CASES = {
    "lun": (dataclasses.replace(COW, id="x", storage="lun"), "a lun disk"),
    "shareable": (dataclasses.replace(COW, id="x", shareable=True), "shared"),
    "transient": (dataclasses.replace(COW, id="x", transient=True), "transient"),
    "inactive": (dataclasses.replace(COW, id="x", active=False), "not active"),
}


@pytest.mark.parametrize("case", LEFT_OUT_CASES)
def test_left_out(case: str) -> None:
    disk, reason = LEFT_OUT_CASES[case]
    plan = plan_backup(vm(COW, disk), None, [], full=False)
    assert [d.disk.id for d in plan.disks] == ["d1"]
    assert [name for name, _ in plan.left_out] == [disk.name]
    assert reason in plan.left_out[0][1]
    with pytest.raises(NothingToBackUp, match=reason):
        plan_backup(vm(disk), None, [], full=False)


def test_a_locked_disk_that_is_left_out_does_not_hinder() -> None:
    lun = dataclasses.replace(COW, id="x", storage="lun", locked=True)
    assert len(plan_backup(vm(COW, lun), None, [], full=False).disks) == 1


@pytest.mark.parametrize("status", [VmStatus.PAUSED, VmStatus.OTHER])
def test_status_in_which_the_manager_refuses(status: VmStatus) -> None:
    with pytest.raises(VmNotReady, match=str(status)) as caught:
        plan_backup(vm(COW, status=status), None, [], full=False)
    assert caught.value.retry


def test_vm_that_is_down() -> None:
    assert plan_backup(vm(COW, status=VmStatus.DOWN), LAST, ["cp1"], full=False).mode is Mode.INCREMENTAL


def test_locked_disk() -> None:
    with pytest.raises(VmNotReady, match="web_Disk1"):
        plan_backup(vm(dataclasses.replace(COW, locked=True), RAW), None, [], full=False)


def test_no_disks() -> None:
    with pytest.raises(NothingToBackUp, match="no disks"):
        plan_backup(vm(), None, [], full=False)


def test_hosted_engine() -> None:
    with pytest.raises(NothingToBackUp, match="its own VM"):
        plan_backup(vm(COW, hosted_engine=True), None, [], full=False)
