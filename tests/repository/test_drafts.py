# SPDX-License-Identifier: GPL-3.0-or-later
"""Drafts: nothing is visible before the commit, everything after it, nothing is left of one that was abandoned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from overkeep.blocks.errors import TargetFailed
from overkeep.errors import Conflict, NotFound
from overkeep.model.points import RestorePoint
from overkeep.repository import documents, layout
from overkeep.repository.errors import BadName, DraftGone, DraftIncomplete
from overkeep.repository.repository import Draft, Repository
from overkeep.units import MIB

Prepare = Callable[..., tuple[Draft, RestorePoint]]


def files(root: Path) -> set[str]:
    """All files below `root`."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_point_exists_after_the_commit_and_not_before(repository: Repository, prepare: Prepare) -> None:
    draft, point = prepare()
    assert repository.points("w1", "vm1") == ()
    assert [found.point_id for found in repository.drafts()] == [point.id]
    with pytest.raises(NotFound):
        repository.point("w1", "vm1", point.id)
    assert not draft.committed
    assert draft.commit(point) == point
    assert draft.committed
    assert repository.points("w1", "vm1") == (point,)
    assert repository.drafts() == ()
    assert files(repository.root) == {
        "overkeep.json",
        *(f"workloads/w1/vms/vm1/points/{point.id}/{name}" for name in ("point.json", "vm.ovf", "vm.json")),
        *(f"workloads/w1/vms/vm1/disks/disk1/{point.id}.{kind}" for kind in ("qcow2", "sums")),
    }


def test_every_step_may_be_repeated(repository: Repository, prepare: Prepare) -> None:
    draft, point = prepare()
    again = repository.begin("w1", "vm1", point_id=point.id, job_id=point.job_id)
    again.write_configuration("<ovf/>", {"number": 0})
    assert again.folder("disk1") == draft.folder("disk1") == "workloads/w1/vms/vm1/disks/disk1"
    again.commit(point)
    draft.commit(point)
    replayed = repository.begin("w1", "vm1", point_id=point.id, job_id=point.job_id)
    assert replayed.commit(point) == point
    with pytest.raises(Conflict):
        draft.commit(replace(point, vm_name="other"))
    assert repository.points() == (point,)


def test_a_commit_leaves_nothing_of_a_writer_that_was_killed(repository: Repository, prepare: Prepare) -> None:
    draft, point = prepare()
    folder = repository.root / layout.point("w1", "vm1", point.id)
    (folder / ".vm.json.3f90b1c150af.tmp").write_text('{"kind"')
    (folder / ".pin.json.71c0f5e2a9d4.tmp").write_text('{"kind"')  # of somebody who pins the point now
    draft.commit(point)
    assert {path.name for path in folder.iterdir()} == {
        "point.json",
        "vm.ovf",
        "vm.json",
        ".pin.json.71c0f5e2a9d4.tmp",
    }


def test_traces_of_a_commit_that_was_stopped_are_removed(repository: Repository, prepare: Prepare) -> None:
    draft, point = prepare()
    trace = repository.root / layout.point("w1", "vm1", point.id) / layout.DRAFT
    content = trace.read_bytes()
    draft.commit(point)
    trace.write_bytes(content)
    draft.commit(point)
    assert not trace.exists()
    assert repository.points() == (point,)


def test_a_draft_of_another_job_is_left_alone(repository: Repository, prepare: Prepare) -> None:
    draft, point = prepare()
    with pytest.raises(Conflict):
        repository.begin("w1", "vm1", point_id=point.id, job_id="other")
    foreign = repository.draft("w1", "vm1", point_id=point.id, job_id="other")
    for act in (foreign.abandon, lambda: foreign.write_configuration("", {})):
        with pytest.raises((Conflict, DraftGone)):
            act()
    draft.commit(point)


def test_of_two_jobs_that_begin_at_once_one_wins(repository: Repository) -> None:
    barrier = threading.Barrier(4)

    def begin(number: int) -> bool:
        barrier.wait(90)
        try:
            repository.begin("w1", "vm1", point_id="p1", job_id=f"job{number}")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(begin, range(4))) == 1


def test_abandoning_removes_what_was_made_and_nothing_else(repository: Repository, prepare: Prepare) -> None:
    first, point = prepare(1)
    first.commit(point)
    before = files(repository.root)
    draft, second = prepare(2, backing=point.images[0].file)
    folder = draft.image_folder("disk1")
    (folder / f"{second.id}.qcow2.partial").write_bytes(b"x")
    draft.image_folder("disk2")
    draft.abandon()
    draft.abandon()
    assert files(repository.root) == before
    assert not (folder.parent / "disk2").exists()
    assert not (repository.root / layout.point("w1", "vm1", second.id)).exists()
    with pytest.raises(DraftGone):
        draft.commit(second)
    with pytest.raises(Conflict):
        first.abandon()
    assert repository.chain(point, "disk1") == (point.images[0].file,)


def test_a_listing_that_fails_removes_nothing(
    repository: Repository, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, _ = prepare()
    before = files(repository.root)

    def fail(path: object) -> object:
        raise OSError(5, "told to")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fail)
        with pytest.raises(TargetFailed):
            draft.abandon()
        with pytest.raises(TargetFailed):
            repository.drafts()
        with pytest.raises(TargetFailed):
            repository.points()
    assert files(repository.root) == before


