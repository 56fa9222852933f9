# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs of a group begin in one moment, with all guests frozen, and every guest goes on, whatever happens."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from overkeep.controller.events import Kind
from overkeep.controller.records import Job, JobState
from overkeep.controller.store.gatherings import Stage
from overkeep.model.admission import SlotsWindow
from overkeep.model.conduct import Conduct
from overkeep.model.consistency import Consistency, Otherwise, Reached, Wanted
from overkeep.model.inventory import VmStatus
from tests.controller.world import World, disk, succeeded, vm

NAMES = ("app", "db", "web")
IDS = tuple(f"{name}-vm" for name in NAMES)


def group(
    world: World, *, otherwise: Otherwise = Otherwise.WARN, seconds: int = 20, parallel: int | None = None
) -> None:
    """A workload of three VMs that are to be backed up in one moment."""
    for name in NAMES:
        world.memory.add_vm(vm(name, disk(f"{name}-root")))
    wanted = Consistency(wanted=Wanted.GROUP, otherwise=otherwise, frozen_at_most=seconds)
    world.controller.create_workload("demo", IDS, conduct=Conduct(parallel=parallel, consistency=wanted))


def reached(world: World) -> list[Reached | None]:
    """What the newest points of the VMs have reached."""
    return [world.repository.points(vm_id=vm_id)[-1].consistency for vm_id in IDS]


def why(world: World, job: Job) -> set[str]:
    """Why the points of a run are less consistent than they should be."""
    told = (event for event in world.store.events.of_job(job.id) if event.kind == Kind.CONSISTENCY_LOWER)
    return {event.text.partition("wants it: ")[2] for event in told}


def assert_one_moment(log: list[tuple[str, str]], vm_ids: tuple[str, ...] = IDS) -> None:
    """All were frozen before the first backup began, and none was thawed before its own had begun."""
    freezes = [log.index(("freeze", vm_id)) for vm_id in vm_ids]
    begins = [log.index(("begin", vm_id)) for vm_id in vm_ids]
    thaws = [log.index(("thaw", vm_id)) for vm_id in vm_ids]
    assert max(freezes) < min(begins)
    assert all(begin < thaw for begin, thaw in zip(begins, thaws, strict=True))


def test_all_begin_in_one_moment(world: World) -> None:
    group(world, otherwise=Otherwise.REFUSE)
    for _ in range(2):
        world.memory.guest_log.clear()
        job = world.back_up()
        assert succeeded(job), job.failure
        assert reached(world) == [Reached.GROUP] * 3
        assert_one_moment(world.memory.guest_log)
        assert why(world, job) == set()
        world.assert_nothing_open()
        world.assert_checkpoints_sound()
    assert {image.changes for point in world.repository.points()[3:] for image in point.images} == {"tracked"}


def test_a_vm_that_is_down_belongs_to_the_moment(world: World) -> None:
    group(world, otherwise=Otherwise.REFUSE)
    world.memory.set_status("db-vm", VmStatus.DOWN)
    job = world.back_up()
    assert succeeded(job), job.failure
    assert reached(world) == [Reached.GROUP] * 3
    assert_one_moment(world.memory.guest_log, ("app-vm", "web-vm"))


def test_one_guest_that_cannot_be_frozen_is_refused_for_all(world: World) -> None:
    group(world, otherwise=Otherwise.REFUSE)
    world.memory.mute = {"db-vm"}
    job = world.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "consistency-not-reached")
    assert "VM 'db': The file systems of the guest could not be frozen" in job.failure.text
    assert world.repository.points() == ()
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_one_guest_that_cannot_be_frozen_leaves_the_others_what_they_can_be(world: World) -> None:
    group(world)
    world.memory.mute = {"db-vm"}
    job = world.back_up()
    assert succeeded(job), job.failure
    assert reached(world) == [Reached.FILE_SYSTEM, Reached.CRASH, Reached.FILE_SYSTEM]
    assert any("VM 'db': The file systems" in text for text in why(world, job))
    world.assert_nothing_open()


@pytest.mark.parametrize("otherwise", [Otherwise.REFUSE, Otherwise.WARN])
def test_when_the_time_is_over_all_are_thawed_at_once(world: World, otherwise: Otherwise) -> None:
    """One backup stays in its beginning for longer than guests may be frozen."""
    group(world, otherwise=otherwise, seconds=2)
    world.memory.slow = {"db-vm"}
    job = world.start_backup()
    world.until(lambda: ("freeze", "db-vm") in world.memory.guest_log)
    world.until(lambda: not world.memory.frozen, seconds=6)
    world.memory.slow = set()
    job = world.finish(job)
    assert world.memory.frozen == set()
    if otherwise is Otherwise.REFUSE:
        assert (job.state, job.failure.code) == (JobState.FAILED, "consistency-not-reached")
        assert world.repository.points() == ()
    else:
        assert succeeded(job), job.failure
        assert reached(world) == [Reached.FILE_SYSTEM, Reached.CRASH, Reached.FILE_SYSTEM]
        assert why(world, job) == {"Not all backups had begun 2 s after the guests were frozen."}
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_a_vm_that_does_not_come_keeps_nobody(world: World) -> None:
    group(world)
    world.memory.remove_vm("db-vm")
    job = world.back_up()
    assert job.state is JobState.PARTIAL
    assert [world.repository.points(vm_id=vm_id)[-1].consistency for vm_id in ("app-vm", "web-vm")] == [
        Reached.FILE_SYSTEM
    ] * 2
    assert why(world, job) == {"VM 'db' of the group is not backed up in this run."}
    world.assert_nothing_open()


