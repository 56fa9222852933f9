# SPDX-License-Identifier: GPL-3.0-or-later
"""Several targets: each workload has one, each point is worked with where it lies, and a wrong or dead one is told."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overkeep.config import WatchedTarget
from overkeep.controller.desks.points import PointOnTargets, Wanted
from overkeep.controller.records import JobState
from overkeep.controller.store import Store
from overkeep.controller.store.points import PointFilter
from overkeep.controller.targets.configured import Targets, TargetsAway, TargetSilent
from overkeep.controller.targets.target import TargetDiffers
from overkeep.errors import Conflict, NotFound
from overkeep.model.points import Mode
from overkeep.model.policy import Policy
from overkeep.model.probes import Terms
from overkeep.model.retention import Retention
from overkeep.repository.identity import create_identity, read_identity
from overkeep.repository.mounts import TargetFolderMissing
from overkeep.repository.repository import Repository
from overkeep.testing.mover import fine
from overkeep.units import MIB
from tests.controller.test_policies import BEFORE_POLICIES
from tests.controller.world import World, disk, succeeded, vm

EVERYTHING = PointFilter()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[World]:
    """A site with the targets nfs1 and nfs2."""
    world = World(tmp_path)
    world.add_target("nfs2")
    with world:
        world.add(vm("web", disk("root")))
        yield world


def on(world: World, target: str) -> list[str]:
    """The points on a target, oldest first."""
    return [point.id for point in Repository(world.root(target)).points()]


def move(world: World, target: str) -> None:
    world.controller.set_target(world.controller.workload("demo"), target)


def back_up(world: World) -> str:
    job = world.back_up()
    assert succeeded(job), job.failure
    return job.vms[0].point_id


def keep_last(world: World, count: int) -> None:
    policy = world.controller.policies.create(Policy(name="few", retention=Retention(last=count)))
    world.controller.policies.give(world.controller.workload("demo"), policy)


def test_a_workload_goes_to_its_target_and_comes_back_from_there(two: World) -> None:
    move(two, "nfs2")
    made = [back_up(two), back_up(two)]
    assert (on(two, "nfs1"), on(two, "nfs2")) == ([], made)
    [order, *_] = two.mover.received.values()
    assert order.sink.target == "nfs2"
    assert order.sink.repository == read_identity(two.root("nfs2")).id
    assert succeeded(two.restore(made[0], "copy"))
    found = two.controller.points.find(made[0])
    two.controller.points.put_pin(found, "audit", caller="ann")
    assert Repository(two.root("nfs2")).pin(found.point).reason == "audit"
    two.controller.points.remove_pin(found)
    assert succeeded(two.finish(two.controller.start_removal(found, caller="ann")))
    assert on(two, "nfs2") == made[1:]
    two.assert_nothing_open()


def test_a_workload_that_moves_begins_anew_and_its_old_points_stay(two: World) -> None:
    old = [back_up(two), back_up(two)]
    move(two, "nfs2")
    new = back_up(two)
    assert (on(two, "nfs1"), on(two, "nfs2")) == (old, [new])
    assert two.controller.points.find(new).point.mode is Mode.FULL
    listing = two.controller.points.page(EVERYTHING)
    assert [(one.point.id, one.target) for one in listing] == [
        (old[0], "nfs1"),
        (old[1], "nfs1"),
        (new, "nfs2"),
    ]
    left = two.controller.points.left_on(two.controller.workload("demo"))
    assert (left.counts, left.away) == ({"nfs1": 2}, ())
    assert succeeded(two.restore(old[1], "copy"))
    back_up(two)
    assert two.controller.points.find(on(two, "nfs2")[1]).point.mode is Mode.INCREMENTAL
    newest = two.controller.points.find(on(two, "nfs2")[1]).point
    assert two.memory.checkpoints_made()["web-vm"] == (newest.checkpoint_id,)


def test_the_points_of_all_targets_count_together_for_retention(two: World) -> None:
    old = [back_up(two) for _ in range(3)]
    move(two, "nfs2")
    keep_last(two, 3)
    back_up(two)
    assert on(two, "nfs1") == old[1:]
    [folder] = (two.root("nfs1") / "workloads").glob("*/vms/*/disks/*")
    assert len(list(folder.glob("*.qcow2"))) == 2, "the image of the point that ended was merged away there"
    back_up(two)
    back_up(two)
    assert (on(two, "nfs1"), len(on(two, "nfs2"))) == ([], 3)


def test_nothing_is_removed_while_a_target_that_may_hold_points_is_away(two: World) -> None:
    for _ in range(2):
        back_up(two)
    move(two, "nfs2")
    keep_last(two, 1)
    hidden = two.root("nfs1").rename(two.folder / "away")
    job = two.back_up()
    assert succeeded(job), job.failure
    assert "Old restore points stay until the next backup" in two.texts(job)
    job = two.back_up()
    assert len(on(two, "nfs2")) == 2, "nothing was decided from the points of one target alone"
    hidden.rename(two.root("nfs1"))
    back_up(two)
    assert (on(two, "nfs1"), len(on(two, "nfs2"))) == ([], 1)


def test_a_target_that_is_away_is_named_and_the_others_are_listed(two: World) -> None:
    here = back_up(two)
    shutil.rmtree(two.root("nfs2"))
    assert [one.point.id for one in two.controller.points.page(EVERYTHING)] == [here]
    [away] = two.controller.points.away()
    assert (away.target, type(away.error)) == ("nfs2", TargetFolderMissing)
    assert two.controller.points.find(here).point.id == here
    with pytest.raises(TargetsAway, match="nfs2 cannot be read now"):
        two.controller.points.find("20260101T000000Z-12345678")
    with pytest.raises(NotFound):
        two.controller.points.find("20260101T000000Z-12345678", wanted=Wanted(target="nfs1"))
    states = {state.target.name: state.error for state in two.controller.targets.all()}
    assert states["nfs1"] is None
    assert states["nfs2"].code == "target-folder-missing"


def test_a_target_that_hangs_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    paths = {name: tmp_path / name for name in ("one", "two")}
    for path in paths.values():
        path.mkdir()
    settings = tuple(WatchedTarget(name=name, kind="path", mountpoint=path) for name, path in paths.items())
    targets = Targets(settings, store, patience=0.2)
    let_go = threading.Event()
    monkeypatch.setattr(targets.get("two"), "readable", lambda: let_go.wait(30))
    try:
        began = time.monotonic()
        for _ in range(20):  # more than may hang at once
            survey = targets.survey(lambda target: target.name)
            assert [answer for _, answer in survey.answers] == ["one"]
            assert [type(away.error) for away in survey.away] == [TargetSilent]
        assert time.monotonic() - began < 10
        hanging = [thread for thread in threading.enumerate() if thread.name == "target"]
        assert len(hanging) <= 8
        began = time.monotonic()
        with pytest.raises(TargetSilent):
            targets.ask(targets.get("two"), lambda target: target.name)
        assert time.monotonic() - began < 0.1, "that it hangs is known"
        with pytest.raises(TargetSilent):
            survey.require_all()
    finally:
        let_go.set()
        store.close()


def test_a_plan_waits_little_for_a_target_that_the_vm_was_on_before(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the patience for lists is, and however many VMs are planned while it hangs."""
    monkeypatch.setattr("overkeep.controller.workflows.backup_steps._GLANCE", 0.2)
    two.ports.targets._patience = 300.0
    back_up(two)
    move(two, "nfs2")
    let_go, old = threading.Event(), two.ports.targets.get("nfs1")
    asked = []

    def hang() -> None:
        asked.append(1)
        let_go.wait(60)

    monkeypatch.setattr(old, "readable", hang)
    job = two.start_backup()
    two.until(lambda: asked)
    began = time.monotonic()
    try:
        two.until(lambda: two.phase(job, "copying") or (two.mover.received and len(two.mover.received) > 1), seconds=20)
        assert time.monotonic() - began < 15
    finally:
        let_go.set()
    assert succeeded(two.finish(job, seconds=60))