def test_a_folder_without_owner_is_a_draft_that_can_be_removed(repository: Repository) -> None:
    (repository.root / layout.point("w1", "vm1", "p1")).mkdir(parents=True)
    (draft,) = repository.drafts()
    assert draft.job_id == ""
    draft.abandon()
    assert repository.drafts() == ()


@pytest.mark.parametrize(
    "fields",
    [{"virtual_size": 5 * MIB}, {"backing": "other.qcow2"}, {"file": "other.qcow2"}, {"disk_id": "disk2"}],
)
def test_an_image_that_is_not_what_the_manifest_says_stops_the_commit(
    repository: Repository, prepare: Prepare, changed: Callable[..., RestorePoint], fields: dict[str, object]
) -> None:
    draft, point = prepare()
    with pytest.raises(DraftIncomplete):
        draft.commit(changed(point, **fields))
    assert repository.points() == ()
    draft.commit(point)


def test_an_unfinished_or_missing_image_stops_the_commit(repository: Repository, prepare: Prepare) -> None:
    draft, point = prepare()
    path = draft.image_folder("disk1") / draft.image_name
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(DraftIncomplete, match="not a finished QCOW2"):
        draft.commit(point)
    path.unlink()
    with pytest.raises(DraftIncomplete):
        draft.commit(point)
    path.write_bytes(whole)
    draft.commit(point)


def test_a_missing_parent_stops_the_commit(repository: Repository, prepare: Prepare) -> None:
    draft, point = prepare(backing="gone.qcow2")
    with pytest.raises(DraftIncomplete):
        draft.commit(point)


def test_the_configuration_must_be_there(repository: Repository, prepare: Prepare) -> None:
    draft, point = prepare()
    (repository.root / layout.point("w1", "vm1", point.id) / "vm.ovf").unlink()
    with pytest.raises(DraftIncomplete, match="configuration"):
        draft.commit(point)


@pytest.mark.parametrize("change", [{"vm_id": "vm2"}, {"workload_id": "w2"}, {"id": "p2"}, {"job_id": "other"}])
def test_the_point_must_be_the_drafts(prepare: Prepare, change: dict[str, str]) -> None:
    draft, point = prepare()
    with pytest.raises(DraftIncomplete):
        draft.commit(replace(point, **change))


@pytest.mark.parametrize("name", ["", "..", ".", "../x", "a/b", "/etc", "-x", "a b", "x" * 129, "a\0"])
def test_ids_that_lead_elsewhere_are_refused(repository: Repository, name: str) -> None:
    for ids in ((name, "vm1", "p1"), ("w1", name, "p1"), ("w1", "vm1", name)):
        with pytest.raises(BadName):
            repository.begin(ids[0], ids[1], point_id=ids[2], job_id="j")
    draft = repository.begin("w1", "vm1", point_id="p1", job_id="j")
    with pytest.raises(BadName):
        draft.folder(name)


CRASH = """
import os, signal, sys
from pathlib import Path
from overkeep.repository import documents
count = int(sys.argv[1])
def stop(*args, **kwargs):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
for name in ("rename", "fsync", "link", "unlink", "open"):
    real = getattr(os, name)
    def wrapped(*args, _real=real, **kwargs):
        stop()
        return _real(*args, **kwargs)
    setattr(os, name, wrapped)
path = Path(sys.argv[2])
documents.write(path, {**documents.envelope("draft"), "job_id": "new", "created": "2026-11-22T22:00:00Z"})
sys.exit(7)
"""


def test_a_document_is_old_or_new_wherever_its_writer_dies(tmp_path: Path) -> None:
    path = tmp_path / "draft.json"
    old = {**documents.envelope("draft"), "job_id": "old", "created": "2026-11-22T22:00:00Z"}
    seen = []
    for count in range(1, 20):
        documents.write(path, old)
        done = subprocess.run([sys.executable, "-c", CRASH, str(count), str(path)], timeout=90, check=False)
        found = documents.read(path, "draft")
        assert found is not None
        seen.append(found["job_id"])
        if done.returncode == 7:
            break
        assert done.returncode == -signal.SIGKILL
    assert seen[0] == "old"
    assert seen[-1] == "new"
    assert seen == sorted(seen, reverse=True)
    assert len(seen) >= 4


def test_a_draft_that_goes_while_drafts_are_listed_is_none(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two controllers sweep at the same time: what one abandons does not keep the other from the rest."""
    first = repository.begin("w", "v", point_id="20260101T000000Z-11111111", job_id="a")
    second = repository.begin("w", "v", point_id="20260101T000000Z-22222222", job_id="b")
    read = documents.read_bytes

    def overtaken(path: Path) -> bytes | None:
        found = read(path)
        if path.parent.name == first.point_id:
            monkeypatch.undo()
            first.abandon()
        return found

    monkeypatch.setattr(documents, "read_bytes", overtaken)
    assert [draft.point_id for draft in repository.drafts()] == [second.point_id]