def test_a_run_without_all_vms_is_no_group(world: World) -> None:
    group(world)
    world.controller.create_workload("other", ["db-vm"])
    world.mover.held = True
    other = world.start_backup(workload="other")
    world.until(lambda: world.mover.running())
    job = world.start_backup()
    world.mover.release()
    assert world.finish(job).state is JobState.PARTIAL
    assert why(world, job) == {"VM 'db' of the group is not backed up in this run."}
    assert succeeded(world.finish(other))


def test_a_group_gets_its_slots_together_or_waits(world: World) -> None:
    world.controller.limits.set("total", 3)
    group(world, otherwise=Otherwise.REFUSE)
    world.memory.add_vm(vm("mail", disk("spool")))
    world.controller.create_workload("mail", ["mail-vm"])
    world.mover.held = True
    mail = world.start_backup(workload="mail")
    world.until(lambda: world.mover.running())
    job = world.start_backup()
    world.until(lambda: len(world.store.admission.lines()) == 1 and world.store.admission.lines()[0].length == 3)
    world.dispatcher.round()
    assert world.store.admission.used()["total"] == 1, "two would fit, and wait for the third"
    world.mover.release()
    assert succeeded(world.finish(mail))
    assert succeeded(world.finish(job))
    assert reached(world) == [Reached.GROUP] * 3
    assert world.store.admission.used() == {}


@pytest.mark.parametrize(("limit", "words"), [("total", "the total"), ("host:host1", "host host1")])
def test_a_limit_that_is_too_low_for_the_group_is_told(world: World, limit: str, words: str) -> None:
    world.controller.limits.set(limit, 2)
    group(world)
    job = world.back_up()
    assert succeeded(job), job.failure
    assert reached(world) == [Reached.FILE_SYSTEM] * 3
    assert why(world, job) == {f"The limit of {words} is lower than the 3 VMs of the group need."}


def test_a_group_waits_for_a_window_in_which_it_fits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [dt.datetime(2026, 11, 27, 9, 0, tzinfo=dt.UTC)]
    monkeypatch.setattr("overkeep.controller.store.admission.utc_now", lambda: now[-1])
    world.controller.limits.set("total", 3, windows=[SlotsWindow(when="08:00-18:00", capacity=2)])
    group(world, otherwise=Otherwise.REFUSE)
    job = world.start_backup()
    world.until(lambda: world.store.admission.lines())
    world.dispatcher.round()
    assert world.store.admission.used() == {}
    now.append(dt.datetime(2026, 11, 27, 18, 0, tzinfo=dt.UTC))
    assert succeeded(world.finish(job))
    assert reached(world) == [Reached.GROUP] * 3


def test_a_group_that_is_backed_up_one_by_one_is_none(world: World) -> None:
    group(world, otherwise=Otherwise.REFUSE, parallel=1)
    job = world.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "consistency-not-reached")
    assert "The limit of its workload is lower" in job.failure.text


def test_a_cancel_lets_all_go(world: World) -> None:
    group(world)
    world.memory.slow = set(IDS)
    job = world.start_backup()
    world.until(lambda: len(world.memory.frozen) == 3)
    world.controller.cancel(job)
    world.until(lambda: not world.memory.frozen)
    world.memory.slow = set()
    assert world.finish(job).state is JobState.CANCELLED
    assert world.repository.points() == ()
    world.assert_nothing_open()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["freeze", "start_backup", "thaw"])
def test_a_controller_that_dies_with_guests_frozen(world: World, method: str, after: bool) -> None:
    """The next one thaws them at once; the run goes on, and says that it is no group."""
    group(world)
    world.engine.arm_at(method, after=after)
    job = world.start_backup()
    world.until(world.engine.died.is_set)
    world.stop()
    world.engine.die_in = ""
    world.start()
    world.until(lambda: not world.memory.frozen, seconds=5)
    world.janitor.round()
    job = world.finish(job)
    assert succeeded(job), job.failure
    assert Reached.GROUP not in reached(world)
    assert why(world, job) == {"The controller was restarted while guests were frozen."}
    assert world.store.gatherings.get(job.id).stage is Stage.OVER
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_a_second_attempt_is_no_group(world: World) -> None:
    group(world)
    assert succeeded(world.back_up())
    world.memory.break_bitmaps("db-root-disk")
    job = world.back_up()
    assert succeeded(job), job.failure
    assert reached(world) == [Reached.GROUP, Reached.FILE_SYSTEM, Reached.GROUP]
    assert why(world, job) == {
        "The backup of the VM failed after it had begun together with the others, and begins again by itself."
    }


def test_without_a_group_nobody_waits_for_another(world: World) -> None:
    group(world)
    demo = world.controller.workload("demo")
    wanted = Consistency(wanted=Wanted.FILE_SYSTEM)
    world.controller.update_workload(dataclasses.replace(demo, conduct=Conduct(consistency=wanted)))
    job = world.back_up()
    assert succeeded(job), job.failure
    assert reached(world) == [Reached.FILE_SYSTEM] * 3
    assert "freeze" not in world.memory.calls
