# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of jobs and events, whatever is asked for, are those that reading everything would give."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from overkeep.controller.events import About, Draft, Event, Filter, Kind, Level
from overkeep.controller.records import DiskProgress, Failure, Job, JobFilter, JobKind, JobState, Member
from overkeep.controller.store import Store, listed_events, listed_jobs

VMS = [Member(vm_id=f"id{n}", vm_name=f"vm{n}") for n in range(4)]
MANY = frozenset({"id2", *(f"other{n}" for n in range(300))})
JOBS, EVENTS = 120, 200
KINDS = (Kind.VM_PHASE, Kind.VM_STARTED, Kind.VM_FAILED, Kind.JOB_QUEUED, Kind.TARGET_HIGH, Kind.POINT_MADE)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    store = Store(database)
    yield store
    store.close()


@pytest.fixture
def dice() -> random.Random:
    return random.Random(7)


def job(number: int, dice: random.Random) -> Job:
    return Job(
        id=f"{dice.getrandbits(32):08x}",
        kind=dice.choice(list(JobKind)),
        state=dice.choice(list(JobState)),
        workload_id=f"w{number % 3}",
        subject="demo",
        caller="me",
        request={"full": number % 2 == 0, "why": "ünterwegs"},
        created=f"2026-01-01T00:{number // 6:02}:00.000+00:00",  # several at the same time
        failure=Failure(code="engine-busy", text="It is.") if number % 5 else Failure(),
        result={"points": {"id1": f"p{number}"}},
    )


def disk(name: str) -> DiskProgress:
    return DiskProgress(disk_id=f"{name}-disk", name=name, mode="full", reason="first", state="done", done=7, total=9)


@pytest.fixture
def jobs(store: Store, dice: random.Random) -> list[Job]:
    for number in range(JOBS):
        made, members = job(number, dice), dice.sample(VMS, dice.randint(1, 2))
        store.jobs.create(made, members, exclusive=False)
        for name in dice.sample(["root", "data", "swap"], dice.randint(0, 2)):
            store.jobs.set_disk(made.id, members[0].vm_id, disk(name))
    everything = store.jobs.all(limit=JOBS)
    return sorted(everything, key=lambda one: (one.created, one.id), reverse=True)


JOB_FILTERS = {
    "all": JobFilter(),
    "state": JobFilter(states=(JobState.FAILED,)),
    "states": JobFilter(states=(JobState.FAILED, JobState.PARTIAL, JobState.CANCELLED)),
    "kind": JobFilter(kinds=(JobKind.RESTORE,)),
    "kinds": JobFilter(kinds=(JobKind.RESTORE, JobKind.REMOVAL)),
    "kind and states": JobFilter(kinds=(JobKind.BACKUP,), states=(JobState.QUEUED, JobState.FAILED)),
    "workload and state": JobFilter(workload_id="w1", states=(JobState.FAILED, JobState.SUCCEEDED)),
    "vm and kind": JobFilter(vm="vm1", kinds=(JobKind.BACKUP, JobKind.REMOVAL)),
    "vm by id": JobFilter(vm="id2"),
    "time and kind": JobFilter(
        kinds=(JobKind.BACKUP,), since="2026-01-01T00:05:00.000+00:00", until="2026-01-01T00:14:00.000+00:00"
    ),
    "nothing": JobFilter(vm="none"),
    "few VMs and a kind": JobFilter(vm_ids=frozenset({"id1", "id3"}), kinds=(JobKind.BACKUP,)),
    "few VMs of a workload": JobFilter(vm_ids=frozenset({"id1"}), workload_id="w1"),
    "few VMs and a time": JobFilter(vm_ids=frozenset({"id1"}), until="2026-01-01T00:14:00.000+00:00"),
    "many VMs": JobFilter(vm_ids=MANY),
    "many VMs and a state": JobFilter(vm_ids=MANY, states=(JobState.FAILED, JobState.SUCCEEDED)),
    "none of his": JobFilter(vm_ids=frozenset({"other"})),
}


def is_wanted_job(wanted: JobFilter, one: Job) -> bool:
    return (
        (not wanted.states or one.state in wanted.states)
        and (not wanted.kinds or one.kind in wanted.kinds)
        and wanted.workload_id in ("", one.workload_id)
        and (not wanted.vm or any(wanted.vm in (vm.vm_id, vm.vm_name) for vm in one.vms))
        and (wanted.vm_ids is None or any(vm.vm_id in wanted.vm_ids for vm in one.vms))
        and one.created >= wanted.since
        and (not wanted.until or one.created < wanted.until)
    )