def test_a_target_is_tried_out_from_here_and_from_a_host(two: World) -> None:
    desk, terms = two.controller.targets, Terms(size=MIB, seconds=2)
    back_up(two)
    here = desk.probe("nfs1", host="", terms=terms)
    assert here.failure.code == ""
    assert here.probe is not None
    assert here.probe.repository == read_identity(two.root("nfs1")).id
    assert here.probe.size == MIB
    there = desk.probe("nfs1", host="host1", terms=terms)
    assert there.probe is not None
    assert there.probe.write_speed == 300.0 * MIB
    assert desk.one("nfs1").probes == (here, there)
    assert desk.one("nfs2").probes == ()
    assert [path.name for path in two.root("nfs1").glob(".overkeep-check-*")] == []
    with pytest.raises(NotFound, match="nfs9"):
        desk.probe("nfs9", host="", terms=terms)
    with pytest.raises(NotFound, match="host9"):
        desk.probe("nfs1", host="host9", terms=terms)


def test_what_a_probe_could_not_do_is_kept_as_well(two: World) -> None:
    desk, terms = two.controller.targets, Terms(size=MIB, seconds=2)
    back_up(two)
    two.mover.reachable = False
    assert desk.probe("nfs1", host="host1", terms=terms).failure.code == "mover-unreachable"
    two.mover.reachable = True
    two.mover.probed = lambda target, terms, _repository: fine(target, terms, "another")
    wrong = desk.probe("nfs1", host="host1", terms=terms)
    assert wrong.failure.code == "target-differs"
    assert wrong.probe is not None
    shutil.rmtree(two.root("nfs2"))
    assert desk.probe("nfs2", host="", terms=terms).failure.code == "target-folder-missing"
    assert [result.failure.code for result in desk.one("nfs1").probes] == ["target-differs"]
    two.mover.probed = fine
    assert desk.probe("nfs1", host="host1", terms=terms).failure.code == ""
    assert [result.failure.code for result in desk.one("nfs1").probes] == [""]


