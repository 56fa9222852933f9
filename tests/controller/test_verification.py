# SPDX-License-Identifier: GPL-3.0-or-later
"""Old points of a VM are checked when it is asked for, those checked longest ago first, within a time."""

from __future__ import annotations

import datetime as dt
import time
from types import SimpleNamespace

import pytest

from overkeep.controller.events import Kind
from overkeep.controller.records import Job, JobState, Member
from overkeep.controller.store.points import PointFilter
from overkeep.controller.workflows import verification
from overkeep.controller.workflows.verification import VerificationTerms
from overkeep.errors import Conflict, NotFound
from overkeep.model.points import RestorePoint
from overkeep.mover.orders import MergeOrder, MergeResult, VerifyOrder, VerifyResult
from overkeep.repository.verification import Verification, last_verification, record
from overkeep.testing.mover import quiet
from tests.controller.test_removal import backups
from tests.controller.test_verify import checked, orders, told
from tests.controller.world import World, disk, succeeded, vm

WEB = Member(vm_id="web-vm", vm_name="web")


@pytest.fixture
def shop(world: World) -> World:
    """Three points of a disk, none of them checked."""
    world.add(vm("web", disk("root")))
    backups(world, 3)
    return world


def start(world: World, *, share: float = 1, seconds: float = 3600) -> Job:
    terms = VerificationTerms(share=share, seconds=seconds)
    return world.controller.start_verification(
        world.controller.workload("demo"), WEB, terms, target=None, caller="ann@internal"
    )


def names(*points: RestorePoint) -> tuple[str, ...]:
    return tuple(f"{point.id}.qcow2" for point in points)


def test_all_points_are_checked_and_each_image_is_read_once(shop: World) -> None:
    job = shop.finish(start(shop, share=0.5))
    assert succeeded(job), job.failure
    assert job.result == {"checked": 3, "total": 3}
    first, second, third = shop.repository.points()
    assert [order.images for order in orders(shop)] == [names(third, second, first)]
    assert {order.share for order in orders(shop)} == {0.5}
    assert all(0 < (order.seconds or 0) <= 3600 for order in orders(shop))
    for point in (first, second, third):
        found = checked(shop, point)
        assert found is not None
        assert (found.sound, found.share) == (True, 0.5)
    assert len(told(shop, job, Kind.POINT_VERIFIED)) == 3
    [seen] = [one for one in shop.controller.points.page(PointFilter()) if one.point.id == first.id]
    assert seen.verification == checked(shop, first)
    shop.assert_nothing_open()


def test_those_checked_longest_ago_come_first_and_the_time_ends_it(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = shop.repository.points()
    for point, day in ((first, 3), (second, 1), (third, 2)):
        when = dt.datetime(2026, 1, day, tzinfo=dt.UTC)
        record(shop.repository, point, Verification(checked_at=when, share=1.0, sound=True))

    later = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + later)
    monkeypatch.setattr(verification, "time", clock)

    def late(order: MergeOrder | VerifyOrder) -> MergeResult | VerifyResult:
        """The mover reads one image, and then the time is over."""
        nonlocal later
        assert isinstance(order, VerifyOrder)
        later = 7200
        return quiet(order.model_copy(update={"images": order.images[:1]}))

    shop.mover.bookkeeping = late
    job = shop.finish(start(shop))
    assert succeeded(job), job.failure
    assert job.result == {"checked": 1, "total": 3}
    assert [order.images for order in orders(shop)] == [names(second, first)]
    found = checked(shop, second)
    assert found is not None
    assert (found.sound, found.left, 0 < found.share < 1) == (True, 1, True)
    assert checked(shop, third) == Verification(
        checked_at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC), share=1.0, sound=True
    )


def test_a_job_without_time_for_anything_fails(shop: World) -> None:
    job = shop.finish(start(shop, seconds=1e-6))
    assert (job.state, job.failure.code) == (JobState.FAILED, "nothing-verified")
    assert orders(shop) == []
    assert all(last_verification(shop.repository, point) is None for point in shop.repository.points())


def test_what_is_not_sound_fails_the_job_and_is_not_built_upon(shop: World) -> None:
    first, second, third = shop.repository.points()
    shop.rotten = {f"{second.id}.qcow2"}
    job = shop.finish(start(shop))
    assert (job.state, job.failure.code) == (JobState.FAILED, "points-unsound")
    assert "2 of 3 checked restore points of VM 'web' are not sound" in job.failure.text
    assert len(told(shop, job, Kind.POINT_UNSOUND)) == 2
    verdicts = [checked(shop, point) for point in (first, second, third)]
    assert [one is not None and one.sound for one in verdicts] == [True, False, False]
    shop.rotten = set()
    assert succeeded(shop.back_up())
    assert shop.repository.points()[-1].mode == "full"


def test_a_manifest_that_cannot_be_read_is_told(shop: World) -> None:
    first = shop.repository.points()[0]
    folder = shop.repository.root / "workloads" / first.workload_id / "vms" / first.vm_id / "points" / first.id
    (folder / "point.json").write_text("{}")
    job = shop.finish(start(shop))
    assert (job.state, job.failure.code) == (JobState.FAILED, "points-unsound")
    assert first.id in job.failure.text


def test_nobody_else_works_on_the_vm(shop: World) -> None:
    shop.mover.held = True
    job = start(shop)
    with pytest.raises(Conflict, match=job.id):
        start(shop)
    with pytest.raises(Conflict, match=job.id):
        shop.start_backup()
    shop.until(lambda: shop.mover.running())
    shop.mover.release()
    assert succeeded(shop.finish(job))


def test_a_cancel_ends_it(shop: World) -> None:
    shop.mover.held = True
    job = start(shop)
    shop.until(lambda: shop.mover.running())
    shop.controller.cancel(job)
    assert shop.finish(job).state is JobState.CANCELLED
    assert shop.mover.running() == ()
    shop.assert_nothing_open()


def test_it_outlives_its_controller(shop: World) -> None:
    shop.mover.held = True
    job = start(shop)
    shop.until(lambda: shop.mover.running())
    shop.stop()
    shop.mover.release()
    shop.restart()
    assert succeeded(shop.finish(job))
    assert all(last_verification(shop.repository, point) is not None for point in shop.repository.points())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2])
def test_a_controller_that_dies_meanwhile(shop: World, at: int, after: bool) -> None:
    shop.mover.held = True
    shop.mortal_mover.arm(at, after=after)
    job = start(shop)
    shop.until(shop.mortal_mover.died.is_set)
    shop.mover.release()
    shop.restart()
    assert succeeded(shop.finish(job))
    shop.assert_nothing_open()


def test_the_vm_is_one_of_the_workload_that_the_caller_knows(shop: World) -> None:
    workload = shop.controller.workload("demo")
    assert shop.controller.points.member(workload, "web", known=lambda _: True).vm_id == "web-vm"
    for name, known in (("web", False), ("db", True)):
        with pytest.raises(NotFound):
            shop.controller.points.member(workload, name, known=lambda _, known=known: known)
