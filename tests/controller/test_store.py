from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.records import DiskProgress, Failure, Held, HeldKind, Job, JobKind, JobState, Member
from overkeep.controller.store import Store, schema
from overkeep.controller.store.database import SchemaTooNew, reading
from overkeep.controller.store.targets import TargetRows
from overkeep.errors import Conflict, NotFound

WEB = Member(vm_id="1", vm_name="web")
DB = Member(vm_id="2", vm_name="db")


@pytest.fixture
def store(database: str):
    store = Store(database)
    yield store
    store.close()


def job(name: str) -> Job:
    return Job(
        id=name,
        kind=JobKind.BACKUP,
        state=JobState.QUEUED,
        workload_id="w",
        subject="demo",
        caller="me",
        request={"full": True},
        created="2026-01-01T00:00:00+00:00",
    )


def test_workloads(store: Store) -> None:
    made = store.workloads.create("demo", [WEB, DB], target="nfs1", description="d")
    assert store.workloads.get("demo") == store.workloads.get(made.id) == made
    with pytest.raises(Conflict, match="named 'demo'"):
        store.workloads.create("demo", [], target="nfs1")
    other = store.workloads.create("other", [WEB], target="nfs1")
    store.workloads.delete(made)
    assert store.workloads.get("other").members == other.members == (WEB,)
    with pytest.raises(NotFound):
        store.workloads.get("demo")


def test_two_runs_of_a_step_may_both_be_the_first_to_write_of_a_disk(store: Store) -> None:
    store.jobs.create(job("a"), [WEB], exclusive=True)
    values = {"name": "root", "mode": "full", "reason": "r", "state": "planned", "done": 0, "total": 9, "moved": 0}
    root = DiskProgress(disk_id="d", name="root", mode="full", reason="r", state="running", done=3, total=9)
    with ThreadPoolExecutor() as pool:
        with store._engine.begin() as connection:  # the other run, which has not committed yet
            connection.execute(sa.insert(schema.job_disk).values(job_id="a", vm_id="1", disk_id="d", **values))
            written = pool.submit(store.jobs.set_disk, "a", "1", root)
            with pytest.raises(TimeoutError):
                written.result(0.5)
        written.result(30)
    assert store.jobs.get("a").vms[0].disks == (root,)


def test_a_vm_that_is_over_is_not_begun_again(store: Store) -> None:
    """A step that runs twice, for one of two controllers was taken for dead, may write its phase when all is over."""
    store.jobs.create(job("a"), [WEB], exclusive=True)
    store.jobs.set_vm("a", "1", state=JobState.RUNNING, phase="releasing")
    store.jobs.set_vm("a", "1", state=JobState.SUCCEEDED, phase="", busy=False)
    told = store.events.latest()
    store.jobs.set_vm("a", "1", state=JobState.RUNNING, phase="releasing")
    [web] = store.jobs.get("a").vms
    assert (web.state, web.phase) == (JobState.SUCCEEDED, "")
    assert store.events.latest() == told
    store.jobs.set_vm("a", "1", point_id="p")
    assert store.jobs.get("a").vms[0].point_id == "p"


def test_a_vm_is_busy_until_its_job_is_over(store: Store) -> None:
    store.jobs.create(job("a"), [WEB, DB], exclusive=True)
    with pytest.raises(Conflict, match="Job a works on VM 'web'"):
        store.jobs.create(job("b"), [WEB], exclusive=True)
    store.jobs.start("a")
    store.jobs.end("a", JobState.FAILED, failure=Failure(code="x", text="y"), result={})
    store.jobs.create(job("b"), [WEB], exclusive=True)
    ended = store.jobs.get("a")
    assert (ended.state, ended.failure.text, ended.request) == (JobState.FAILED, "y", {"full": True})


