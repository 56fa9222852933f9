"""What a policy does not keep goes after the commit: points first, then their images, and never what is needed."""

from __future__ import annotations

import subprocess
import uuid

import pytest

from overkeep.blocks.errors import ImageDamaged
from overkeep.controller.activities import expiry
from overkeep.controller.durable import Stopping
from overkeep.controller.records import Failure, Job, JobKind, JobState, Member
from overkeep.errors import OverkeepError
from overkeep.model.points import RestorePoint
from overkeep.model.retention import Retention
from overkeep.mover.orders import CopyOrder, CopyResult, MergeOrder, MergeResult, VerifyOrder, VerifyResult
from tests.controller.test_terms import give
from tests.controller.world import World, disk, succeeded, vm


def images(world: World) -> list[str]:
    return sorted(path.name for path in world.repository.root.rglob("*.qcow2"))


def point_ids(world: World) -> list[str]:
    return [point.id for point in world.repository.points()]


def assert_sound(world: World) -> None:
    """Each point has a chain of its own files, nothing else is there, and QEMU finds no fault."""
    needed = set()
    for point in world.repository.points():
        for image in point.images:
            folder = world.repository.root / world.repository.folder(point, image.disk_id)
            for name in world.repository.chain(point, image.disk_id):
                needed.add(folder / name)
                subprocess.run(["qemu-img", "check", "-q", folder / name], check=True, timeout=60)
    assert set(world.repository.root.rglob("*.qcow2")) == needed
    assert not list(world.repository.root.rglob("merge.json"))
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_of_six_backups_three_points_stay(world: World) -> None:
    world.add(vm("web", disk("root"), disk("dump", raw=True)))
    give(world, retention=Retention(last=3))
    made = []
    for _ in range(6):
        job = world.back_up()
        assert succeeded(job), job.failure
        made.append(job.vms[0].point_id)
    assert point_ids(world) == made[3:]
    assert len(images(world)) == 6, "three of each disk"
    assert f"{made[2]} is removed" in world.texts(job)
    assert "merged away" in world.texts(job)
    assert_sound(world)


def test_a_pinned_point_stays_and_the_preview_says_why(world: World) -> None:
    world.add(vm("web", disk("root")))
    made = [world.back_up().vms[0].point_id for _ in range(3)]
    [first, *_] = world.repository.points()
    world.controller.points.put_pin(world.placed(first), "audit of 2026", caller="ann@internal")
    give(world, retention=Retention(last=1))
    [planned] = world.controller.policies.marks(world.controller.workload("demo"))
    [kept] = [mark for mark in planned.marks if mark.id == made[0]]
    assert kept.kept
    assert "pinned: audit of 2026" in str(kept)
    job = world.back_up()
    assert succeeded(job), job.failure
    assert point_ids(world) == [made[0], job.vms[0].point_id]
    assert_sound(world)
    world.controller.points.remove_pin(world.placed(first))
    job = world.back_up()
    assert point_ids(world) == [job.vms[0].point_id]
    assert_sound(world)


def test_a_point_that_is_pinned_at_the_last_moment_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add(vm("web", disk("root")))
    made = [world.back_up().vms[0].point_id for _ in range(3)]
    [first, *_] = world.repository.points()
    give(world, retention=Retention(last=1))
    world.controller.points.put_pin(world.placed(first), "late", caller="ann@internal")
    monkeypatch.setattr(expiry, "holds", lambda ports, points: {})  # it was decided before
    job = world.back_up()
    assert succeeded(job), job.failure
    assert point_ids(world) == [made[0], job.vms[0].point_id]
    assert f"{made[0]} is removed" not in world.texts(job)
    assert_sound(world)


def test_without_a_policy_everything_stays(world: World) -> None:
    world.add(vm("web", disk("root")))
    for _ in range(4):
        world.back_up()
    assert len(point_ids(world)) == 4
    assert all(isinstance(order, CopyOrder) for order in world.mover.received.values())


def test_each_vm_is_looked_at_by_itself(world: World) -> None:
    world.add(vm("web", disk("root")), vm("db", disk("pg")))
    give(world, retention=Retention(last=1))
    for _ in range(2):
        assert succeeded(world.back_up())
    assert sorted(point.vm_name for point in world.repository.points()) == ["db", "web"]
    assert_sound(world)


@pytest.mark.parametrize(
    "error", [ImageDamaged(file="x.qcow2", reason="its header is gone"), OverkeepError(reason="?")]
)
def test_a_merge_that_fails_does_not_fail_the_backup(world: World, error: OverkeepError) -> None:
    def broken(_: MergeOrder | VerifyOrder) -> MergeResult | VerifyResult:
        raise error

    world.add(vm("web", disk("root")))
    give(world, retention=Retention(last=1))
    world.back_up()
    world.mover.bookkeeping = broken
    job = world.back_up()
    assert succeeded(job), job.failure
    [warning] = [event for event in world.store.events.of_job(job.id) if event.level == "warning"]
    assert warning.text.startswith("Images of removed restore points stay until the next backup")
    assert (len(point_ids(world)), len(images(world))) == (1, 2)
    world.assert_nothing_open()
    world.mover.bookkeeping = world.merge_images
    assert succeeded(world.back_up())
    assert_sound(world)
    assert len(images(world)) == 1