@pytest.mark.parametrize("wanted", JOB_FILTERS.values(), ids=JOB_FILTERS.keys())
@pytest.mark.parametrize("size", [1, 7, JOBS])
def test_jobs(store: Store, jobs: list[Job], wanted: JobFilter, size: int) -> None:
    before, found = None, []
    while page := store.jobs.page(wanted, before=before, limit=size):
        found += store.jobs.told(page)
        before = (page[-1].created, page[-1].id)
    assert said(found) == said([asdict(one) for one in jobs if is_wanted_job(wanted, one)])


def test_vms_of_jobs_are_read_for_some_at_a_time(
    store: Store, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed_jobs, "_FIRST", 7)
    page = store.jobs.page(JobFilter(), limit=JOBS)
    for number in (50, 3, JOBS - 1):
        assert sorted(page[number].vm_ids) == sorted(vm.vm_id for vm in jobs[number].vms)
    assert said(store.jobs.told(page)) == said([asdict(one) for one in jobs])


def test_the_vms_of_jobs_among_some(store: Store, jobs: list[Job]) -> None:
    ids = [one.id for one in jobs]
    assert store.jobs.vm_ids([]) == {}
    assert store.jobs.vm_ids(["none", *ids], among=frozenset({"id2", "x"})) == {
        "none": [],
        **{one.id: ["id2"] * any(vm.vm_id == "id2" for vm in one.vms) for one in jobs},
    }
    found = store.jobs.vm_ids(ids)
    assert all(sorted(found[one.id]) == sorted(vm.vm_id for vm in one.vms) for one in jobs)


def said(documents: list[dict[str, Any]]) -> Any:
    """As JSON, which has no tuples."""
    return json.loads(json.dumps(documents))


@pytest.fixture
def events(store: Store, dice: random.Random) -> list[Event]:
    store.workloads.create("named", [VMS[2]], target="nfs1")
    store.jobs.create(replace(job(0, dice), id="j1"), [VMS[1]], exclusive=False)
    for _ in range(EVENTS):
        vm = dice.choice([*VMS, Member(vm_id="", vm_name="")])
        kind = dice.choice(KINDS)
        about = About(
            job_id=dice.choice(["j1", "j2", ""]),
            workload_id=dice.choice(["w1", "w2", store.workloads.get("named").id]),
            vm_id=vm.vm_id,
            vm_name=vm.vm_name,
            point_id=dice.choice(["", "", "p1"]),
            target=dice.choice(["", "", "nfs1"]),
            host=dice.choice(["", "", "host1"]),
        )
        caller = dice.choice(["", "somebody", "another"])
        store.events.add(Draft(kind=kind, text="t", about=about, caller=caller, level=dice.choice(list(Level))))
    return list(store.events.after(0, limit=EVENTS + 10))


EVENT_FILTERS = {
    "all": Filter(),
    "kind": Filter(kind="vm.failed"),
    "kinds": Filter(kind="vm"),
    "kinds of a level": Filter(kind="vm", level=Level.WARNING),
    "no kind": Filter(kind="v"),
    "later kind": Filter(kind="later.kind"),
    "level": Filter(level=Level.ERROR),
    "point": Filter(point_id="p1"),
    "target and kinds": Filter(target="nfs1", kind="job"),
    "host": Filter(host="host1", kind="vm"),
    "caller": Filter(caller="another"),
    "vm and kinds": Filter(vm="vm1", kind="vm"),
    "job": Filter(job_id="j1", workload_id="w2"),
    "point and kinds": Filter(point_id="p1", kind="vm"),
    "many VMs": Filter(vm_ids=MANY),
    "many VMs and kinds": Filter(vm_ids=MANY, kind="vm"),
    "few VMs and a point": Filter(vm_ids=frozenset({"id1"}), point_id="p1"),
    "few VMs, a level and a target": Filter(vm_ids=frozenset({"id1", "id3"}), level=Level.WARNING, target="nfs1"),
    "few VMs": Filter(vm_ids=frozenset({"id1"})),
    "few VMs and kinds": Filter(vm_ids=frozenset({"id1", "id2"}), kind="job"),
    "none of his": Filter(vm_ids=frozenset({"other"})),
}


def is_of_vms(wanted: frozenset[str], about: About, named: str) -> bool:
    if about.vm_id:
        return about.vm_id in wanted
    return bool(
        wanted
        & ({"id1"} if about.job_id == "j1" else {"id2"} if not about.job_id and about.workload_id == named else set())
    )


