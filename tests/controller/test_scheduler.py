from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from overkeep.controller.background.scheduler import Scheduler
from overkeep.controller.durable import Stopping
from overkeep.controller.records import Job, JobState
from overkeep.engine.errors import EngineRefused
from overkeep.model.policy import Policy
from overkeep.model.schedule import Schedule
from tests.controller.world import World, disk, succeeded, vm

START = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


class Site:
    """A world with two workloads, a policy that runs at 22:00 UTC, and a clock that stands still."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = START
        self.begin()
        world.add(vm("web", disk("root")), workload="shop")
        world.add(vm("db", disk("pg")), workload="books")

    def begin(self) -> None:
        """The scheduler and the policies of the controller that runs now, on this clock."""
        self.scheduler = Scheduler(self.world.controller, clock=lambda: self.now)
        self.policies = self.world.controller.policies
        self.policies._clock = lambda: self.now

    def give(self, *workloads: str, **changes: Any) -> Policy:
        policy = Policy(**{"name": "nightly", "schedules": (Schedule(when="daily at 22:00"),), **changes})
        made = self.policies.create(policy)
        for name in workloads:
            self.policies.give(self.world.controller.workload(name), made)
        return policy

    def at(self, text: str) -> None:
        """One tick at a time."""
        self.now = dt.datetime.fromisoformat(f"{text}+00:00")
        self.scheduler.tick()

    def jobs(self, workload: str = "shop") -> list[Job]:
        """All jobs of a workload, oldest first."""
        found = [job for job in self.world.store.jobs.all() if job.subject == workload]
        return sorted(found, key=lambda job: job.created)

    def finished(self, workload: str = "shop") -> list[Job]:
        return [self.world.finish(job) for job in self.jobs(workload)]

    def told(self, workload: str = "shop") -> str:
        return self.policies.planned(self.world.controller.workload(workload)).told


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def test_a_run_begins_at_its_minute_and_once(site: Site) -> None:
    site.give("shop")
    site.at("2026-05-01T21:59")
    assert site.jobs() == []
    for second in ("00", "01", "59"):
        site.at(f"2026-05-01T22:00:{second}")
    site.at("2026-05-01T22:01")
    [job] = site.finished()
    assert succeeded(job), job.failure
    assert (job.caller, job.request["planned"]) == ("scheduler", "2026-05-01T22:00:00+00:00")
    assert site.told() == f"2026-05-01 22:00Z: job {job.id}"
    assert "made up" not in site.world.texts(job)
    site.at("2026-05-02T22:00")
    assert [succeeded(each) for each in site.finished()] == [True, True]
    assert site.jobs("books") == []


def test_of_runs_that_were_missed_one_is_made_up_for(site: Site) -> None:
    site.give("shop", "books")
    site.at("2026-05-09T08:00")
    site.at("2026-05-09T08:01")
    for workload in ("shop", "books"):
        [job] = site.finished(workload)
        assert job.request["planned"] == "2026-05-08T22:00:00+00:00"
        assert "planned for 2026-05-08 22:00Z and is made up for now" in site.world.texts(job)


def test_a_workload_that_still_runs_is_not_begun_again(site: Site) -> None:
    site.give("shop", schedules=(Schedule(when="hourly"),))
    site.world.mover.held = True
    site.at("2026-05-01T13:00")
    site.at("2026-05-01T14:00")
    site.at("2026-05-01T14:01")
    [job] = site.jobs()
    assert "planned for 2026-05-01 14:00Z is left out: this job runs" in site.world.texts(job)
    assert site.world.texts(job).count("left out") == 1
    assert site.told().startswith(f"2026-05-01 14:00Z: left out, because Job {job.id} works on VM 'web'")
    site.world.mover.release()
    site.finished()
    site.at("2026-05-01T14:02")
    assert len(site.jobs()) == 1, "what was left out is not made up for"
    site.at("2026-05-01T15:00")
    assert [succeeded(each) for each in site.finished()] == [True, True]


def test_what_is_paused_does_not_run_and_is_not_made_up_for(site: Site) -> None:
    site.give("shop", "books")
    site.policies.pause(site.world.controller.workload("shop"))
    site.at("2026-05-01T22:00")
    assert (len(site.jobs()), len(site.finished("books"))) == (0, 1)
    site.policies.pause_all()
    site.at("2026-05-02T22:00")
    site.policies.resume(site.world.controller.workload("shop"))
    site.policies.resume_all()
    site.at("2026-05-02T22:01")
    assert (len(site.jobs()), len(site.jobs("books"))) == (0, 1)
    site.at("2026-05-03T22:00")
    assert (len(site.finished()), len(site.finished("books"))) == (1, 2)


def test_a_change_of_schedules_counts_from_now_on(site: Site) -> None:
    site.give("shop")
    site.now = dt.datetime(2026, 5, 2, 9, tzinfo=dt.UTC)
    known = site.policies.get("nightly")
    site.policies.update(known, Policy(name="nightly", schedules=(Schedule(when="daily at 08:00"),)))
    site.at("2026-05-02T09:00")
    assert site.jobs() == []
    site.at("2026-05-03T08:00")
    assert len(site.finished()) == 1


def test_a_clock_that_is_set_back_doubles_nothing_and_stops_nothing(site: Site) -> None:
    site.give("shop", schedules=(Schedule(when="hourly"),))
    for hour in (13, 14, 15):
        site.at(f"2026-05-01T{hour}:00")
        site.finished()
    for hour in (13, 14, 15):
        site.at(f"2026-05-01T{hour}:00")
    assert len(site.jobs()) == 3
    site.at("2026-05-01T16:00")
    assert len(site.finished()) == 4


def test_a_policy_without_schedules_and_a_workload_that_is_gone(site: Site) -> None:
    site.give("shop", schedules=())
    site.at("2026-06-01T00:00")
    assert site.jobs() == []
    site.world.controller.delete_workload(site.world.controller.workload("shop"))
    site.at("2026-06-01T00:01")


def fail_once(site: Site) -> None:
    site.world.memory.fail("start_backup", EngineRefused(act="start", words="No."))


def test_a_run_that_failed_is_tried_again_after_growing_waits(site: Site) -> None:
    site.give("shop", retries=2, retry_wait=10)
    fail_once(site)
    site.at("2026-05-01T22:00")
    [first] = site.finished()
    assert first.state is JobState.FAILED
    ended = dt.datetime.fromisoformat(first.ended or "")
    site.now = ended + dt.timedelta(minutes=9)
    site.world.store.assignments.mark(first.workload_id, site.now)
    site.scheduler.tick()
    assert len(site.jobs()) == 1
    fail_once(site)
    site.now = ended + dt.timedelta(minutes=10)
    site.scheduler.tick()
    site.scheduler.tick()
    second = site.finished()[-1]
    assert (second.state, second.request["tries"], second.request["planned"]) == (
        JobState.FAILED,
        2,
        first.request["planned"],
    )
    assert f"Try 2 of at most 3, because job {first.id} failed" in site.world.texts(second)
    ended = dt.datetime.fromisoformat(second.ended or "")
    site.now = max(site.now, ended) + dt.timedelta(minutes=21)
    site.world.store.assignments.mark(first.workload_id, site.now)
    site.scheduler.tick()
    third = site.finished()[-1]
    assert succeeded(third)
    assert third.request["tries"] == 3
    site.now += HOUR
    site.world.store.assignments.mark(first.workload_id, site.now)
    site.scheduler.tick()
    assert len(site.jobs()) == 3


def kill_at(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> None:
    """Let the controller die at the next call of a method, before its effect."""

    def die(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise Stopping

    monkeypatch.setattr(target, name, die)


@pytest.mark.parametrize("moment", ["before it is written down", "before the mark"])
def test_a_death_in_the_middle_of_a_tick_loses_and_doubles_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    site.give("shop")
    target, name = {
        "before it is written down": (site.world.store.jobs, "create_free"),
        "before the mark": (site.world.store.assignments, "mark_all"),
    }[moment]
    kill_at(monkeypatch, target, name)
    with pytest.raises(Stopping):
        site.at("2026-05-01T22:00")
    site.world.restart()
    site.begin()
    site.at("2026-05-01T22:03")
    site.at("2026-05-01T22:04")
    [job] = site.finished()
    assert succeeded(job), job.failure
    assert job.request["planned"] == "2026-05-01T22:00:00+00:00"
    assert len(site.world.repository.points()) == 1
    site.world.assert_nothing_open()


def test_the_thread_ticks_and_stops(site: Site) -> None:
    site.give("shop")
    site.now = START + 11 * HOUR
    site.scheduler.start()
    site.world.until(site.jobs)
    site.scheduler.stop()
    assert len(site.finished()) == 1