def test_nothing_is_removed_while_a_manifest_cannot_be_read(world: World) -> None:
    world.add(vm("web", disk("root")))
    for _ in range(3):
        world.back_up()
    give(world, retention=Retention(last=1))
    first = world.repository.points()[0]
    manifest = world.repository.root / f"workloads/{first.workload_id}/vms/web-vm/points/{first.id}/point.json"
    kept = manifest.read_bytes()
    manifest.write_bytes(b"{")
    job = world.back_up()
    assert succeeded(job), job.failure
    assert f"the manifest of point {first.id} cannot be read" in world.texts(job)
    assert len(point_ids(world)) == 3
    manifest.write_bytes(kept)
    assert succeeded(world.back_up())
    assert len(point_ids(world)) == 1
    assert_sound(world)


def write_restore_job(world: World, point: RestorePoint) -> Job:
    """A restore that has not begun to read."""
    job = Job(
        id=str(uuid.uuid4()),
        kind=JobKind.RESTORE,
        state=JobState.QUEUED,
        workload_id=point.workload_id,
        subject="copy",
        caller="admin",
        request={"point_id": point.id, "workload_id": point.workload_id, "vm_id": point.vm_id},
        created="2026-01-01T00:00:00+00:00",
    )
    world.store.jobs.create(job, (Member(vm_id=point.vm_id, vm_name="copy"),), exclusive=False)
    return job


def test_what_is_being_restored_stays_and_nothing_goes_from_under_it(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.back_up()
    world.back_up()
    give(world, retention=Retention(last=1))
    restore = write_restore_job(world, world.repository.points()[0])
    [planned] = world.controller.policies.marks(world.controller.workload("demo"))
    assert [mark.reasons for mark in planned.marks][-1] == (f"job {restore.id} restores it",)
    backup = world.back_up()
    assert succeeded(backup), backup.failure
    assert f"job {restore.id} restores from its points" in world.texts(backup)
    assert len(point_ids(world)) == 3
    world.store.jobs.start(restore.id)
    world.store.jobs.end(restore.id, JobState.SUCCEEDED, failure=Failure(), result={})
    assert succeeded(world.back_up())
    assert len(point_ids(world)) == 1
    assert_sound(world)


def test_a_cancel_during_the_merge_keeps_the_backup(world: World) -> None:
    def copy_then_hold(order: CopyOrder) -> CopyResult:
        result = world.write_image(order)
        world.mover.held = True
        return result

    world.add(vm("web", disk("root")))
    give(world, retention=Retention(last=1))
    world.back_up()
    world.mover.outcome = copy_then_hold
    job = world.start_backup()
    world.until(lambda: merge_orders(world))
    world.controller.cancel(world.controller.job(job.id))
    job = world.finish(job)
    assert succeeded(job), job.failure
    assert "Images of removed restore points stay until the next backup: the job was cancelled" in world.texts(job)
    assert (len(point_ids(world)), len(images(world))) == (1, 2)
    world.assert_nothing_open()
    world.mover.outcome = world.write_image
    world.mover.release()
    assert succeeded(world.back_up())
    assert_sound(world)


def merge_orders(world: World) -> list[str]:
    return [order_id for order_id, order in world.mover.received.items() if isinstance(order, MergeOrder)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_death_around_a_merge_is_gone_on_with(world: World, after: bool) -> None:
    world.add(vm("web", disk("root")))
    give(world, retention=Retention(last=1))
    world.back_up()
    world.mortal_mover.arm(0, after=False)
    assert succeeded(world.back_up())
    total = world.mortal_mover.calls
    for at in range(1, total + 1):
        world.mortal_mover.arm(at, after=after)
        job = world.start_backup()
        world.until(lambda job=job: world.mortal_mover.died.is_set() or world.store.jobs.get(job.id).state.over)
        world.restart()
        job = world.finish(job)
        assert job.state is JobState.SUCCEEDED, (at, job.failure)
        assert point_ids(world) == [job.vms[0].point_id], at
        assert_sound(world)
    assert len(merge_orders(world)) >= total


def test_a_death_once_the_end_is_written_merges_nothing_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By then another job may work on the VM."""
    world.add(vm("web", disk("root")))
    give(world, retention=Retention(last=1))
    assert succeeded(world.back_up())
    write, died = world.store.jobs.set_vm, []

    def die_after(*args: object, **values: object) -> None:
        write(*args, **values)
        if values.get("state") is JobState.SUCCEEDED and not died:
            died.append(len(world.repository.points()))
            raise Stopping

    monkeypatch.setattr(world.store.jobs, "set_vm", die_after)
    job = world.start_backup()
    world.until(lambda: died)
    (image,) = images(world)
    monkeypatch.setattr(expiry, "expire", lambda *_args, **_options: pytest.fail("it is over"))
    world.restart()
    assert succeeded(world.finish(job))
    assert (died, images(world)) == ([1], [image])
    assert_sound(world)