def is_wanted_event(wanted: Filter, one: Event, named: str) -> bool:
    about = one.about
    same = ("job_id", "workload_id", "point_id", "target", "host")
    return (
        (not wanted.kind or one.kind == wanted.kind or one.kind.startswith(f"{wanted.kind}."))
        and one.level in wanted.level.and_worse
        and all(getattr(wanted, name) in ("", getattr(about, name)) for name in same)
        and wanted.caller in ("", one.caller)
        and wanted.vm in ("", about.vm_id, about.vm_name)
        and (wanted.vm_ids is None or is_of_vms(wanted.vm_ids, about, named))
    )


@pytest.mark.parametrize("wanted", EVENT_FILTERS.values(), ids=EVENT_FILTERS.keys())
@pytest.mark.parametrize("size", [1, 7, EVENTS])
def test_events(store: Store, events: list[Event], wanted: Filter, size: int) -> None:
    named = store.workloads.get("named").id
    expected = [one for one in events if is_wanted_event(wanted, one, named)]
    read = store.events
    assert list(paged(lambda seq: read.after(seq or 0, wanted, limit=size))) == expected
    assert list(paged(lambda seq: read.before(seq, wanted, limit=size))) == expected[::-1]


@pytest.mark.parametrize("newest", [True, False])
def test_events_of_a_list_say_what_events_say(store: Store, events: list[Event], newest: bool) -> None:
    wanted = Filter(kind="vm", vm_ids=MANY)
    page = store.events.listed(None if newest else 0, wanted, newest=newest, limit=EVENTS)
    documents = [asdict(one) for one in events if is_wanted_event(wanted, one, "")]
    assert listed_events.told(page) == [
        {**one.pop("about"), **one} for one in (documents[::-1] if newest else documents)
    ]


def paged(read: Callable[[int | None], tuple[Event, ...]]) -> Iterator[Event]:
    seq = None
    while page := read(seq):
        yield from page
        seq = page[-1].seq


@pytest.mark.parametrize(
    ("act", "index"),
    [
        (lambda store: store.events.before(None, Filter(kind="vm.failed")), "event_of_kind"),
        (lambda store: store.events.before(None, Filter(kind="vm")), "event_of_kind"),
        (lambda store: store.events.before(None, Filter(point_id="x")), "event_of_point_id"),
        (lambda store: store.events.before(None, Filter(target="x")), "event_of_target"),
        (lambda store: store.events.before(None, Filter(host="x")), "event_of_host"),
        (lambda store: store.events.after(0, Filter(caller="x")), "event_of_caller"),
        (lambda store: store.jobs.page(JobFilter(kinds=(JobKind.RESTORE,))), "job_of_kind"),
        (lambda store: store.jobs.page(JobFilter(states=(JobState.FAILED,))), "job_of_kind"),
        (lambda store: store.jobs.page(JobFilter(vm_ids=MANY)), "sqlite_autoindex_job_vm_1 (job_id=?)"),
        (lambda store: store.events.before(None, Filter(vm_ids=MANY)), "sqlite_autoindex_job_vm_1 (job_id=?)"),
        (lambda store: store.jobs.vm_ids(["x"]), "sqlite_autoindex_job_vm_1 (job_id=?)"),
        (lambda store: store.jobs.page(JobFilter(vm="x")), "job_vm_of_name"),
        (lambda store: store.jobs.page(JobFilter(vm="x")), "job_vm_of_vm"),
        (lambda store: store.events.before(None, Filter(kind="vm", level=Level.ERROR)), "event_bad_of_kind"),
        (
            lambda store: store.events.before(None, Filter(vm_ids=frozenset({"x"}))),
            "event_of_whole_job (job_id=? AND vm_id<?)",
        ),
        (
            lambda store: store.events.before(None, Filter(vm_ids=frozenset({"x"}))),
            "event_of_whole_workload (workload_id=? AND vm_id<?)",
        ),
        (lambda store: store.events.before(None, Filter(vm_ids=frozenset({"x"}))), "ix_event_vm_id (vm_id=?)"),
    ],
)
def test_what_is_rare_is_found_by_an_index(tmp_path: Path, act: Callable[[Store], object], index: str) -> None:
    """On SQLite, whose planner uses the index for the very words of its condition alone."""
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    plans = []

    def note_plan(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "WITH")):
            asked = f"EXPLAIN QUERY PLAN {statement}"
            plans.append(str(connection.connection.cursor().execute(asked, parameters).fetchall()))

    sa.event.listen(store._engine, "before_cursor_execute", note_plan)
    act(store)
    store.close()
    assert index in plans[0], plans
