from __future__ import annotations

import dataclasses
import datetime as dt
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from docs import generate
from overkeep.config import EventsConfig
from overkeep.controller.background.couriers import Courier
from overkeep.controller.background.janitor import Janitor
from overkeep.controller.background.manager_log import ManagerLog, number_of
from overkeep.controller.background.mover_watch import MoverWatch
from overkeep.controller.durable import Stopping
from overkeep.controller.events import MEANINGS, About, Draft, Event, Filter, Kind, Level
from overkeep.controller.records import Job, JobKind, JobState, Member
from overkeep.controller.store import Store
from overkeep.engine.errors import EngineUnreachable, PermissionDenied, VmLocked
from overkeep.model.policy import Policy
from overkeep.units import utc_now
from tests.controller.test_policies import BEFORE_POLICIES
from tests.controller.world import World, disk, vm


def kinds(events: tuple[Event, ...]) -> list[str]:
    return [event.kind for event in events]


def note(text: str, **about: str) -> Draft:
    return Draft(kind=Kind.JOB_NOTE, text=text, about=About(**about))


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    store = Store(database)
    yield store
    store.close()


# what is told


def test_the_story_of_a_backup(world: World) -> None:
    world.add(vm("web", disk("root")))
    job = world.back_up()
    told = world.store.events.of_job(job.id)
    phases = [event.fields["phase"] for event in told if event.kind == Kind.VM_PHASE]
    assert phases == ["planning", "configuration", "starting", "copying", "committing", "releasing", "retention"]
    assert [kind for kind in kinds(told) if kind != Kind.VM_PHASE] == [
        "job.queued",
        "job.started",
        "vm.started",
        "point.made",
        "vm.succeeded",
        "job.succeeded",
    ]
    assert {event.caller for event in told} == {"admin"}
    assert {event.about.workload_id for event in told} == {job.workload_id}
    [made] = [event for event in told if event.kind == Kind.POINT_MADE]
    assert (made.about.vm_id, made.about.vm_name, made.about.target) == ("web-vm", "web", "nfs1")
    assert made.about.point_id == job.result["points"]["web-vm"]
    assert made.fields == {"mode": "full", "moved": 1 << 20, "stored": 1 << 18}
    assert [event.seq for event in told] == sorted({event.seq for event in told})


def test_why_a_vm_failed_is_told_by_its_own_event(world: World) -> None:
    world.add(vm("web", disk("root")), vm("db", disk("pg")))
    world.memory.hold("db-vm", "VM is locked.")
    job = world.back_up()
    told = {event.kind: event for event in world.store.events.of_job(job.id)}
    assert job.state is JobState.PARTIAL
    assert "VM is locked" in told[Kind.VM_FAILED].text
    assert (told[Kind.VM_FAILED].level, told[Kind.VM_FAILED].about.vm_id) == (Level.ERROR, "db-vm")
    assert told[Kind.JOB_PARTIAL].text == "Backup of 'demo' is partial: 1 of 2 VMs succeeded"
    assert "db" not in told[Kind.JOB_PARTIAL].text, "who may see web alone sees this"


