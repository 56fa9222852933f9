# SPDX-License-Identifier: GPL-3.0-or-later
"""New points are verified as the policy says, and nothing is built upon one that is unsound."""

from __future__ import annotations

import pytest

from overkeep.blocks.errors import TargetStale
from overkeep.controller.events import Kind, Level
from overkeep.controller.records import Job, JobState
from overkeep.model.points import Changes, Mode, RestorePoint
from overkeep.model.retention import Retention
from overkeep.mover.orders import MergeOrder, MergeResult, VerifyOrder, VerifyResult
from overkeep.repository.verification import Verification, last_verification, record
from overkeep.testing.mover import quiet
from tests.controller.test_terms import give
from tests.controller.world import World, disk, succeeded, vm


def checked(world: World, point: RestorePoint) -> Verification | None:
    return last_verification(world.repository, point)


def orders(world: World) -> list[VerifyOrder]:
    return [order for order in world.mover.received.values() if isinstance(order, VerifyOrder)]


def told(world: World, job: Job, kind: Kind) -> list[str]:
    return [event.text for event in world.store.events.of_job(job.id) if event.kind == kind]


@pytest.fixture
def shop(world: World) -> World:
    world.add(vm("web", disk("root"), disk("data")))
    return world


def test_without_a_word_nothing_is_verified(shop: World) -> None:
    assert succeeded(shop.back_up())
    assert orders(shop) == []
    assert checked(shop, shop.repository.points()[0]) is None


def test_each_new_point_is_read_with_all_that_it_is_built_upon(shop: World) -> None:
    give(shop, verify=0.25)
    for _ in range(2):
        job = shop.back_up()
        assert succeeded(job), job.failure
    first, second = shop.repository.points()
    assert [order.images for order in orders(shop)[:2]] == [(f"{first.id}.qcow2",)] * 2
    assert [order.images for order in orders(shop)[2:]] == [(f"{second.id}.qcow2", f"{first.id}.qcow2")] * 2
    assert {order.share for order in orders(shop)} == {0.25}
    for point in (first, second):
        found = checked(shop, point)
        assert found is not None
        assert (found.sound, found.share, found.findings) == (True, 0.25, ())
    assert told(shop, job, Kind.POINT_VERIFIED) == [f"Restore point {second.id} was read and is sound"]
    shop.assert_nothing_open()


def test_the_vm_is_not_locked_while_its_point_is_verified(shop: World) -> None:
    give(shop, verify=1)
    job = shop.start_backup()
    seen = []

    def look(order: MergeOrder | VerifyOrder) -> MergeResult | VerifyResult:
        seen.append((shop.memory.open_backups(), shop.memory.open_transfers()))
        return quiet(order)

    shop.mover.bookkeeping = look
    assert succeeded(shop.finish(job))
    assert seen == [((), ())] * 2


def test_a_point_that_is_unsound_fails_its_vm_and_nothing_is_built_upon_it(shop: World) -> None:
    give(shop, verify=1)
    shop.back_up()
    [first] = shop.repository.points()
    shop.rotten = {f"{first.id}.qcow2"}
    job = shop.back_up()
    second = shop.repository.points()[-1]
    assert (job.state, job.failure.code) == (JobState.FAILED, "point-unsound")
    assert f"Restore point {second.id} of VM 'web' was made and did not verify: Disk 'root': 3 clusters of" in (
        job.failure.text
    )
    assert job.vms[0].point_id == second.id, "it is there, and told as what it is"
    found = checked(shop, second)
    assert found is not None
    assert not found.sound
    [event] = [event for event in shop.store.events.of_job(job.id) if event.kind == Kind.POINT_UNSOUND]
    assert (event.level, event.about.point_id) == (Level.ERROR, second.id)
    assert len(event.fields["findings"]) == 2, "one for each disk"
    shop.assert_nothing_open()

    job = shop.back_up()
    assert succeeded(job), job.failure
    third = shop.repository.points()[-1]
    assert {image.mode for image in third.images} == {Mode.FULL}
    assert {image.reason for image in third.images} == {
        f"restore point {second.id}, which it would be built upon, did not verify"
    }
    assert len(told(shop, job, Kind.DISK_FULL)) == 2
    assert succeeded(shop.back_up())
    assert {image.changes for image in shop.repository.points()[-1].images} == {Changes.TRACKED}, "that one is sound"


