from __future__ import annotations

from dataclasses import replace

import pytest

from overkeep.blocks.errors import NoChangedBlocks, TargetFull
from overkeep.controller.records import JobState
from overkeep.engine.errors import Busy, EngineUnreachable
from overkeep.errors import Conflict
from overkeep.model.points import Changes, Mode
from overkeep.mover.disk_copies import BackingMissing
from overkeep.mover.orders import BACKING_MISSING, NO_CHANGED_BLOCKS, CopyOrder, CopyResult
from overkeep.repository import layout
from tests.controller.world import World, disk, succeeded, vm


def test_the_first_backup_is_full(world: World) -> None:
    world.add(vm("web", disk("root", bootable=True), disk("data")))
    job = world.back_up()
    assert succeeded(job), job.failure
    [point] = world.repository.points()
    assert point.mode is Mode.FULL
    assert {image.name for image in point.images} == {"root", "data"}
    assert world.memory.checkpoints_made() == {"web-vm": (point.checkpoint_id,)}
    assert world.repository.workloads()[0].name == "demo"
    world.assert_nothing_open()


def test_the_second_is_an_overlay_and_one_checkpoint_stays(world: World) -> None:
    world.add(vm("web", disk("root"), disk("dump", raw=True)))
    world.back_up()
    job = world.back_up()
    assert succeeded(job), job.failure
    first, second = world.repository.points()
    modes = {image.name: image.mode for image in second.images}
    assert modes == {"root": Mode.INCREMENTAL, "dump": Mode.INCREMENTAL}
    changes = {image.name: image.changes for image in second.images}
    assert changes == {"root": Changes.TRACKED, "dump": Changes.COMPARED}
    assert {image.changes for image in first.images} == {Changes.ALL}
    for disk_id in ("root-disk", "dump-disk"):
        assert second.image(disk_id).backing == first.image(disk_id).file
    asked = {order.sink.folder.rpartition("/")[2]: order for order in world.mover.received.values()}
    assert (asked["root-disk"].dirty, asked["root-disk"].compare) == (True, False)
    assert (asked["dump-disk"].dirty, asked["dump-disk"].compare) == (False, True)
    assert world.repository.chain(second, "root-disk") == (f"{second.id}.qcow2", f"{first.id}.qcow2")
    assert world.memory.checkpoints_made() == {"web-vm": (second.checkpoint_id,)}
    [progress] = job.vms
    reason = {d.name: d.reason for d in progress.disks}["dump"]
    assert reason.startswith("the Manager does not track changes of raw disks, so it is compared")