def test_a_copied_tree_makes_a_point_ambiguous_until_its_target_is_named(two: World) -> None:
    point = back_up(two)
    shutil.copytree(two.root("nfs1") / "workloads", two.root("nfs2") / "workloads", dirs_exist_ok=True)
    with pytest.raises(PointOnTargets, match="nfs1, nfs2"):
        two.controller.points.find(point)
    assert two.controller.points.find(point, wanted=Wanted(target="nfs2")).target.name == "nfs2"


@pytest.mark.parametrize("there", ["another", "nothing"])
def test_a_wrong_export_is_refused_until_it_is_accepted(two: World, there: str) -> None:
    made = back_up(two)
    right = two.root("nfs1").rename(two.folder / "right")
    two.root("nfs1").mkdir()
    found = create_identity(two.root("nfs1")).id if there == "another" else ""
    held = read_identity(right).id
    job = two.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "target-differs")
    assert held in job.failure.text
    assert "overkeep target accept nfs1" in job.failure.text
    assert list((two.root("nfs1") / "workloads").glob("*")) == []
    [away] = two.controller.points.away()
    assert away.error.code == "target-differs"
    state = two.controller.targets.one("nfs1")
    assert (state.found, state.repository, state.error.code) == (found, held, "target-differs")
    with pytest.raises(Conflict, match="not 0b7c any more"):
        two.controller.targets.accept("nfs1", found="0b7c")
    accepted = two.controller.targets.accept("nfs1", found=found)
    assert accepted.error is None
    assert accepted.repository == read_identity(two.root("nfs1")).id != held
    back_up(two)
    shutil.rmtree(two.root("nfs1"))
    right.rename(two.root("nfs1"))
    with pytest.raises(TargetDiffers):
        two.ports.targets.get("nfs1").ready()
    two.controller.targets.accept("nfs1", found=held)
    assert two.controller.points.find(made).target.name == "nfs1"


