# SPDX-License-Identifier: GPL-3.0-or-later
"""How consistent a point is: what is wanted, what is reached and told, and that every guest goes on."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import pytest

from overkeep.controller.activities.freezing import freeze
from overkeep.controller.activities.release import watch_release
from overkeep.controller.background.thawer import Thawer
from overkeep.controller.events import Kind, Level
from overkeep.controller.records import Held, HeldKind, Job, JobState
from overkeep.engine.errors import EngineUnreachable
from overkeep.model.conduct import Conduct
from overkeep.model.consistency import Consistency, Otherwise, Reached, Wanted
from overkeep.model.inventory import VmStatus
from overkeep.model.points import Changes, RestorePoint
from overkeep.repository import layout
from overkeep.units import utc_now
from tests.controller.world import World, disk, succeeded, vm

FILE_SYSTEM = Consistency(wanted=Wanted.FILE_SYSTEM)
LOST = EngineUnreachable(url="https://engine", reason="connection reset")


def want(world: World, consistency: Consistency) -> None:
    """Let the workload want it from now on."""
    demo = world.controller.workload("demo")
    world.controller.update_workload(replace(demo, conduct=Conduct(consistency=consistency)))


def newest(world: World, vm_id: str = "web-vm") -> RestorePoint:
    return world.repository.points(vm_id=vm_id)[-1]


def told(world: World, job: Job, kind: Kind = Kind.CONSISTENCY_LOWER) -> list[tuple[Level, str]]:
    return [(event.level, event.text) for event in world.store.events.of_job(job.id) if event.kind == kind]


@pytest.fixture
def shop(world: World) -> World:
    world.add(vm("web", disk("root")))
    return world


@pytest.mark.parametrize("reached", list(Reached))
@pytest.mark.parametrize("wanted", list(Wanted))
def test_what_suffices(reached: Reached, wanted: Wanted) -> None:
    enough = {
        Reached.CRASH: {Wanted.CRASH},
        Reached.FILE_SYSTEM: {Wanted.CRASH, Wanted.FILE_SYSTEM},
        Reached.GROUP: set(Wanted),
        Reached.OFFLINE: set(Wanted),
    }
    assert reached.suffices(wanted) is (wanted in enough[reached])


def test_without_a_wish_a_point_is_crash_consistent(shop: World) -> None:
    assert succeeded(shop.back_up())
    point = newest(shop)
    assert (point.consistency, point.consistency_wanted) == (Reached.CRASH, Wanted.CRASH)
    assert "freeze" not in shop.memory.calls


def test_the_guest_is_frozen_by_its_host_and_the_point_says_so(shop: World) -> None:
    want(shop, FILE_SYSTEM)
    for _ in range(2):
        job = shop.back_up()
        assert succeeded(job), job.failure
    assert newest(shop).consistency is Reached.FILE_SYSTEM
    assert newest(shop).images[0].changes is Changes.TRACKED
    assert "freeze" not in shop.memory.calls, "nothing outside its host freezes the guest"
    assert told(shop, job) == []


def test_a_vm_that_is_down_holds_still(shop: World) -> None:
    shop.memory.set_status("web-vm", VmStatus.DOWN)
    want(shop, replace(FILE_SYSTEM, otherwise=Otherwise.REFUSE))
    assert succeeded(shop.back_up())
    assert newest(shop).consistency is Reached.OFFLINE


def test_a_guest_without_an_agent_is_refused(shop: World) -> None:
    shop.memory.mute = {"web-vm"}
    want(shop, replace(FILE_SYSTEM, otherwise=Otherwise.REFUSE))
    job = shop.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "consistency-not-reached")
    assert "Guest agent non responsive" in job.failure.text
    assert shop.repository.points() == ()
    shop.assert_nothing_open()
    shop.assert_checkpoints_sound()
    shop.memory.mute = set()
    assert succeeded(shop.back_up())


@pytest.mark.parametrize(("otherwise", "level"), [(Otherwise.WARN, Level.WARNING), (Otherwise.ACCEPT, Level.INFO)])
def test_a_guest_without_an_agent_is_backed_up_as_it_is(shop: World, otherwise: Otherwise, level: Level) -> None:
    shop.memory.mute = {"web-vm"}
    want(shop, replace(FILE_SYSTEM, otherwise=otherwise))
    job = shop.back_up()
    assert succeeded(job), job.failure
    point = newest(shop)
    assert (point.consistency, point.consistency_wanted) == (Reached.CRASH, Wanted.FILE_SYSTEM)
    [(seen, text)] = told(shop, job)
    assert seen is level
    assert text.startswith(
        "The restore point is not file-system consistent, as the workload wants it: The file systems"
    )
    assert told(shop, job, Kind.VM_TRIED_OTHERWISE) == [], "it is no other kind of backup"
    shop.assert_nothing_open()


def test_a_guest_that_could_not_be_frozen_is_tried_before_the_next_backup(shop: World) -> None:
    shop.memory.mute = {"web-vm"}
    want(shop, FILE_SYSTEM)
    shop.back_up()
    before = shop.memory.calls.count("start_backup")
    job = shop.back_up()
    assert shop.memory.calls.count("start_backup") == before + 1, "no backup of the Manager fails for it"
    assert newest(shop).images[0].changes is Changes.TRACKED
    assert len(told(shop, job)) == 1
    shop.memory.mute = set()
    assert succeeded(shop.back_up())
    assert newest(shop).consistency is Reached.FILE_SYSTEM
    assert shop.memory.guest_log[-3:-1] == [("freeze", "web-vm"), ("thaw", "web-vm")], (
        "it was tried, and let go at once"
    )
    shop.assert_nothing_open()


def test_a_backup_that_fails_for_another_reason_is_not_taken_for_that(shop: World) -> None:
    want(shop, FILE_SYSTEM)
    shop.back_up()
    job = shop.start_backup()
    [request] = shop.until(shop.memory.open_backups)
    shop.memory.set_phase(request.id, "failed")
    job = shop.finish(job)
    assert succeeded(job), job.failure
    assert newest(shop).consistency is Reached.FILE_SYSTEM
    assert newest(shop).images[0].changes in (Changes.COMPARED, Changes.TRACKED)
    assert told(shop, job) == []
    shop.assert_nothing_open()


def test_what_an_older_program_wrote_is_read_and_tells_nothing(shop: World) -> None:
    shop.back_up()
    point = newest(shop)
    path = shop.repository.root / layout.point(point.workload_id, point.vm_id, point.id) / layout.MANIFEST
    document = json.loads(path.read_text())
    del document["consistency"], document["consistency_wanted"]
    path.write_text(json.dumps(document))
    assert (newest(shop).consistency, newest(shop).consistency_wanted) == (None, None)
    path.write_text(json.dumps({**document, "consistency": "application"}))
    assert newest(shop).consistency is None, "a word of a later program"
    assert succeeded(shop.back_up())


# freezing and thawing


def frozen(world: World, *, seconds: float = 30) -> Held:
    """A guest that a job froze and that nobody thawed."""
    world.add(vm("web", disk("root")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.running())
    return freeze(watch_release(world.ports, job.id, "web-vm"), seconds=seconds)


def test_what_is_frozen_for_too_long_is_thawed_and_told(world: World) -> None:
    item = frozen(world, seconds=0)
    world.until(lambda: not world.memory.frozen)
    world.until(lambda: told(world, world.store.jobs.get(item.job_id), Kind.GUEST_THAWED))
    assert world.store.held.of(item.job_id, "web-vm", kind=HeldKind.FREEZE) == ()
    world.mover.release()
    assert succeeded(world.finish(world.store.jobs.get(item.job_id)))


def test_what_may_be_frozen_still_is_left_alone(world: World) -> None:
    item = frozen(world)
    Thawer(world.ports, alone=False).round()
    assert world.memory.frozen == {"web-vm"}
    world.mover.release()
    assert succeeded(world.finish(world.store.jobs.get(item.job_id))), "and ends with the job at the latest"
    world.assert_nothing_open()


def test_a_controller_that_is_alone_thaws_at_once_what_a_dead_one_froze(world: World) -> None:
    item = frozen(world)
    world.stop()
    assert world.memory.frozen == {"web-vm"}
    world.start()
    world.until(lambda: not world.memory.frozen, seconds=5)
    world.mover.release()
    assert succeeded(world.finish(world.store.jobs.get(item.job_id)))
    world.assert_nothing_open()


def test_a_guest_that_does_not_thaw_is_an_error_told_once_and_tried_again(world: World) -> None:
    item = frozen(world, seconds=0)
    world.memory.mute = {"web-vm"}
    world.until(lambda: told(world, world.store.jobs.get(item.job_id), Kind.GUEST_FROZEN))
    world.thawer.round()
    [(level, text)] = told(world, world.store.jobs.get(item.job_id), Kind.GUEST_FROZEN)
    assert (level, "web-vm" in text) == (Level.ERROR, True)
    world.memory.mute = set()
    world.until(lambda: not world.memory.frozen)
    world.mover.release()
    assert succeeded(world.finish(world.store.jobs.get(item.job_id)))


def test_a_frozen_guest_of_an_ended_job_is_thawed_by_the_janitor(world: World) -> None:
    world.add(vm("web", disk("root")))
    job = world.back_up()
    until = f"{(utc_now() + dt.timedelta(hours=1)).isoformat(timespec='milliseconds')}/web-vm"
    world.store.held.add(Held(job_id=job.id, kind=HeldKind.FREEZE, ref=until, vm_id="web-vm"))
    world.memory.freeze("web-vm")
    world.janitor.round()
    assert world.memory.frozen == set()
    assert world.store.held.orphans() == ()


def test_an_answer_that_is_lost_leaves_nothing_frozen(shop: World) -> None:
    shop.memory.mute = {"web-vm"}
    want(shop, FILE_SYSTEM)
    shop.back_up()
    shop.memory.mute = set()
    shop.memory.fail("freeze", LOST, after=True)
    job = shop.back_up()
    assert succeeded(job), job.failure
    assert newest(shop).consistency is Reached.FILE_SYSTEM
    shop.assert_nothing_open()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["freeze", "thaw"])
def test_a_controller_that_dies_while_it_tries_a_guest(shop: World, method: str, after: bool) -> None:
    shop.memory.mute = {"web-vm"}
    want(shop, FILE_SYSTEM)
    shop.back_up()
    shop.memory.mute = set()
    shop.engine.arm_at(method, after=after)
    job = shop.start_backup()
    shop.until(shop.engine.died.is_set)
    shop.restart()
    assert succeeded(shop.finish(job))
    assert newest(shop).consistency is Reached.FILE_SYSTEM
    shop.assert_nothing_open()
