# SPDX-License-Identifier: GPL-3.0-or-later
"""The space of targets: sampled, told once at each mark, and no backup above the second one, but everything else."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from overkeep.controller.background.capacity_watch import CapacityWatch
from overkeep.controller.desks.points import Wanted
from overkeep.controller.events import Filter
from overkeep.controller.records import JobState
from overkeep.controller.store import Store
from overkeep.model.capacity import Fill, Space
from overkeep.model.policy import Policy
from overkeep.model.restore import RestoreRequest
from overkeep.model.retention import Retention
from tests.controller.world import World, disk, succeeded, vm

NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


def again(world: World, **marks: Any) -> None:
    """Start the controller anew with other marks of its target."""
    world.stop()
    [target] = world.target_settings
    world.target_settings = (target.model_copy(update=marks),)
    world.start()


def test_a_full_target_gets_no_backup_and_everything_else_works(world: World) -> None:
    world.add(vm("web", disk("root")), vm("db", disk("pg")))
    assert succeeded(world.back_up())
    points = [point.id for point in world.repository.points()]
    assert succeeded(world.back_up())
    policy = world.controller.policies.create(Policy(name="one", retention=Retention(last=1)))
    world.controller.policies.give(world.controller.workload("demo"), policy)

    again(world, reserve=1 << 62)
    job = world.back_up()
    assert job.state is JobState.FAILED
    assert {v.failure.code for v in job.vms} == {"target-above-mark"}
    assert "No backup to target 'nfs1' begins" in job.failure.text
    left = [point.id for point in world.repository.points()]
    assert len(left) == 2, "the retention went on: of each VM one point is left"
    assert not set(points) & set(left)
    newest = next(point for point in world.repository.points() if point.vm_name == "web")
    found = world.controller.points.find(newest.id, wanted=Wanted(vm="web"))
    request = RestoreRequest(point_id=newest.id, name="copy")
    targets = world.controller.restore_targets(found, request)
    job = world.controller.start_restore(found, request, targets=targets, caller="admin")
    assert succeeded(world.finish(job))
    world.assert_nothing_open()

    again(world, reserve=0)
    assert succeeded(world.back_up())


def test_each_mark_is_told_once(world: World) -> None:
    def look() -> list[str]:
        CapacityWatch(world.ports).look()
        return [event.kind for event in world.store.events.after(0, Filter(target="nfs1", kind="target"))]

    again(world, alarm_percent=100, stop_percent=100)
    assert look() == []
    again(world, reserve=1 << 62)
    assert look() == ["target.full"]
    assert look() == ["target.full"]
    assert world.store.capacity.fill("nfs1") is Fill.FULL
    again(world, reserve=0)
    assert look() == ["target.full", "target.room"]
    [full, _] = world.store.events.after(0, Filter(target="nfs1", kind="target"))
    assert full.level == "error"
    assert full.fields["free"] > 0
    state = world.controller.targets.one("nfs1")
    assert state.space is not None
    assert state.space.size >= state.space.free > 0


@pytest.fixture
def store(tmp_path: Path):
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield store
    store.close()


def test_samples_are_kept_by_the_hour_and_not_for_ever(store: Store) -> None:
    for minute in range(0, 92 * 24 * 60, 30):
        used = minute
        store.capacity.add("nfs1", NOON + dt.timedelta(minutes=minute), Space(size=10**9, used=used, free=10**9 - used))
    store.capacity.add("nfs2", NOON, Space(size=1, used=1, free=0))
    kept = store.capacity.since("nfs1", NOON)
    assert len(kept) == 90 * 24 + 1
    assert kept[-1].space.used == 92 * 24 * 60 - 30, "the last of its hour"
    assert len(store.capacity.since("nfs1", kept[-1].time - dt.timedelta(hours=3))) == 4
    assert len(store.capacity.since("nfs2", NOON)) == 1


def test_of_two_controllers_one_tells(store: Store) -> None:
    assert store.capacity.change_fill("nfs1", Fill.OK, Fill.HIGH)
    assert not store.capacity.change_fill("nfs1", Fill.OK, Fill.HIGH)
    assert store.capacity.change_fill("nfs1", Fill.HIGH, Fill.FULL)
    assert store.capacity.fill("nfs1") is Fill.FULL
    assert store.capacity.fill("other") is Fill.OK
