# SPDX-License-Identifier: GPL-3.0-or-later
"""One restore point is removed, anywhere in its chain; the others stay whole, and nothing is removed that is needed."""

from __future__ import annotations

import threading

import pytest

from overkeep.controller.activities.expiry import RetentionWaits
from overkeep.controller.durable import Stopping
from overkeep.controller.events import Filter, Kind
from overkeep.controller.records import Job, JobState
from overkeep.errors import Conflict, OverkeepError
from overkeep.model.points import Changes
from overkeep.model.retention import Retention
from overkeep.mover.orders import MergeOrder, MergeResult, VerifyOrder, VerifyResult
from overkeep.repository.errors import PointPinned
from overkeep.repository.repository import Repository
from tests.controller.test_retention import assert_sound, images, point_ids, write_restore_job
from tests.controller.test_terms import give
from tests.controller.world import World, disk, succeeded, vm


def remove(world: World, point_id: str) -> Job:
    [point] = [point for point in world.repository.points() if point.id == point_id]
    return world.controller.start_removal(world.placed(point), caller="ann@internal")


def backups(world: World, count: int) -> list[str]:
    made = []
    for _ in range(count):
        job = world.back_up()
        assert succeeded(job), job.failure
        made.append(job.vms[0].point_id)
    return made


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_any_point_of_a_chain_goes(world: World, which: int) -> None:
    world.add(vm("web", disk("root"), disk("dump", raw=True)))
    made = backups(world, 4)
    job = world.finish(remove(world, made[which]))
    assert succeeded(job), job.failure
    assert f"Restore point {made[which]} is removed: it was asked for" in world.texts(job)
    assert point_ids(world) == made[:which] + made[which + 1 :]
    assert len(images(world)) == 6
    assert_sound(world)
    after = world.back_up()
    assert succeeded(after), after.failure
    newest = world.repository.points()[-1]
    tracked = Changes.COMPARED if which == 3 else Changes.TRACKED
    assert {image.name: image.changes for image in newest.images}["root"] is tracked
    assert_sound(world)


def test_the_only_point_goes_and_a_full_backup_follows(world: World) -> None:
    world.add(vm("web", disk("root")))
    [point] = backups(world, 1)
    assert succeeded(world.finish(remove(world, point)))
    assert (point_ids(world), images(world)) == ([], [])
    backups(world, 1)
    assert world.repository.points()[0].mode == "full"
    assert_sound(world)


def test_what_is_pinned_or_read_or_worked_on_is_refused(world: World) -> None:
    world.add(vm("web", disk("root")))
    made = backups(world, 2)
    [first, second] = world.repository.points()
    world.controller.points.put_pin(world.placed(first), "audit", caller="ann@internal")
    with pytest.raises(PointPinned):
        remove(world, first.id)
    restoring = write_restore_job(world, second)
    with pytest.raises(RetentionWaits, match=restoring.id):
        remove(world, second.id)
    assert point_ids(world) == made


def test_a_vm_that_is_backed_up_is_left_alone(world: World) -> None:
    world.add(vm("web", disk("root")))
    [point] = backups(world, 1)
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.phase(job, "copying"))
    with pytest.raises(Conflict, match=job.id):
        remove(world, point)
    world.mover.held = False
    world.controller.cancel(world.store.jobs.get(job.id))
    world.finish(job)
    assert point_ids(world) == [point]


def test_points_of_a_vm_that_is_gone_can_be_removed(world: World) -> None:
    world.add(vm("web", disk("root")))
    made = backups(world, 2)
    world.memory.remove_vm("web-vm")
    job = world.finish(remove(world, made[0]))
    assert succeeded(job), job.failure
    assert point_ids(world) == made[1:]
    assert len(images(world)) == 1, world.texts(job)


def test_a_merge_that_fails_is_made_up_for_by_the_next_backup(world: World) -> None:
    def broken(_: MergeOrder | VerifyOrder) -> MergeResult | VerifyResult:
        raise OverkeepError(reason="?")

    world.add(vm("web", disk("root")))
    made = backups(world, 3)
    world.mover.bookkeeping = broken
    job = world.finish(remove(world, made[1]))
    assert succeeded(job), job.failure
    assert "stay until the next backup" in world.texts(job)
    assert point_ids(world) == [made[0], made[2]]
    assert len(images(world)) == 3
    world.mover.bookkeeping = world.merge_images
    backups(world, 1)
    assert len(images(world)) == 3
    assert_sound(world)


def die_after_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let the controller die once, when a point has ended and nobody has been told."""
    died = threading.Event()
    remove_point = Repository.remove_point

    def dying(repository: Repository, *args: str, **words: str) -> None:
        remove_point(repository, *args, **words)
        if not died.is_set():
            died.set()
            raise Stopping

    monkeypatch.setattr(Repository, "remove_point", dying)
    return died


def told_ends(world: World) -> list[str]:
    return [event.about.point_id for event in world.store.events.after(0, Filter(kind=Kind.POINT_REMOVED))]


def test_a_point_that_ended_when_its_controller_died_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no way back: neither a restore that came meanwhile nor a cancel lets the job fail."""
    world.add(vm("web", disk("root")))
    made = backups(world, 3)
    died = die_after_the_end(world, monkeypatch)
    job = remove(world, made[1])
    world.until(died.is_set)
    world.stop()
    [first, *_] = world.repository.points()
    write_restore_job(world, first)
    world.store.jobs.request_cancel(job.id)
    world.restart()
    ended = world.finish(job)
    assert succeeded(ended), ended.failure
    assert told_ends(world) == [made[1]]
    assert point_ids(world) == [made[0], made[2]]


def test_points_that_a_retention_ended_when_its_controller_died_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(vm("web", disk("root")))
    made = backups(world, 3)
    give(world, retention=Retention(last=1))
    died = die_after_the_end(world, monkeypatch)
    job = world.start_backup()
    world.until(died.is_set)
    world.restart()
    ended = world.finish(job)
    assert succeeded(ended), ended.failure
    assert sorted(told_ends(world)) == made
    assert point_ids(world) == [ended.vms[0].point_id]
    assert_sound(world)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("port", ["engine", "mortal_mover"])
def test_a_removal_survives_a_death_at_any_call(world: World, port: str, after: bool) -> None:
    world.add(vm("web", disk("root"), disk("data")))
    at = 1
    while True:
        made = backups(world, 3)[-3:]
        mortal = getattr(world, port)
        mortal.arm(at, after=after)
        job = remove(world, made[1])
        world.until(lambda job=job, mortal=mortal: mortal.died.is_set() or world.store.jobs.get(job.id).state.over)
        died = mortal.died.is_set()
        world.restart()
        job = world.finish(job)
        assert job.state is JobState.SUCCEEDED, (at, job.failure)
        assert made[1] not in point_ids(world)
        backups(world, 1)
        assert_sound(world)
        if not died:
            break
        at += 1
    assert at > 2
