# SPDX-License-Identifier: GPL-3.0-or-later
"""Hybrid backups: what their points say, and what becomes of the snapshot, also when a merge or a controller fails."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from overkeep.controller.background.janitor import MERGE_AGAIN, Janitor
from overkeep.controller.events import Kind, Level
from overkeep.controller.records import HeldKind, Job, JobState
from overkeep.engine.errors import EngineRefused, EngineUnreachable, VmLocked
from overkeep.model.consistency import Consistency, Otherwise, Reached, Wanted
from overkeep.model.inventory import VmStatus
from overkeep.model.points import BackupKind, Changes, Mode, RestorePoint
from overkeep.repository import layout
from tests.controller.test_consistency import told, want
from tests.controller.test_crash import SOME, backup_job, calls_of, die_and_go_on
from tests.controller.test_terms import give
from tests.controller.world import World, disk, succeeded, vm

FILE_SYSTEM = Consistency(wanted=Wanted.FILE_SYSTEM)


@pytest.fixture
def shop(world: World) -> World:
    """A VM whose policy asks for hybrid backups."""
    world.add(vm("web", disk("root"), disk("dump", raw=True)))
    give(world, backup_kind=BackupKind.HYBRID)
    return world


def newest(world: World) -> RestorePoint:
    return world.repository.points()[-1]


def kinds(world: World, job: Job) -> list[str]:
    return [event.kind for event in world.store.events.of_job(job.id)]


def test_the_policy_says_which_kind_is_made_and_the_point_which_was(world: World) -> None:
    world.add(vm("web", disk("root")))
    asked = []
    for kind in (BackupKind.LEGACY, BackupKind.HYBRID, BackupKind.LEGACY):
        give(world, backup_kind=kind)
        world.mover.held = True
        job = world.start_backup()
        asked += [request.kind for request in world.until(world.memory.open_backups)]
        world.mover.release()
        assert succeeded(world.finish(job))
        assert newest(world).backup_kind is kind
        world.assert_nothing_open()
        world.assert_checkpoints_sound()
    assert asked == [BackupKind.LEGACY, BackupKind.HYBRID, BackupKind.LEGACY]
    changes = [point.images[0].changes for point in world.repository.points()]
    assert changes == [Changes.ALL, Changes.TRACKED, Changes.TRACKED]


def test_full_and_incremental(shop: World) -> None:
    for _ in range(2):
        job = shop.back_up()
        assert succeeded(job), job.failure
        assert {Kind.SNAPSHOT_STAYS, Kind.SNAPSHOT_REMOVED}.isdisjoint(kinds(shop, job))
        shop.assert_nothing_open()
    first, second = shop.repository.points()
    assert (first.mode, second.mode) == (Mode.FULL, Mode.INCREMENTAL)
    assert {image.name: image.changes for image in second.images} == {"root": Changes.TRACKED, "dump": Changes.COMPARED}
    assert shop.memory.checkpoints_made() == {"web-vm": (second.checkpoint_id,)}


def test_a_manager_without_hybrid_backups_makes_a_legacy_one(shop: World) -> None:
    shop.memory.makes_hybrid = False
    assert succeeded(shop.back_up())
    assert newest(shop).backup_kind is BackupKind.LEGACY


def test_a_manifest_of_an_older_or_a_later_program_tells_no_kind(shop: World) -> None:
    shop.back_up()
    point = newest(shop)
    path = shop.repository.root / layout.point(point.workload_id, point.vm_id, point.id) / layout.MANIFEST
    document = json.loads(path.read_text())
    assert document.pop("backup_kind") == "hybrid"
    path.write_text(json.dumps(document))
    assert newest(shop).backup_kind is None
    path.write_text(json.dumps({**document, "backup_kind": "replica"}))
    assert newest(shop).backup_kind is None
    assert succeeded(shop.back_up())


# what goes wrong


def test_changes_that_are_lost_are_compared(shop: World) -> None:
    shop.back_up()
    shop.memory.break_bitmaps("root-disk")
    job = shop.back_up()
    assert succeeded(job), job.failure
    assert {image.changes for image in newest(shop).images} == {Changes.COMPARED}
    shop.assert_nothing_open()
    shop.memory.mend_bitmaps()
    assert shop.memory.checkpoints_made() == {"web-vm": (newest(shop).checkpoint_id,)}
    assert succeeded(shop.back_up())
    assert newest(shop).image("root-disk").changes is Changes.TRACKED


def test_a_snapshot_that_the_manager_left_is_removed_and_told(shop: World) -> None:
    """It calls the backup a success, also when it could not merge the snapshot."""
    shop.memory.failing_merges = {"web-vm": 1}
    job = shop.back_up()
    assert succeeded(job), job.failure
    [(level, text)] = told(shop, job, Kind.SNAPSHOT_REMOVED)
    assert (level, "did not remove the snapshot" in text) == (Level.WARNING, True)
    shop.assert_nothing_open()


def test_a_snapshot_that_cannot_be_merged_is_told_and_tried_again(shop: World) -> None:
    now = [0.0]
    shop.janitor = Janitor(shop.controller, shop.durable, clock=lambda: now[-1])
    shop.memory.failing_merges = {"web-vm": 99}
    shop.memory.told["web-vm"] = "Failed to merge images of web."
    job = shop.back_up()
    assert succeeded(job), "its data are there"
    [(level, text)] = told(shop, job, Kind.SNAPSHOT_STAYS)
    assert level is Level.WARNING
    assert "Failed to merge images of web." in text
    assert [item.kind for item in shop.store.held.orphans()] == [HeldKind.SNAPSHOT]
    assert [left.kind for left in shop.janitor.leftovers()] == ["snapshot"]
    asked = shop.memory.calls.count("delete_snapshot")
    shop.janitor.round()
    shop.janitor.round()
    assert shop.memory.calls.count("delete_snapshot") == asked + 1, "not in each round: it is work for a host"
    assert succeeded(shop.back_up()), "backups go on"
    shop.memory.failing_merges = {}
    shop.janitor.round()
    assert shop.memory.snapshots_left(), "not yet"
    now.append(MERGE_AGAIN + 1)
    shop.janitor.round()
    shop.assert_nothing_open()
    assert Kind.LEFTOVER_CLOSED in kinds(shop, job)


def test_a_snapshot_of_somebody_else_stays(shop: World) -> None:
    shop.memory.take_snapshot("web-vm")
    assert succeeded(shop.back_up())
    shop.janitor.round()
    assert shop.memory.snapshots_left() == ("web-vm",)
    assert "delete_snapshot" not in shop.memory.calls


def test_a_backup_that_the_manager_gave_up_leaves_no_snapshot(shop: World) -> None:
    """As after its restart: the backup has failed, and nobody merges its snapshot."""
    shop.mover.held = True
    job = shop.start_backup()
    [request] = shop.until(shop.memory.open_backups)
    shop.until(lambda: shop.mover.running())
    shop.memory.set_phase(request.id, "failed")
    assert shop.memory.snapshots_left() == ("web-vm",)
    shop.mover.release()
    job = shop.finish(job)
    assert job.state is JobState.FAILED
    assert Kind.SNAPSHOT_REMOVED in kinds(shop, job)
    shop.assert_nothing_open()


def test_a_cancelled_one_leaves_nothing(shop: World) -> None:
    shop.mover.held = True
    job = shop.start_backup()
    shop.until(lambda: shop.mover.running())
    shop.store.jobs.request_cancel(job.id)
    assert shop.finish(job).state is JobState.CANCELLED
    shop.assert_nothing_open()
    shop.assert_checkpoints_sound()


@pytest.mark.parametrize("every", SOME)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_it_survives_a_death_at_any_call_of_the_manager(shop: World, every: int, after: bool) -> None:
    assert succeeded(shop.back_up())
    total = calls_of(shop, "engine", backup_job)
    for at in range(1 + int(after), total + 1, every):
        before = len(shop.repository.points())
        job = die_and_go_on(shop, "engine", at, after=after, start=backup_job)
        assert succeeded(job), (at, job.failure)
        assert len(shop.repository.points()) == before + 1, at
        shop.assert_nothing_open()
        shop.assert_checkpoints_sound()


def test_a_data_base_that_is_lost_in_the_midst_leaves_no_snapshot(shop: World) -> None:
    """The mark of the backup tells whose it is, and the backup which snapshot is its own."""
    assert succeeded(shop.back_up())
    shop.mover.held = True
    shop.start_backup()
    shop.until(lambda: shop.mover.running())
    shop.stop()
    shop.lose_data_base()
    shop.mover.release()
    shop.start()
    shop.janitor.round()
    assert (shop.memory.open_backups(), shop.memory.snapshots_left()) == ((), ())


# consistency


@pytest.fixture
def careful(shop: World) -> World:
    want(shop, replace(FILE_SYSTEM, otherwise=Otherwise.REFUSE))
    return shop


def test_the_guest_is_frozen_from_outside_until_the_snapshot_is_there(careful: World) -> None:
    job = careful.back_up()
    assert succeeded(job), job.failure
    assert newest(careful).consistency is Reached.FILE_SYSTEM
    assert [what for what, _ in careful.memory.guest_log][:2] == ["freeze", "begin"]
    assert careful.memory.frozen == set()


def test_a_guest_that_cannot_be_frozen_is_refused(careful: World) -> None:
    careful.memory.mute = {"web-vm"}
    job = careful.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "consistency-not-reached")
    assert "Guest agent non responsive" in job.failure.text
    assert careful.repository.points() == ()
    careful.assert_nothing_open()


def test_a_guest_that_cannot_be_frozen_is_taken_as_it_is(shop: World) -> None:
    want(shop, FILE_SYSTEM)
    shop.memory.mute = {"web-vm"}
    for _ in range(2):
        job = shop.back_up()
        assert succeeded(job), job.failure
        assert newest(shop).consistency is Reached.CRASH
        assert len(told(shop, job)) == 1
    assert {image.changes for image in newest(shop).images} == {Changes.TRACKED, Changes.COMPARED}
    shop.assert_nothing_open()


def test_a_snapshot_that_takes_too_long_thaws_the_guest(shop: World) -> None:
    want(shop, replace(FILE_SYSTEM, frozen_at_most=1))
    shop.memory.slow = {"web-vm"}
    job = shop.start_backup()
    shop.until(lambda: ("freeze", "web-vm") in shop.memory.guest_log)
    shop.until(lambda: told(shop, job))
    shop.memory.slow = set()
    job = shop.finish(job)
    assert succeeded(job), job.failure
    assert newest(shop).consistency is Reached.CRASH
    assert "had not begun 1 s after" in told(shop, job)[0][1]
    shop.assert_nothing_open()


def test_what_is_no_fault_of_the_guest_is_told_as_it_is(careful: World) -> None:
    careful.memory.hold("web-vm", "VM is locked by a migration.")
    job = careful.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, VmLocked.code)
    assert told(careful, job) == []
    careful.assert_nothing_open()


def test_a_manager_that_is_away_for_a_moment_costs_no_consistency(careful: World) -> None:
    careful.memory.fail("freeze", EngineUnreachable(url="https://engine", reason="connection reset"))
    assert succeeded(careful.back_up())
    assert newest(careful).consistency is Reached.FILE_SYSTEM
    careful.assert_nothing_open()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", ["freeze", "start_backup", "thaw"])
def test_a_controller_that_dies_while_the_guest_is_frozen(shop: World, method: str, after: bool) -> None:
    want(shop, FILE_SYSTEM)
    shop.engine.arm_at(method, after=after)
    job = shop.start_backup()
    shop.until(shop.engine.died.is_set)
    shop.restart()
    job = shop.finish(job)
    assert succeeded(job), job.failure
    began = method == "thaw" or (method, after) == ("start_backup", True)
    assert newest(shop).consistency is (Reached.CRASH if began else Reached.FILE_SYSTEM)
    assert bool(told(shop, job)) is began
    shop.assert_nothing_open()


def test_a_vm_that_is_down_is_offline_unless_it_was_started_meanwhile(careful: World) -> None:
    careful.memory.set_status("web-vm", VmStatus.DOWN)
    assert succeeded(careful.back_up())
    assert newest(careful).consistency is Reached.OFFLINE
    want(careful, Consistency())
    careful.memory.slow = {"web-vm"}
    job = careful.start_backup()
    careful.until(careful.memory.open_backups)
    careful.memory.set_status("web-vm", VmStatus.UP)
    careful.memory.slow = set()
    assert succeeded(careful.finish(job))
    assert newest(careful).consistency is Reached.CRASH


def test_a_refused_snapshot_has_the_managers_reason(shop: World) -> None:
    shop.memory.fail("start_backup", EngineRefused(act="back up", words="There is no room."), times=5)
    job = shop.back_up()
    assert (job.state, "There is no room." in job.failure.text) == (JobState.FAILED, True)
    shop.assert_nothing_open()