def test_steps_that_are_repeated_tell_once(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.engine.arm(world_calls(world), after=True)
    job = world.start_backup()
    assert world.engine.died.wait(90)
    world.restart()
    job = world.finish(job)
    told = kinds(world.store.events.of_job(job.id))
    for kind in (Kind.JOB_STARTED, Kind.VM_STARTED, Kind.POINT_MADE, Kind.VM_SUCCEEDED, Kind.JOB_SUCCEEDED):
        assert told.count(kind) == 1, kind


def world_calls(world: World) -> int:
    """At which call of the Manager the backup releases: after the commit."""
    job = world.back_up()
    assert job.state is JobState.SUCCEEDED
    made = world.memory.calls
    return len(made) - made[::-1].index("finalize_backup")


def test_a_cancel_is_told_once_with_who_asked(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.phase(job, "copying"))
    for name in ("ann", "bob"):
        world.controller.cancel(world.controller.job(job.id), caller=name)
    world.finish(job)
    told = world.store.events.of_job(job.id)
    assert [event.caller for event in told if event.kind == Kind.JOB_CANCEL_ASKED] == ["ann"]
    assert kinds(told)[-2:] == ["vm.cancelled", "job.cancelled"]


def test_restores_pins_and_removals(world: World) -> None:
    world.add(vm("web", disk("root")))
    job = world.back_up()
    points = world.controller.points
    placed = points.find(job.result["points"]["web-vm"])
    point = placed.point
    points.remove_pin(placed, caller="bob")
    points.put_pin(placed, "audit", caller="ann")
    points.remove_pin(placed, caller="bob")
    restored = world.restore(point.id, "copy")
    world.finish(world.controller.start_removal(placed, caller="cem"))
    of_point = world.store.events.after(0, Filter(point_id=point.id))
    assert [(event.kind, event.caller) for event in of_point] == [
        ("point.made", "admin"),
        ("point.pinned", "ann"),
        ("point.unpinned", "bob"),
        ("vm.restored", "admin"),
        ("point.removed", "cem"),
    ]
    assert of_point[3].fields == {"new_vm_id": restored.result["vm_id"]}
    assert of_point[4].fields == {"reason": "asked"}
    assert {event.about.target for event in of_point} == {"nfs1"}
    assert kinds(world.store.events.after(0, Filter(kind="point")))[-1] == "point.merged"


def test_changes_of_what_is_planned(world: World) -> None:
    world.add(vm("web", disk("root")), workload="shop")
    desk, workload = world.controller.policies, world.controller.workload("shop")
    policy = desk.create(Policy(name="nightly"), caller="ann")
    changed = desk.update(policy, Policy(name="weekly"), caller="ann")
    desk.give(workload, changed, caller="bob")
    for _ in range(2):  # what is so already is no event
        desk.pause(workload, caller="bob")
        desk.pause_all(caller="cem")
    desk.resume(workload, caller="bob")
    desk.resume_all(caller="cem")
    desk.give(workload, None, caller="bob")
    desk.delete(changed, caller="ann")
    world.controller.update_workload(dataclasses.replace(workload, description="x"), caller="bob")
    world.controller.delete_workload(workload, caller="bob")
    told = world.store.events.after(0)
    assert [(event.kind, event.caller, event.text) for event in told] == [
        ("workload.made", "", "Workload 'shop' was made"),
        ("policy.made", "ann", "Policy 'nightly' was made"),
        ("policy.changed", "ann", "Policy 'weekly' was changed"),
        ("workload.policy", "bob", "Workload 'shop' has policy 'weekly' now"),
        ("workload.paused", "bob", "No runs of workload 'shop' are planned"),
        ("scheduler.paused", "cem", "No runs are planned at all"),
        ("workload.resumed", "bob", "Workload 'shop' is planned again"),
        ("scheduler.resumed", "cem", "Runs are planned again"),
        ("workload.policy", "bob", "Workload 'shop' has no policy now"),
        ("policy.removed", "ann", "Policy 'weekly' was removed"),
        ("workload.changed", "bob", "Workload 'shop' was changed"),
        ("workload.removed", "bob", "Workload 'shop' was removed; its restore points stay"),
    ]
    assert {event.about.workload_id for event in told if event.kind.startswith("workload")} == {workload.id}


def test_what_the_janitor_finds_and_closes(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.fail("finalize_backup", EngineUnreachable(url="u", reason="down"), times=10_000)
    job = world.back_up()
    assert job.state is JobState.NEEDS_ATTENTION
    for _ in range(2):
        world.janitor.round()
    world.memory.heal()
    world.janitor.round()
    told = world.store.events.of_job(job.id)
    found = [event for event in told if event.kind == Kind.LEFTOVER_FOUND]
    assert len({event.text for event in found}) == len(found) > 0, "each is told once, however often it is found"
    assert kinds(told)[-1] == Kind.LEFTOVER_CLOSED
    assert told[-1].about.vm_name == "web"


def test_a_mover_that_is_lost_and_comes_back(world: World) -> None:
    watch = MoverWatch(world.controller)
    world.mover.reachable = False
    watch.look()
    assert world.store.events.after(0, Filter(host="host1")) == (), "it may just be restarted"
    for _ in range(3):
        watch.look()
    world.mover.reachable = True
    watch = MoverWatch(world.controller)  # of the next controller, which knows nothing but the events
    for _ in range(2):
        watch.look()
    told = world.store.events.after(0, Filter(host="host1"))
    assert kinds(told) == ["mover.lost", "mover.back"]
    assert told[0].level is Level.WARNING


def test_there_is_no_change_without_its_event(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written together, or neither is."""
    member = Member(vm_id="1", vm_name="web")
    workload = store.workloads.create("demo", [member], target="nfs1")
    job = Job(
        id="j",
        kind=JobKind.BACKUP,
        state=JobState.QUEUED,
        workload_id=workload.id,
        subject="demo",
        caller="me",
        request={},
        created="2026-01-01T00:00:00.000+00:00",
    )
    store.jobs.create(job, [member], exclusive=True)
    policy = store.policies.create(Policy(name="nightly"))
    before = store.jobs.get("j"), store.workloads.all(), store.policies.all(), store.events.latest()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(store.events, "insert", broken)
    for act in (
        lambda: store.jobs.start("j"),
        lambda: store.jobs.request_cancel("j"),
        lambda: store.jobs.set_vm("j", "1", state=JobState.RUNNING, phase="copying"),
        lambda: store.jobs.create(dataclasses.replace(job, id="k"), [], exclusive=False),
        lambda: store.workloads.create("other", [], target="nfs1"),
        lambda: store.workloads.update(dataclasses.replace(workload, name="other")),
        lambda: store.workloads.delete(workload),
        lambda: store.policies.create(Policy(name="other")),
        lambda: store.policies.update(policy, Policy(name="other")),
        lambda: store.policies.delete(policy),
        lambda: store.assignments.set_policy(workload.id, policy.id, now=utc_now()),
        lambda: store.assignments.pause_all(),
    ):
        with pytest.raises(ZeroDivisionError):
            act()
    after = store.jobs.get("j"), store.workloads.all(), store.policies.all(), store.events.latest()
    assert after == before
    assert [known.id for known in store.jobs.all()] == ["j"]
    assert store.assignments.all() == ()
    assert not store.assignments.all_paused


# where it is kept


def test_a_key_makes_an_event_once(store: Store) -> None:
    for text in ("first", "second"):
        store.events.add(Draft(kind=Kind.JOB_NOTE, text=text, key="k"), note(text))
    assert [event.text for event in store.events.after(0)] == ["first", "first", "second"]


@pytest.mark.parametrize(
    ("wanted", "texts"),
    [
        ({}, "abcd"),
        ({"kind": "job"}, "ad"),
        ({"kind": "job.note"}, "ad"),
        ({"kind": "jo"}, ""),
        ({"kind": "vm.failed"}, "b"),
        ({"level": Level.WARNING}, "bc"),
        ({"level": Level.ERROR}, "b"),
        ({"vm": "1"}, "ab"),
        ({"vm": "web"}, "b"),
        ({"workload_id": "w", "job_id": "j"}, "a"),
        ({"host": "host1"}, "c"),
        ({"point_id": "p"}, "d"),
        ({"since": "2000-01-01T00:00:00.000+00:00"}, "abcd"),
        ({"until": "2000-01-01T00:00:00.000+00:00"}, ""),
    ],
)
def test_filters(store: Store, wanted: dict[str, Any], texts: str) -> None:
    store.events.add(
        note("a", job_id="j", workload_id="w", vm_id="1"),
        Draft(kind=Kind.VM_FAILED, text="b", about=About(vm_id="1", vm_name="web", workload_id="w")),
        Draft(kind=Kind.MOVER_LOST, text="c", about=About(host="host1")),
        note("d", point_id="p"),
    )
    found = store.events.after(0, Filter(**wanted))
    assert "".join(event.text for event in found) == texts
    assert [event.text for event in store.events.before(None, Filter(**wanted))] == list(texts)[::-1]


def test_what_went_wrong_is_found_without_reading_the_rest(tmp_path: Path) -> None:
    """On SQLite, whose planner uses the index for the very words of its condition alone."""
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    plans = []

    def note_plan(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT event."):
            asked = f"EXPLAIN QUERY PLAN {statement}"
            plans.append(str(connection.connection.cursor().execute(asked, parameters).fetchall()))

    sa.event.listen(store._engine, "before_cursor_execute", note_plan)
    store.events.before(None, Filter(level=Level.WARNING, since="2026"))
    store.events.before(None, Filter(vm="web"))
    assert ["ix_event_bad" in plans[0], "ix_event_vm_name" in plans[1]] == [True, True], plans
    store.close()


def test_who_follows_the_numbers_misses_none(store: Store, database: str) -> None:
    """Four writers in two controllers, whose transactions take different times."""
    other = Store(database)
    done = threading.Event()
    seen: list[int] = []

    def write(into: Store, name: str) -> None:
        for number in range(25):
            into.events.add(note(f"{name}{number}"), *([note("more")] * (number % 5)))

    def follow() -> None:
        last = 0
        while True:
            ending = done.is_set()
            page = other.events.after(last)
            seen.extend(event.seq for event in page)
            last = page[-1].seq if page else last
            if ending and not page:
                return

    writers = [threading.Thread(target=write, args=(into, name)) for into in (store, other) for name in "ab"]
    follower = threading.Thread(target=follow)
    for thread in (follower, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    done.set()
    follower.join(60)
    assert seen == [event.seq for event in store.events.after(0, limit=1000)]
    assert len(seen) == 4 * 25 * 3
    other.close()


def test_two_controllers_tell_of_a_lost_mover_once(world: World) -> None:
    watches = [MoverWatch(world.controller) for _ in range(2)]
    for reachable in (False, True):
        world.mover.reachable = reachable
        for _ in range(3):
            for watch in watches:
                watch.look()
    assert kinds(world.store.events.after(0, Filter(host="host1"))) == ["mover.lost", "mover.back"]


def test_old_events_are_forgotten_and_their_numbers_are_not_given_again(store: Store) -> None:
    store.events.add(*(note(str(number)) for number in range(10)))
    assert store.events.forget(before=utc_now() - dt.timedelta(days=1), keep=4) == 6
    assert [event.text for event in store.events.after(0)] == ["6", "7", "8", "9"]
    assert store.events.forget(before=utc_now() + dt.timedelta(seconds=1), keep=4) == 4
    store.events.add(note("new"))
    assert store.events.latest() == 11


def test_the_janitor_forgets(world: World) -> None:
    world.store.events.add(*(note(str(number)) for number in range(1010)))
    janitor = Janitor(world.controller, world.durable, kept=EventsConfig(most=1000))
    janitor.forget()
    assert len(world.store.events.after(0, limit=5000)) == 1000


def test_events_of_an_older_data_base_stay_and_the_manager_is_not_told_of_them(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(BEFORE_POLICIES)
        old.execute("INSERT INTO job VALUES ('j','backup','failed','w','shop','ann','{}','t',NULL,NULL,'','','{}',0)")
        for number in (1, 2):
            row = (number, "j", "2026-01-01T00:00:00.000+00:00", "error", f"text {number}", '{"n": 1}')
            old.execute("INSERT INTO job_event VALUES (?, ?, ?, ?, ?, ?)", row)
    old.close()
    store = Store(f"sqlite:///{path}")
    told = store.events.of_job("j")
    assert [(event.text, event.kind, event.level, event.caller, event.about.workload_id) for event in told] == [
        (f"text {number}", "job.note", "error", "ann", "w") for number in (1, 2)
    ]
    assert told[0].fields == {"n": 1}
    assert store.relays.get("manager").seq == 2
    store.close()


# where it is sent


@pytest.fixture
def courier(world: World) -> Courier:
    world.add(vm("web", disk("root")))
    return Courier(world.store, ManagerLog(world.memory), spacing=0)


def test_the_manager_is_told_of_starts_ends_and_what_went_wrong(world: World, courier: Courier) -> None:
    world.back_up()
    courier.deliver()
    assert world.memory.events == [
        ("normal", "Backup of VM 'web' began", "web-vm"),
        ("normal", "Backup of VM 'web' succeeded", "web-vm"),
    ]
    world.memory.events.clear()
    world.memory.hold("web-vm", "VM is locked.")
    world.back_up()
    courier.deliver()
    _, failed = world.memory.events
    assert failed[0] == "error"
    assert "VM is locked" in failed[1]
    assert courier.deliver() == 0


def test_a_job_of_several_vms_is_told_as_well(world: World, courier: Courier) -> None:
    world.add(vm("a", disk("a")), vm("b", disk("b")), workload="two")
    world.finish(world.start_backup(workload="two"))
    courier.deliver()
    assert ("normal", "Backup of 'two' succeeded: 2 of 2 VMs succeeded", None) in world.memory.events


def test_what_happened_while_the_manager_was_away_is_told_later(world: World, courier: Courier) -> None:
    world.store.events.add(*(failure(str(number)) for number in range(5)))
    world.memory.fail("post_event", EngineUnreachable(url="u", reason="down"), on=3, times=2)
    for _ in range(2):
        with pytest.raises(EngineUnreachable):
            courier.deliver()
    assert courier.deliver() == 3
    assert [text for _, text, _ in world.memory.events] == list("01234")


def failure(text: str, **about: str) -> Draft:
    return Draft(kind=Kind.VM_FAILED, text=text, about=About(**about))


@pytest.mark.parametrize("error", [EngineUnreachable(url="u", reason="down"), Stopping()])
def test_nothing_is_told_twice(world: World, courier: Courier, error: BaseException) -> None:
    """The answer is lost, or the controller dies before it could write down that it was told."""
    world.store.events.add(failure("a", vm_id="web-vm"), failure("b"))
    world.memory.fail("post_event", error, after=True)
    with pytest.raises(type(error)):
        courier.deliver()
    Courier(world.store, ManagerLog(world.memory), spacing=0).deliver()
    assert [text for _, text, _ in world.memory.events] == ["a", "b"]


def test_a_vm_that_is_gone_is_told_of_all_the_same(world: World, courier: Courier) -> None:
    world.store.events.add(failure("a", vm_id="gone"))
    assert courier.deliver() == 1
    assert world.memory.events == [("error", "a", None)]


def test_what_the_manager_will_never_take_holds_nothing_up(
    world: World, courier: Courier, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.events.add(failure("a", vm_id="web-vm"), failure("b"))
    refusal = PermissionDenied(act="write an event", words="no right", username="svc")
    world.memory.fail("post_event", refusal, times=2)
    courier.deliver()
    assert [text for _, text, _ in world.memory.events] == ["b"]
    assert "no right" in caplog.text


def test_a_manager_that_is_busy_is_asked_again(world: World, courier: Courier) -> None:
    world.store.events.add(failure("a", vm_id="web-vm"))
    world.memory.fail("post_event", VmLocked(act="write", words="locked"))
    with pytest.raises(VmLocked):
        courier.deliver()
    assert courier.deliver() == 1
    assert world.memory.events == [("error", "a", "web-vm")]


def test_a_number_that_another_event_has_is_not_used(world: World, courier: Courier) -> None:
    world.store.events.add(failure("a"))
    seq = world.store.events.latest()
    world.memory.post_event("normal", "of another installation", number=number_of(mark_of(world), seq, 0))
    courier.deliver()
    assert [text for _, text, _ in world.memory.events] == ["of another installation", "a"]


def mark_of(world: World) -> str:
    return world.store.relays.get("manager").mark


def test_two_installations_have_numbers_of_their_own() -> None:
    numbers = {number_of(mark, seq, 0) for mark in ("a", "b") for seq in range(1000)}
    assert len(numbers) == 2000
    assert max(numbers) < 1 << 31


def test_nobody_is_told_what_is_long_past(world: World) -> None:
    world.store.events.add(failure("a"))
    later = Courier(world.store, ManagerLog(world.memory), spacing=0, clock=lambda: utc_now() + dt.timedelta(days=8))
    assert later.deliver() == 0
    assert world.store.relays.get("manager").seq == world.store.events.latest()


def test_a_courier_brings_what_comes_and_stops(world: World, courier: Courier) -> None:
    courier.start()
    world.store.events.add(failure("a"))
    world.until(lambda: world.memory.events)
    courier.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "courier-manager"]


# what is written about it


def test_every_kind_is_explained() -> None:
    assert set(MEANINGS) == set(Kind)
    page = (generate.GUIDE / "events.md").read_text()
    assert [kind for kind in Kind if f"| `{kind}` |" not in page] == []