def test_a_point_deep_in_the_chain_that_is_known_to_be_unsound_is_not_built_upon(shop: World) -> None:
    for _ in range(2):
        shop.back_up()
    first, second = shop.repository.points()
    bad = Verification(checked_at=first.created, share=1, sound=False, findings=("It was found by hand.",))
    record(shop.repository, first, bad)
    assert checked(shop, second) is None
    assert succeeded(shop.back_up())
    newest = shop.repository.points()[-1]
    assert newest.mode is Mode.FULL
    assert f"restore point {first.id}, which it would be built upon" in newest.images[0].reason


def test_old_points_stay_while_the_new_one_is_unsound(shop: World) -> None:
    shop.back_up()
    give(shop, verify=1, retention=Retention(last=1))
    [good] = shop.repository.points()
    shop.rotten = {f"{good.id}.qcow2"}
    job = shop.back_up()
    assert job.state is JobState.FAILED
    assert shop.repository.points()[0].id == good.id
    assert told(shop, job, Kind.POINT_STAYS) == ["Old restore points stay until a new one is sound"]
    shop.rotten = set()
    assert succeeded(shop.back_up())
    assert len(shop.repository.points()) == 1, "the full one, which is sound"
    shop.assert_nothing_open()


def test_what_could_not_be_checked_is_told_and_is_no_failure(shop: World) -> None:
    give(shop, verify=1)

    def broken(order: MergeOrder | VerifyOrder) -> MergeResult | VerifyResult:
        raise TargetStale(path="x", reason="Stale file handle")

    shop.mover.bookkeeping = broken
    job = shop.back_up()
    assert succeeded(job), job.failure
    [point] = shop.repository.points()
    assert checked(shop, point) is None
    [text] = told(shop, job, Kind.POINT_UNVERIFIED)
    assert text.startswith(f"Restore point {point.id} is not verified: Disk 'root'")
    shop.mover.bookkeeping = shop.merge_images
    assert succeeded(shop.back_up())
    assert shop.repository.points()[-1].mode is Mode.INCREMENTAL


def test_an_image_that_the_mover_did_not_look_at_is_not_called_sound(shop: World) -> None:
    give(shop, verify=1)
    shop.mover.bookkeeping = lambda _: VerifyResult(images=(), seconds=0)
    job = shop.back_up()
    assert succeeded(job)
    assert checked(shop, shop.repository.points()[0]) is None
    assert "was not looked at" in told(shop, job, Kind.POINT_UNVERIFIED)[0]


def test_a_cancel_ends_the_check_and_the_point_stays(shop: World) -> None:
    give(shop, verify=1)
    job = shop.start_backup()
    shop.until(lambda: shop.repository.points())
    shop.mover.held = True
    shop.until(lambda: shop.phase(job, "verifying") and shop.mover.running())
    shop.controller.cancel(job)
    job = shop.finish(job)
    [point] = shop.repository.points()
    assert checked(shop, point) is None
    assert "the job was cancelled" in told(shop, job, Kind.POINT_UNVERIFIED)[0]
    shop.assert_nothing_open()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_controller_that_dies_while_a_point_is_verified(shop: World, at: int, after: bool) -> None:
    give(shop, verify=1)
    shop.mover.held = True
    job = shop.start_backup()
    shop.until(lambda: len(shop.mover.running()) == 2)
    shop.mover.release()
    shop.until(lambda: shop.phase(job, "verifying") or shop.store.jobs.get(job.id).state.over)
    if not shop.store.jobs.get(job.id).state.over:
        shop.mortal_mover.arm(at, after=after)
        shop.until(lambda: shop.mortal_mover.died.is_set() or shop.store.jobs.get(job.id).state.over)
    shop.restart()
    assert succeeded(shop.finish(job))
    found = checked(shop, shop.repository.points()[0])
    assert found is not None
    assert found.sound
    shop.assert_nothing_open()
