# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be true of a site whatever happened to its controllers: jobs, points, locks and restored VMs agree."""

from __future__ import annotations

from collections.abc import Iterator

from overkeep.controller.events import Event, Filter
from overkeep.controller.events import Kind as Told
from overkeep.controller.records import Job, JobKind, JobState
from overkeep.controller.store.points import PointFilter
from tests.controller.test_retention import assert_sound
from tests.controller.world import World

EXCUSES = frozenset({"not-found", "retention-waits"})
"""Why a restore or a removal may fail: the point went meanwhile, or something reads it."""

Key = tuple[str, str]


def events(world: World, kind: str) -> Iterator[Event]:
    """All events of a kind, oldest first."""
    seq = 0
    while found := world.store.events.after(seq, Filter(kind=kind)):
        yield from found
        seq = found[-1].seq


def jobs(world: World) -> tuple[Job, ...]:
    """All jobs."""
    return world.store.jobs.all(limit=100_000)


def quiet(world: World) -> bool:
    """Whether every job ended, and nothing of any is open or in use."""
    memory = world.memory
    return (
        not world.store.jobs.all(live=True)
        and memory.open_backups() == ()
        and memory.open_transfers() == ()
        and world.store.held.orphans() == ()
        and world.mover.running() == ()
        and world.repository.drafts() == ()
        and world.store.admission.used() == {}
    )


def assert_jobs_ended_well(world: World) -> None:
    """Nobody broke off: a job was done, or cancelled because that was asked for, or could not be done by then."""
    for job in jobs(world):
        assert job.state.over, job
        if job.state in (JobState.SUCCEEDED, JobState.CANCELLED):
            assert job.state is JobState.SUCCEEDED or job.cancel_requested, job
        elif job.kind is JobKind.BACKUP:
            assert job.state is JobState.PARTIAL, job
            assert job.cancel_requested, job
        else:
            assert job.failure.code in EXCUSES, job
            assert job.state is JobState.FAILED, job


def assert_points_agree(world: World) -> None:
    """The points that are there are those that were made and not removed, each told once, and all of them whole."""
    made = [_key(event) for event in events(world, Told.POINT_MADE)]
    removed = [_key(event) for event in events(world, Told.POINT_REMOVED)]
    assert len(made) == len(set(made))
    assert len(removed) == len(set(removed))
    assert set(removed) <= set(made)
    there = {(point.vm_id, point.id) for point in world.repository.points()}
    assert there == set(made) - set(removed), there ^ (set(made) - set(removed))
    listed = [seen.point for seen in world.store.points.page(PointFilter(), after=None, limit=100_000)]
    assert sorted((point.vm_id, point.id) for point in listed) == sorted(there), "the table of points"
    told = {(vm.vm_id, vm.point_id) for job in jobs(world) if job.kind is JobKind.BACKUP for vm in job.vms}
    assert {key for key in told if key[1]} == set(made)
    assert world.repository.damaged() == ()


def assert_restores_agree(world: World) -> None:
    """A restore made its VM once and says so, also when it was cancelled while that started; else it made nothing."""
    for job in jobs(world):
        if job.kind is JobKind.RESTORE:
            assert job.result.get("vm_id") or job.state is not JobState.SUCCEEDED, job
            expected = 1 if job.result.get("vm_id") else 0
            assert len(world.memory.named(job.subject)) == expected, job


def assert_all_well(world: World) -> None:
    """Everything of the above, and what is on the target is sound; the last job of each VM was a backup."""
    assert_jobs_ended_well(world)
    assert_points_agree(world)
    assert_restores_agree(world)
    assert_sound(world)


def _key(event: Event) -> Key:
    return event.about.vm_id, event.about.point_id