def test_full_is_full_when_it_is_asked_for(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.back_up()
    assert succeeded(world.back_up(full=True))
    assert [p.mode for p in world.repository.points()] == [Mode.FULL, Mode.FULL]


def test_other_workloads_are_looked_into_only_for_checkpoints_that_are_not_of_this_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    everywhere = layout.workloads_with
    monkeypatch.setattr(layout, "workloads_with", lambda root, vm_id: looks.append(vm_id) or everywhere(root, vm_id))
    world.add(vm("web", disk("root")))
    for _ in range(3):
        assert succeeded(world.back_up())
    newest = world.repository.points()[-1].checkpoint_id
    assert world.memory.checkpoints_made() == {"web-vm": (newest,)}
    assert looks == []
    world.memory.add_checkpoint("web-vm", "somebody-elses")
    assert succeeded(world.back_up())
    newest = world.repository.points()[-1].checkpoint_id
    assert world.memory.checkpoints_made() == {"web-vm": ("somebody-elses", newest)}
    assert looks == ["web-vm"], "it might be of a point of another workload"


def test_checkpoints_of_others_stay(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.add_checkpoint("web-vm", "somebody-elses")
    world.back_up()
    world.back_up()
    newest = world.repository.points()[-1].checkpoint_id
    assert world.memory.checkpoints_made() == {"web-vm": ("somebody-elses", newest)}


def test_disks_are_compared_when_the_checkpoint_is_lost(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.back_up()
    world.memory.lose_checkpoints("web-vm")
    job = world.back_up()
    assert succeeded(job)
    [image] = world.repository.points()[-1].images
    assert image.changes is Changes.COMPARED
    assert "no longer has the checkpoint of the last restore point" in image.reason
    assert world.back_up().state is JobState.SUCCEEDED
    assert world.repository.points()[-1].images[0].changes is Changes.TRACKED, "the next is tracked again"
    world.assert_checkpoints_sound()


def test_a_vm_of_raw_disks_is_compared_without_any_checkpoint(world: World) -> None:
    world.add(vm("web", disk("dump", raw=True)))
    for _ in range(2):
        assert succeeded(world.back_up())
    points = world.repository.points()
    assert [point.checkpoint_id for point in points] == [None, None]
    assert [point.images[0].changes for point in points] == [Changes.ALL, Changes.COMPARED]
    assert world.memory.checkpoints_made() == {}
    world.assert_nothing_open()


def test_a_disk_whose_changes_the_manager_does_not_give_is_compared(world: World) -> None:
    world.add(vm("web", disk("root"), disk("data")))
    world.back_up()
    world.memory.untrack("data-disk")
    assert succeeded(world.back_up())
    changes = {image.name: image.changes for image in world.repository.points()[-1].images}
    assert changes == {"root": Changes.TRACKED, "data": Changes.COMPARED}
    reason = world.repository.points()[-1].image("data-disk").reason
    assert reason.startswith("the Manager does not have the changes of this disk, so it is compared")


def test_an_incremental_that_the_manager_fails_is_compared(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.back_up()
    world.mover.held = True
    job = world.start_backup()
    [request] = world.until(world.memory.open_backups)
    assert request.from_checkpoint
    world.memory.set_phase(request.id, "failed")
    world.mover.release()
    job = world.finish(job)
    assert succeeded(job), job.failure
    assert "compared with the last restore point instead" in world.texts(job)
    assert world.repository.points()[-1].images[0].changes is Changes.COMPARED
    world.assert_nothing_open()


def test_a_chain_that_is_broken_is_not_built_on(world: World) -> None:
    world.add(vm("web", disk("root"), disk("data")))
    world.back_up()
    [point] = world.repository.points()
    image = world.repository.root / world.repository.folder(point, "root-disk") / f"{point.id}.qcow2"
    image.unlink()
    job = world.back_up()
    assert succeeded(job), job.failure
    changes = {image.name: image.changes for image in world.repository.points()[-1].images}
    assert changes == {"root": Changes.ALL, "data": Changes.TRACKED}
    assert "damaged" in world.texts(job)


def test_a_chain_as_long_as_chains_may_be_is_followed_by_a_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overkeep.model.policy.LONGEST_CHAIN", 2)
    world.add(vm("web", disk("root")))
    for _ in range(3):
        assert succeeded(world.back_up())
    assert [point.mode for point in world.repository.points()] == [Mode.FULL, Mode.INCREMENTAL, Mode.FULL]
    assert world.repository.points()[-1].images[0].reason == "its chain has reached 2 images"


def test_a_disk_that_does_not_tell_what_changed_is_compared(world: World) -> None:
    def blind(order: CopyOrder) -> CopyResult:
        if order.dirty:
            raise NoChangedBlocks(url="nbd:unix:/x", reason="it has no dirty bitmap")
        return world.write_image(order)

    world.add(vm("web", disk("root")))
    world.back_up()
    world.mover.outcome = blind
    job = world.back_up()
    assert succeeded(job), job.failure
    [image] = world.repository.points()[-1].images
    assert image.changes is Changes.COMPARED
    assert image.reason.startswith("a disk did not tell what changed")
    assert NoChangedBlocks.code == NO_CHANGED_BLOCKS
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_a_disk_that_cannot_be_opened_with_its_changes_is_compared(world: World) -> None:
    world.add(vm("web", disk("root"), disk("data")))
    world.back_up()
    world.memory.break_bitmaps("data-disk")
    job = world.back_up()
    assert succeeded(job), job.failure
    images = world.repository.points()[-1].images
    assert {image.changes for image in images} == {Changes.COMPARED}
    assert images[0].reason.startswith("a disk could not be opened with the changes that the Manager tracked")
    assert "The access to disk 'data' failed in the Manager" in world.texts(job)
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_a_restore_point_that_cannot_be_read_is_followed_by_a_full(world: World) -> None:
    def unreadable(order: CopyOrder) -> CopyResult:
        if order.compare:
            raise BackingMissing(name="p2", backing="p1", reason="it ends before its data")
        return world.write_image(order)

    world.add(vm("web", disk("root")))
    world.back_up()
    world.memory.lose_checkpoints("web-vm")
    world.mover.outcome = unreadable
    job = world.back_up()
    assert succeeded(job), job.failure
    assert "A full backup is made instead" in world.texts(job)
    assert world.repository.points()[-1].images[0].changes is Changes.ALL
    assert BackingMissing.code == BACKING_MISSING
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_both_the_checkpoint_and_the_restore_point_may_be_worthless(world: World) -> None:
    def worthless(order: CopyOrder) -> CopyResult:
        if order.dirty:
            raise NoChangedBlocks(url="nbd:unix:/x", reason="it has no dirty bitmap")
        if order.compare:
            raise BackingMissing(name="p2", backing="p1", reason="it ends before its data")
        return world.write_image(order)

    world.add(vm("web", disk("root")))
    world.back_up()
    world.mover.outcome = worthless
    job = world.back_up()
    assert succeeded(job), job.failure
    assert len(world.repository.points()) == 2
    assert world.repository.points()[-1].images[0].changes is Changes.ALL
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_a_vm_that_fails_does_not_fail_the_other(world: World) -> None:
    world.add(vm("web", disk("root")), vm("db", disk("pg")))
    world.memory.hold("web-vm", "VM is locked.")
    job = world.back_up()
    assert job.state is JobState.PARTIAL
    assert "succeeded: db" in job.failure.text
    assert "web: " in job.failure.text
    assert [p.vm_name for p in world.repository.points()] == ["db"]
    world.assert_nothing_open()


def test_only_what_failed_is_tried_again(world: World) -> None:
    world.add(vm("web", disk("root")), vm("db", disk("pg")))
    world.memory.hold("web-vm", "VM is locked.")
    first = world.back_up(full=True)
    with pytest.raises(Conflict, match="has not ended"):
        world.controller.retry_backup(replace(first, state=JobState.RUNNING), caller="ann@internal")
    again = world.finish(world.controller.retry_backup(first, caller="ann@internal"))
    assert (again.state, [v.vm_name for v in again.vms]) == (JobState.FAILED, ["web"])
    world.memory.let_go("web-vm")
    last = world.finish(world.controller.retry_backup(again, caller="ann@internal"))
    assert succeeded(last), last.failure
    assert last.request == {"full": True, "retries": again.id, "target": "nfs1"}
    assert sorted(p.vm_name for p in world.repository.points()) == ["db", "web"]
    with pytest.raises(Conflict, match="Nothing is left"):
        world.controller.retry_backup(last, caller="ann@internal")
    restored = world.restore(world.repository.points()[-1].id, "copy")
    with pytest.raises(Conflict, match="is no backup"):
        world.controller.retry_backup(restored, caller="ann@internal")


def test_a_locked_vm_is_one_sentence(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.hold("web-vm", "VM is locked.")
    job = world.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "vm-locked")
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_a_manager_that_is_down_fails_cleanly(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.fail("vm", EngineUnreachable(url="https://m", reason="down"), times=40)
    job = world.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "engine-unreachable")
    world.assert_nothing_open()


@pytest.mark.parametrize("method", ["vm", "checkpoints", "configuration", "start_backup", "backup", "start_transfer"])
@pytest.mark.parametrize("after", [False, True])
def test_a_short_outage_is_survived(world: World, method: str, after: bool) -> None:
    world.add(vm("web", disk("root")))
    world.memory.fail(method, EngineUnreachable(url="https://m", reason="reset"), after=after)
    job = world.back_up()
    assert succeeded(job), job.failure
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


@pytest.mark.parametrize("method", ["transfer", "finalize_transfer", "finalize_backup", "delete_checkpoint"])
def test_an_outage_while_closing_is_survived(world: World, method: str) -> None:
    world.add(vm("web", disk("root")))
    world.back_up()
    world.memory.fail(method, Busy(act="close", words="try later"), times=3)
    job = world.back_up()
    assert succeeded(job), job.failure
    world.assert_nothing_open()


def test_what_cannot_be_closed_needs_attention_and_the_janitor_closes_it(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.fail("finalize_backup", Busy(act="end the backup", words="never"), times=400)
    job = world.back_up()
    assert job.state is JobState.NEEDS_ATTENTION
    assert "still open" in job.failure.text
    assert [left.kind for left in world.janitor.leftovers()] == ["backup"]
    assert len(world.repository.points()) == 1  # the data are there all the same
    world.memory.heal()
    world.janitor.close_leftovers()
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_a_mover_that_is_down_is_found_before_anything_is_locked(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.mover.reachable = False
    job = world.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "mover-unreachable")
    assert "start_backup" not in world.memory.calls
    world.assert_nothing_open()


def test_a_mover_that_was_restarted_gets_a_new_attempt(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.received)
    world.mover.restart()
    world.until(lambda: len(world.mover.received) == 2)
    world.mover.release()
    job = world.finish(job)
    assert succeeded(job), job.failure
    first, second = world.mover.received.values()
    assert (first.fence, second.fence) == (1, 2)
    assert first.sink == second.sink
    world.assert_nothing_open()


def test_a_mover_that_vanishes_in_mid_copy_fails_the_vm(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.received)
    world.mover.reachable = False
    job = world.finish(job)
    assert (job.state, job.failure.code) == (JobState.FAILED, "mover-unreachable")
    world.mover.reachable = True
    world.mover.restart()
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_a_full_target_is_one_sentence(world: World) -> None:
    def full(_: CopyOrder) -> CopyResult:
        raise TargetFull(path="/t/x", reason="No space left on device")

    world.add(vm("web", disk("root"), disk("data")))
    world.mover.outcome = full
    job = world.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "target-full")
    assert world.repository.points() == ()
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_a_backup_that_the_manager_ended_makes_no_point(world: World) -> None:
    def ended(order: CopyOrder) -> CopyResult:
        for request in world.memory.open_backups():
            world.memory.set_phase(request.id, "failed")
        return world.write_image(order)

    world.add(vm("web", disk("root")))
    world.mover.outcome = ended
    job = world.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "backup-failed")
    assert world.repository.points() == ()
    world.assert_nothing_open()


def test_cancel_in_mid_copy(world: World) -> None:
    world.add(vm("web", disk("root"), disk("data")), vm("db", disk("pg")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: len(world.mover.received) == 3)
    world.controller.cancel(world.controller.job(job.id))
    job = world.finish(job)
    assert (job.state, job.failure.code) == (JobState.CANCELLED, "cancelled")
    assert world.repository.points() == ()
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_two_jobs_never_work_on_one_vm(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.received)
    with pytest.raises(Conflict, match=job.id):
        world.start_backup()
    world.mover.release()
    assert succeeded(world.finish(job))
    assert succeeded(world.back_up())