def test_marks_stay_the_same_whatever_becomes_of_the_targets(two: World) -> None:
    home = read_identity(two.root("nfs1")).id
    mark = two.ports.mark("j")
    assert mark == f"overkeep job j of repository {home}"
    assert two.ports.marked_job(mark) == "j"
    two.ports.targets.get("nfs2").ready()
    other = read_identity(two.root("nfs2")).id
    assert two.ports.marked_job(f"overkeep job j of repository {other}") is None, (
        "it may be another installation's home"
    )
    two.stop()
    two.target_settings = two.target_settings[::-1]
    two.start()
    assert two.ports.mark("j") == mark
    two.stop()
    two.lose_data_base()
    two.target_settings = two.target_settings[::-1]
    two.start()
    assert two.ports.mark("j") == mark, "without the data base it is that of the first target"


# The schema of version 1, as it was released.
FIRST_SCHEMA = """
CREATE TABLE workload (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT NOT NULL,
 created TEXT NOT NULL);
CREATE TABLE workload_vm (vm_id TEXT NOT NULL PRIMARY KEY, workload_id TEXT NOT NULL, vm_name TEXT NOT NULL,
 position INTEGER NOT NULL);
CREATE TABLE job (id TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, workload_id TEXT NOT NULL,
 subject TEXT NOT NULL, caller TEXT NOT NULL, request TEXT NOT NULL, created TEXT NOT NULL, started TEXT, ended TEXT,
 error_code TEXT NOT NULL, error TEXT NOT NULL, result TEXT NOT NULL, cancel_requested BOOLEAN NOT NULL);
CREATE TABLE job_vm (job_id TEXT NOT NULL, vm_id TEXT NOT NULL, vm_name TEXT NOT NULL, state TEXT NOT NULL,
 phase TEXT NOT NULL, point_id TEXT NOT NULL, error_code TEXT NOT NULL, error TEXT NOT NULL, busy BOOLEAN NOT NULL,
 PRIMARY KEY (job_id, vm_id));
CREATE UNIQUE INDEX job_vm_busy ON job_vm (vm_id) WHERE busy;
CREATE TABLE job_disk (job_id TEXT NOT NULL, vm_id TEXT NOT NULL, disk_id TEXT NOT NULL, name TEXT NOT NULL,
 mode TEXT NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL, done BIGINT NOT NULL, total BIGINT NOT NULL,
 moved BIGINT NOT NULL, PRIMARY KEY (job_id, vm_id, disk_id));
CREATE TABLE job_event (seq INTEGER NOT NULL PRIMARY KEY, job_id TEXT NOT NULL, time TEXT NOT NULL, level TEXT NOT NULL,
 text TEXT NOT NULL, fields TEXT NOT NULL);
CREATE INDEX ix_job_event_job_id ON job_event (job_id);
CREATE TABLE held (job_id TEXT NOT NULL, kind TEXT NOT NULL, ref TEXT NOT NULL, vm_id TEXT NOT NULL,
 disk_id TEXT NOT NULL, host_id TEXT NOT NULL, opened TEXT NOT NULL, released TEXT, PRIMARY KEY (job_id, kind, ref));
CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY);
INSERT INTO schema_version VALUES (1);
INSERT INTO workload VALUES ('w', 'old', '', '2026-01-01T00:00:00+00:00');
"""


def test_what_an_earlier_version_left_belongs_to_the_first_target(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as base:
        base.executescript(BEFORE_POLICIES)
    base.close()
    store = Store(f"sqlite:///{path}")
    try:
        targets = Targets((WatchedTarget(name="first", kind="path", mountpoint=tmp_path),), store)
        assert store.workloads.get("shop").target == "first"
        assert [target.name for target in targets.had_by("w")] == ["first"]
        assert targets.of({"full": False}).name == "first"
    finally:
        store.close()


@pytest.mark.parametrize("act", ["ready", "readable"])
def test_one_that_another_thread_makes_just_now_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """It is made between a look that finds nothing and what follows from it."""
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    settings = (WatchedTarget(name="first", kind="path", mountpoint=tmp_path / "t"),)
    (tmp_path / "t").mkdir()
    late, early = Targets(settings, store).get("first"), Targets(settings, store).get("first")
    look = late.found_at

    def overtaken(root: Path) -> str | None:
        found = look(root)
        monkeypatch.undo()
        early.ready()
        return found

    monkeypatch.setattr(late, "found_at", overtaken)
    getattr(late, act)()
    assert late.repository.id == early.repository.id
    store.close()
