from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from overkeep.controller.activities.steps import JobCancelled
from overkeep.controller.background import dispatcher
from overkeep.controller.background.dispatcher import PASSED_BY, Dispatcher, breath
from overkeep.controller.desks.waits import waits
from overkeep.controller.durable import Stopping
from overkeep.controller.events import Kind
from overkeep.controller.records import Job, JobState, Stage
from overkeep.controller.workflows import backup_vm
from overkeep.errors import BadRequest, NotFound
from overkeep.model.admission import SlotsWindow
from overkeep.model.conduct import Conduct
from overkeep.model.inventory import Host
from overkeep.testing.mover import MemoryMover
from tests.controller.world import World, disk, succeeded, vm


def everybody(_vm_id: str) -> bool:
    return True


def why(world: World, job: Job, vm_id: str) -> str:
    return waits(world.store, [job.id]).why(job.id, vm_id, everybody)


def waits_for(world: World, job: Job, vm_id: str) -> str:
    """Wait until a VM waits, and return for what."""
    return str(world.until(lambda: why(world, job, vm_id)))


def working(world: World, job: Job) -> set[str]:
    return {seen.vm_id for seen in world.store.jobs.get(job.id).vms if seen.state is JobState.RUNNING}


def test_a_vm_waits_for_the_total_and_says_so_once(world: World) -> None:
    world.controller.limits.set("total", 1)
    world.add(vm("web", disk("root")), vm("db", disk("pg")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.running())
    [first] = working(world, job)
    second = {"web-vm": "db-vm", "db-vm": "web-vm"}[first]
    name = first.removesuffix("-vm")
    assert waits_for(world, job, second) == f"waiting for the total: 1 of 1 slots in use by {name}"
    assert why(world, job, first) == ""
    world.until(lambda: "1 of 2 VMs are waiting for the total: 1 of 1 slots in use by a VM" in world.texts(job))
    world.dispatcher.round()
    world.dispatcher.round()
    assert world.texts(job).count("waiting for") == 1
    world.mover.release()
    assert succeeded(world.finish(job))
    assert world.store.admission.used() == {}
    assert world.store.admission.lines() == ()


def test_names_of_vms_are_told_only_to_those_who_may_see_them(world: World) -> None:
    world.controller.limits.set("target:nfs1", 2)
    world.add(*(vm(name, disk(f"{name}-root")) for name in ("a", "b", "c")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: len(world.mover.running()) == 2)
    [waiting] = {"a-vm", "b-vm", "c-vm"} - working(world, job)
    busy = sorted(working(world, job))
    told = waits(world.store, [job.id]).why(job.id, waiting, lambda vm_id: vm_id == busy[0])
    assert told == f"waiting for target nfs1: 2 of 2 slots in use by {busy[0][0]} and 1 other"
    assert waits(world.store, [job.id]).why(job.id, waiting, lambda _: False).endswith("in use by 2 VMs")
    world.mover.release()
    assert succeeded(world.finish(job))


@pytest.mark.parametrize("resource", ["total", "target:nfs1", "host:host1", "domain:data1"])
def test_nothing_begins_on_a_paused_resource_and_what_runs_ends(world: World, resource: str) -> None:
    world.add(vm("web", disk("root")), workload="shop")
    world.add(vm("db", disk("pg")), workload="books")
    world.mover.held = True
    runs = world.start_backup(workload="shop")
    world.until(lambda: world.mover.running())
    assert world.controller.limits.pause(resource).limit.paused
    stays = world.start_backup(workload="books")
    assert waits_for(world, stays, "db-vm").endswith(", which is paused")
    world.mover.release()
    assert succeeded(world.finish(runs))
    assert world.store.jobs.get(stays.id).vms[0].state is JobState.QUEUED
    world.controller.limits.resume(resource)
    assert succeeded(world.finish(stays))


def test_a_limit_is_changed_while_vms_wait(world: World) -> None:
    world.controller.limits.set("host:host1", 1)
    world.add(*(vm(name, disk(f"{name}-root")) for name in ("a", "b", "c")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: len(working(world, job)) == 1 and world.mover.running())
    world.controller.limits.set("host", 3)  # the host has one of its own
    world.dispatcher.round()
    assert len(working(world, job)) == 1
    assert world.controller.limits.set("host:host1", None).limit.capacity == 3
    world.until(lambda: len(working(world, job)) == 3)
    world.mover.release()
    assert succeeded(world.finish(job))


def test_a_restore_comes_before_backups_that_waited_longer(world: World) -> None:
    world.add(vm("web", disk("root")), workload="shop")
    world.add(vm("db", disk("pg")), workload="books")
    assert succeeded(world.finish(world.start_backup(workload="shop")))
    point = world.repository.points()[-1]
    world.controller.limits.pause("total")
    backup = world.start_backup(workload="books")
    waits_for(world, backup, "db-vm")
    restore = world.start_restore(point.id, "copy")
    world.controller.limits.set("total", 1)
    world.controller.limits.resume("total")
    assert succeeded(world.finish(restore))
    assert succeeded(world.finish(backup))
    started = world.store.jobs.get(restore.id).ended
    moved = [event.time for event in world.store.events.of_job(backup.id) if "restore point" in event.text]
    assert started is not None
    assert moved[0] >= started


def test_waiting_vms_of_a_cancelled_backup_end_without_having_begun(world: World) -> None:
    world.controller.limits.pause("total")
    world.add(vm("web", disk("root")), vm("db", disk("pg")))
    job = world.start_backup()
    waits_for(world, job, "db-vm")
    world.controller.cancel(job)
    ended = world.finish(job)
    assert ended.state is JobState.CANCELLED
    assert ended.failure.code == "cancelled"
    assert "start_backup" not in world.memory.calls
    assert world.store.admission.lines() == ()


def test_what_is_being_ended_in_its_line_is_nobodys_to_begin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The janitor gives the job engine whatever is out of its line, not ended, and unknown there."""
    seen = []

    def error(what: str) -> JobCancelled:
        seen.append(world.store.turns.working())
        return JobCancelled(what=what)

    monkeypatch.setattr(dispatcher, "JobCancelled", error)
    world.controller.limits.pause("total")
    world.add(vm("web", disk("root")), vm("db", disk("pg")))
    job = world.start_backup()
    waits_for(world, job, "db-vm")
    world.controller.cancel(job)
    assert world.finish(job).state is JobState.CANCELLED
    assert seen == [(), ()]


def test_a_waiting_restore_is_cancelled_at_once(world: World) -> None:
    world.add(vm("web", disk("root")))
    assert succeeded(world.back_up())
    world.controller.limits.pause("target:nfs1")
    job = world.start_restore(world.repository.points()[-1].id, "copy")
    waits_for(world, job, "web-vm")
    world.controller.cancel(job)
    assert world.finish(job).state is JobState.CANCELLED
    world.assert_nothing_open()


def test_slots_survive_a_death_and_go_back_at_the_end(world: World) -> None:
    world.controller.limits.set("total", 1)
    world.add(vm("web", disk("root")), vm("db", disk("pg")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.running())
    before = world.store.admission.used()
    world.restart()
    world.until(lambda: world.store.jobs.get(job.id).vms)
    assert world.store.admission.used() == before
    world.mover.release()
    assert succeeded(world.finish(job))
    assert world.store.admission.used() == {}


def test_a_death_between_the_decision_and_giving_it_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(vm("web", disk("root")))

    submit = world.durable.submit

    def die(name: str, *args: object, **options: str) -> None:
        if name == backup_vm.NAME:
            raise Stopping
        submit(name, *args, **options)

    monkeypatch.setattr(world.durable, "submit", die)
    job = world.start_backup()
    world.until(lambda: world.store.admission.stage(job.id, "web-vm") is Stage.ADMITTED)
    assert world.store.admission.slots(job.id, "web-vm") == {"total", "target:nfs1", "host:host1", "domain:data1"}
    monkeypatch.undo()
    world.restart()
    assert succeeded(world.finish(job))
    assert len(world.repository.points()) == 1


def test_a_vm_that_moved_while_it_waited_waits_for_its_new_host(world: World) -> None:
    world.memory.known_hosts.append(Host(id="host-2", name="host2", address="127.0.0.2", status="up"))
    world.ports.movers._movers["host-2"] = MemoryMover("host2", outcome=world.write_image)
    world.add(vm("web", disk("root")))
    world.controller.limits.pause("host:host1")
    world.controller.limits.pause("host:host2")
    job = world.start_backup()
    assert waits_for(world, job, "web-vm") == "waiting for host host1, which is paused"
    world.memory._vms["web-vm"] = dataclasses.replace(world.memory.vm("web-vm"), host_id="host-2")
    world.controller.limits.resume("host:host1")
    world.until(lambda: why(world, job, "web-vm") == "waiting for host host2, which is paused")
    assert world.store.admission.used() == {}
    assert "start_backup" not in world.memory.calls
    world.controller.limits.resume("host:host2")
    assert succeeded(world.finish(job))


def test_a_job_whose_places_are_not_known_finds_them_when_its_turn_comes(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.fail("places", NotFound(kind="Manager", name="x", how="ping"))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.running())
    assert world.store.admission.slots(job.id, "web-vm") == {"total", "target:nfs1", "host:host1", "domain:data1"}
    world.mover.release()
    assert succeeded(world.finish(job))


def test_a_workflow_that_broke_off_frees_its_slots(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add(vm("web", disk("root")), vm("db", disk("pg")))

    def broken(*_: object) -> None:
        raise RuntimeError("the engine gave it up")

    monkeypatch.setattr("overkeep.controller.workflows.backup_release.BackupRelease.close", broken)
    job = world.start_backup()
    world.until(lambda: set(world.durable.statuses([f"{job.id}:web-vm", f"{job.id}:db-vm"]).values()) == {"ERROR"})
    monkeypatch.undo()
    world.janitor.settle_jobs()
    ended = world.finish(job)
    assert ended.state is JobState.FAILED
    assert "broke off" in ended.failure.text
    assert world.store.admission.used() == {}


def test_only_the_first_of_a_line_becomes_overdue_and_not_while_it_is_paused(world: World) -> None:
    now = [0.0]
    judge = Dispatcher(world.ports, world.durable, clock=lambda: now[0])
    world.controller.limits.pause("total")
    world.add(vm("web", disk("root")), vm("db", disk("pg")))
    job = world.start_backup()
    waits_for(world, job, "web-vm")
    [line] = world.store.admission.lines()
    for step, late in ((0.0, set()), (PASSED_BY, set())):
        now[0] = step
        assert judge._overdue([line], world.store.admission.limits()) == late
    world.store.resources.resume("total")
    limits = world.store.admission.limits()
    for step, late in ((10.0, set()), (PASSED_BY + 5, set()), (PASSED_BY * 2 + 5, {line.first})):
        now[0] = step
        assert judge._overdue([line], limits) == late
    assert judge._overdue([dataclasses.replace(line, first="another")], limits) == set()
    assert succeeded(world.finish(job))


@pytest.mark.parametrize(
    ("resource", "error"),
    [("host:nowhere", NotFound), ("target:nfs9", NotFound), ("domain:x", NotFound), ("disk", BadRequest)],
)
def test_limits_of_what_is_not_there_are_refused(world: World, resource: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        world.controller.limits.set(resource, 1)
    with pytest.raises(error):
        world.controller.limits.pause(resource)
    assert world.store.resources.all() == {}


def test_a_kind_cannot_be_paused_and_no_limit_is_zero(world: World) -> None:
    with pytest.raises(BadRequest, match="stands for every host"):
        world.controller.limits.pause("host")
    with pytest.raises(BadRequest, match="or pause the resource"):
        world.controller.limits.set("total", 0)


BY_DAY = SlotsWindow(when="mon-fri 08:00-18:00", capacity=1)


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> list[dt.datetime]:
    """What time it is for limits: a Friday morning in Berlin, until a test changes it."""
    now = [dt.datetime(2026, 11, 27, 9, 0, tzinfo=dt.UTC)]
    monkeypatch.setattr("overkeep.controller.store.admission.utc_now", lambda: now[-1])
    return now


def test_few_begin_by_day_and_the_others_when_the_window_is_over(world: World, day: list[dt.datetime]) -> None:
    world.controller.limits.set("host", 3, windows=[BY_DAY], zone="Europe/Berlin")
    world.add(*(vm(name, disk(f"{name}-root")) for name in ("a", "b", "c")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.running())
    [first] = working(world, job)
    waiting = next(f"{name}-vm" for name in ("a", "b", "c") if f"{name}-vm" != first)
    told = f"waiting for host host1: 1 of 1 slots until fri 18:00 (Europe/Berlin) in use by {first.removesuffix('-vm')}"
    assert waits_for(world, job, waiting) == told
    day.append(dt.datetime(2026, 11, 27, 17, 0, tzinfo=dt.UTC))
    world.until(lambda: len(working(world, job)) == 3)
    world.mover.release()
    assert succeeded(world.finish(job))


def test_a_window_that_opens_ends_nothing(world: World, day: list[dt.datetime]) -> None:
    day.append(dt.datetime(2026, 11, 27, 6, 0, tzinfo=dt.UTC))
    world.controller.limits.set("host", 2, windows=[BY_DAY], zone="Europe/Berlin")
    world.add(*(vm(name, disk(f"{name}-root")) for name in ("a", "b", "c")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: len(working(world, job)) == 2)
    day.append(dt.datetime(2026, 11, 27, 9, 0, tzinfo=dt.UTC))
    world.dispatcher.round()
    assert len(working(world, job)) == 2
    [host] = [usage for usage in world.controller.limits.all() if usage.limit.resource == "host:host1"]
    assert (host.limit.capacity, host.used, host.waiting, host.usual) == (1, 2, 1, 2)
    world.mover.release()
    assert succeeded(world.finish(job))


def test_in_a_window_of_none_nothing_begins(world: World, day: list[dt.datetime]) -> None:
    never = SlotsWindow(when="mon-fri 08:00-18:00", capacity=0)
    world.controller.limits.set("total", None, windows=[never], zone="Europe/Berlin")
    world.add(vm("web", disk("root")))
    job = world.start_backup()
    told = "waiting for the total, which takes nothing new until fri 18:00 (Europe/Berlin)"
    assert waits_for(world, job, "web-vm") == told
    day.append(dt.datetime(2026, 11, 27, 17, 0, tzinfo=dt.UTC))
    assert succeeded(world.finish(job))


def test_windows_outlast_a_restart(world: World, day: list[dt.datetime]) -> None:
    world.controller.limits.set("host", 3, windows=[BY_DAY], zone="Europe/Berlin")
    world.controller.limits.pause("host:host1")
    world.restart()
    assert world.controller.limits.one("host").limit.capacity == 1
    world.controller.limits.resume("host:host1")
    world.controller.limits.set("host", None)
    assert world.store.resources.all() == {}


def test_the_dispatcher_rests_longer_after_long_rounds_but_never_long() -> None:
    assert [breath(took) for took in (0.01, 0.2, 3.0)] == [0.25, pytest.approx(0.6), 0.75]


def test_slots_of_the_dead_are_swept(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.controller.limits.pause("total")
    job = world.start_backup()
    waits_for(world, job, "web-vm")
    world.controller.limits.resume("total")
    assert succeeded(world.finish(job))
    assert world.store.admission.sweep() == 0


def three(world: World, parallel: int | None, *, workload: str = "shop") -> list[str]:
    """A workload of three VMs, in an order that is not that of their names; return their ids."""
    machines = [vm(name, disk(f"{name}-root")) for name in ("web", "app", "db")]
    for each in machines:
        world.memory.add_vm(each)
    ids = [each.id for each in machines]
    world.controller.create_workload(workload, ids, conduct=Conduct(parallel=parallel))
    return ids


def begun(world: World, job: Job) -> list[str]:
    """The VMs on which work began, in that order."""
    return [event.about.vm_id for event in world.store.events.of_job(job.id) if event.kind == Kind.VM_STARTED]


def test_a_serial_workload_is_backed_up_in_the_order_of_its_members(world: World) -> None:
    ids = three(world, 1)
    world.mover.held = True
    job = world.start_backup(workload="shop")
    world.until(lambda: world.mover.running())
    assert working(world, job) == {"web-vm"}
    told = waits_for(world, job, "db-vm")
    assert told == "waiting for its workload: 1 of 1 slots in use by web"
    world.mover.release()
    assert succeeded(world.finish(job))
    assert begun(world, job) == ids
    ended = [event.kind for event in world.store.events.of_job(job.id) if event.kind in ("vm.started", "vm.succeeded")]
    assert ended == ["vm.started", "vm.succeeded"] * 3, "one has ended before the next begins"
    assert world.store.admission.used() == {}


def test_a_vm_of_a_serial_workload_that_fails_does_not_hold_up_the_next(world: World) -> None:
    ids = three(world, 1)
    world.memory.remove_vm("app-vm")
    job = world.finish(world.start_backup(workload="shop"))
    assert job.state is JobState.PARTIAL
    assert begun(world, job) == ids


def test_so_many_vms_of_a_workload_at_once(world: World) -> None:
    three(world, 2)
    world.mover.held = True
    job = world.start_backup(workload="shop")
    world.until(lambda: len(world.mover.running()) == 2)
    assert waits_for(world, job, "db-vm").startswith("waiting for its workload: 2 of 2 slots in use by app and web")
    world.dispatcher.round()
    assert len(working(world, job)) == 2
    world.mover.release()
    assert succeeded(world.finish(job))


def test_a_run_goes_by_the_workload_as_it_is_while_it_waits(world: World) -> None:
    three(world, 1)
    world.mover.held = True
    job = world.start_backup(workload="shop")
    world.until(lambda: world.mover.running())
    shop = world.controller.workload("shop")
    world.controller.update_workload(dataclasses.replace(shop, conduct=Conduct()))
    world.until(lambda: len(working(world, job)) == 3)
    world.mover.release()
    assert succeeded(world.finish(job))


def test_a_serial_run_goes_on_in_its_order_after_a_crash(world: World) -> None:
    ids = three(world, 1)
    world.mover.held = True
    job = world.start_backup(workload="shop")
    world.until(lambda: world.mover.running())
    world.restart()
    assert working(world, job) == {"web-vm"}
    world.mover.release()
    assert succeeded(world.finish(job))
    assert list(dict.fromkeys(begun(world, job))) == ids


def test_a_serial_workload_does_not_wait_for_another(world: World) -> None:
    three(world, 1)
    world.add(vm("mail", disk("spool")), workload="mail")
    world.mover.held = True
    jobs = [world.start_backup(workload=name) for name in ("shop", "mail")]
    world.until(lambda: len(world.mover.running()) == 2)
    world.mover.release()
    assert all(succeeded(world.finish(job)) for job in jobs)


def test_the_limit_of_a_workload_is_no_limit_of_administrators(world: World) -> None:
    three(world, 1)
    shop = world.controller.workload("shop").id
    for act in (
        lambda: world.controller.limits.set(f"workload:{shop}", 3),
        lambda: world.controller.limits.pause("workload"),
    ):
        with pytest.raises(BadRequest, match="a setting of the workload"):
            act()
    assert [used.limit.resource for used in world.controller.limits.all()] == ["host", "domain", "target", "total"]