def test_of_two_jobs_at_once_one_wins(store: Store) -> None:
    refused = []

    def create(name: str) -> None:
        try:
            store.jobs.create(job(name), [WEB], exclusive=True)
        except Conflict:
            refused.append(name)

    threads = [threading.Thread(target=create, args=(f"j{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert len(store.jobs.all()) == 1


def test_a_job_that_is_over_stays_as_it_is(store: Store) -> None:
    store.jobs.create(job("a"), [WEB], exclusive=True)
    store.jobs.start("a")
    store.jobs.end("a", JobState.SUCCEEDED, failure=Failure(), result={})
    store.jobs.end("a", JobState.FAILED, failure=Failure(), result={})
    store.jobs.start("a")
    assert store.jobs.get("a").state is JobState.SUCCEEDED


def test_a_phase_is_told_once_and_never_of_what_has_ended(store: Store) -> None:
    store.jobs.create(job("a"), [WEB], exclusive=True)
    store.jobs.set_phase("a", "1", "copying")
    assert store.jobs.get("a").vms[0].phase == "", "it has not begun"
    store.jobs.set_vm("a", "1", state=JobState.RUNNING, phase="planning")
    for _ in range(2):
        store.jobs.set_phase("a", "1", "copying")
    assert store.jobs.vm_state("a", "1") is JobState.RUNNING
    store.jobs.set_vm("a", "1", state=JobState.FAILED, phase="", busy=False)
    store.jobs.set_phase("a", "1", "releasing")
    found = store.jobs.get("a").vms[0]
    assert (found.state, found.phase, store.jobs.vm_state("a", "1")) == (JobState.FAILED, "", JobState.FAILED)
    told = [event.text for event in store.events.of_job("a") if event.kind == Kind.VM_PHASE]
    assert told == ["Backup of VM 'web': planning", "Backup of VM 'web': copying"]
    assert {event.about.vm_name for event in store.events.of_job("a")} == {"", "web"}


def test_events_wake_who_waits(store: Store) -> None:
    store.jobs.create(job("a"), [WEB], exclusive=True)
    [queued] = store.events.of_job("a")
    draft = Draft(kind=Kind.JOB_NOTE, text="now", about=About(job_id="a"), fields={"n": 1})
    threading.Timer(0.2, lambda: store.events.add(draft)).start()
    [event] = store.events.wait("a", after=queued.seq, seconds=20, done=lambda: False)
    assert (event.text, event.fields) == ("now", {"n": 1})
    assert store.events.wait("a", after=event.seq, seconds=0.05, done=lambda: False) == ()
    assert store.events.wait("a", after=event.seq, seconds=20, done=lambda: True) == ()


def test_what_is_held(store: Store) -> None:
    store.jobs.create(job("a"), [WEB], exclusive=True)
    item = Held(job_id="a", kind=HeldKind.BACKUP, ref="b", vm_id="1")
    store.held.add(item)
    store.held.add(item)
    assert store.held.of("a", "1") == (item,)
    assert store.held.orphans() == ()
    store.jobs.start("a")
    store.jobs.end("a", JobState.FAILED, failure=Failure(), result={})
    assert store.held.orphans() == (item,)
    store.held.release(item)
    assert store.held.orphans() == ()
    found = store.held.find(HeldKind.BACKUP, "b")
    assert found is not None
    assert found.released


def test_what_another_controller_accepted_for_a_target_is_known_a_second_later(store: Store) -> None:
    now = 0.0
    rows = TargetRows(store._engine, clock=lambda: now)
    assert rows.repository("nfs1") is None
    store.targets.remember("nfs1", "a")
    assert rows.repository("nfs1") == "a"  # that there is none is not remembered
    store.targets.replace("nfs1", "b")
    assert store.targets.repository("nfs1") == "b"  # who accepted it knows at once
    now = 1.1
    assert rows.repository("nfs1") == "b"


def test_an_event_with_a_key_is_told_once(store: Store) -> None:
    told = Draft(kind=Kind.POINT_MADE, text="made", key="point.made/1")
    store.events.add(told)
    store.events.add(told)
    store.events.add(Draft(kind=Kind.JOB_NOTE, text="note"))
    assert [event.text for event in store.events.after(0)] == ["made", "note"]


def test_connections_are_not_made_anew_for_each_burst_of_work(store: Store) -> None:
    made: list[object] = []
    sa.event.listen(store._engine, "connect", lambda connection, _record: made.append(connection))
    together = threading.Barrier(12)

    def read(_number: int) -> None:
        with reading(store._engine).connect() as connection:
            connection.execute(sa.select(1))
            together.wait(10)

    for _ in range(3):
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(read, range(12)))
    assert len(made) <= 12


def test_the_schema_is_what_its_migrations_make_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    Store(f"sqlite:///{path}").close()
    Store(f"sqlite:///{path}").close()
    assert path.stat().st_mode & 0o077 == 0
    found = sa.inspect(sa.create_engine(f"sqlite:///{path}"))
    for table in schema.metadata.sorted_tables:
        assert {c["name"] for c in found.get_columns(table.name)} == {c.name for c in table.columns}


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    Store(f"sqlite:///{path}").close()
    with sa.create_engine(f"sqlite:///{path}").begin() as connection:
        connection.execute(sa.text("UPDATE schema_version SET version = 99"))
    with pytest.raises(SchemaTooNew, match="schema 99"):
        Store(f"sqlite:///{path}")
