# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover merge` and `verify`: on images of a folder, and on the points of a repository."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from overkeep import exits
from overkeep.blocks import sampling, verify
from overkeep.blocks.copy import copy
from overkeep.blocks.errors import TargetFailed
from overkeep.blocks.merge.making import Extender
from overkeep.daemons.mover_commands import verify as command
from overkeep.daemons.mover_commands.running import Shown
from overkeep.model.points import RestorePoint, point_id
from overkeep.mover.orders import Progress
from overkeep.repository.repository import Repository
from overkeep.repository.verification import last_verification
from overkeep.units import KIB, MIB
from tests.mover.bench import tool
from tests.mover.test_commands import COMMAND, Command
from tests.repository.conftest import describe, write_image


@pytest.fixture
def mover(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "target").mkdir()
    return Repository(tmp_path / "target").create()


@pytest.fixture
def points(repository: Repository) -> list[RestorePoint]:
    """Three points of a disk, each upon the one before."""
    made: list[RestorePoint] = []
    for number in range(3):
        created = dt.datetime(2026, 11, 22, 22, number, tzinfo=dt.UTC)
        job, backing = f"job{number}", made[-1].images[0].file if made else None
        draft = repository.begin("w1", "vm1", point_id=point_id(created, job), job_id=job)
        draft.write_configuration("<ovf/>", {})
        write_image(draft, "disk1", backing=backing)
        made.append(draft.commit(describe(draft, created, backing=backing)))
    return made


def image(repository: Repository, point: RestorePoint) -> Path:
    return repository.root / repository.folder(point, "disk1") / point.images[0].file


def rot(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2 * 64 * KIB)
        file.write(os.urandom(512))


def parsed(said: tuple[str, str]) -> dict[str, Any]:
    out, err = said
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


def test_an_image_is_checked_with_all_it_is_built_upon(
    mover: Command, repository: Repository, points: list[RestorePoint]
) -> None:
    top = image(repository, points[2])
    found = parsed(mover("verify", top, top, "--json"))
    assert found["sound"]
    assert [one["image"] for one in found["images"]] == [point.images[0].file for point in reversed(points)]
    assert all(one["checked"] == one["held"] > 0 for one in found["images"])
    rot(image(repository, points[0]))
    out, err = mover("verify", top, expect=exits.FAILED)
    assert err == ""
    assert f"{points[0].images[0].file}: NOT SOUND" in out
    assert "1 clusters" in out
    assert f"{points[2].images[0].file}: sound" in out


def test_points_are_checked_in_turn_and_the_result_is_kept(
    mover: Command, repository: Repository, points: list[RestorePoint]
) -> None:
    out, _ = mover("verify", "--repository", repository.root, "--point", points[1].id, "--share", "0.5")
    assert "1 of 1 points checked" in out
    found = parsed(mover("verify", "--repository", repository.root, "--json"))
    assert [one["id"] for one in found["points"]] == [points[2].id, points[0].id, points[1].id]
    assert all(last_verification(repository, point) is not None for point in points)
    rot(image(repository, points[1]))
    found = parsed(mover("verify", "--repository", repository.root, "--json", expect=exits.FAILED))
    assert {one["id"]: one["sound"] for one in found["points"]} == {
        points[0].id: True,
        points[1].id: False,
        points[2].id: False,
    }


def test_a_point_that_cannot_be_read_is_told(
    mover: Command, repository: Repository, points: list[RestorePoint]
) -> None:
    manifest = repository.root / "workloads/w1/vms/vm1/points" / points[1].id / "point.json"
    manifest.write_text("{}")
    out, _ = mover("verify", "--repository", repository.root, expect=exits.FAILED)
    assert f"{points[1].id}: NOT SOUND" in out


class Slow:
    """Lets the reading of an image take ten seconds, by a clock that nothing else moves."""

    TAKES = 10.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        for module in (sampling, verify, command):
            monkeypatch.setattr(module, "time", clock, raising=False)
        monkeypatch.setattr(verify, "copy", self._copy)

    def _copy(self, *ends: Any, **options: Any) -> Any:
        done = copy(*ends, **options)
        self.now += self.TAKES
        return done


def test_the_time_is_that_of_the_whole_call(
    mover: Command, repository: Repository, points: list[RestorePoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    out, _ = mover("verify", image(repository, points[2]), "--seconds", 15)
    assert slow.now <= 15 + slow.TAKES
    assert "Only 2 of 3 images were checked before the time was over." in out
    slow.now = 0.0
    found = parsed(mover("verify", "--repository", repository.root, "--seconds", 15, "--json"))
    assert slow.now <= 15 + slow.TAKES
    assert (found["sound"], found["checked"], found["total"]) == (True, 1, 3)
    assert (found["points"][0]["id"], found["points"][0]["left"]) == (points[2].id, 1)
    assert found["points"][0]["share"] == pytest.approx(2 / 3, abs=0.001)
    kept = last_verification(repository, points[2])
    assert kept is not None
    assert (kept.sound, kept.share < 1, kept.left) == (True, True, 1)
    out, _ = mover("verify", "--repository", repository.root, "--seconds", 45)
    assert f"{points[1].id} of VM 'web': sound, 100% of its data read\n{points[0].id}" in out
    assert "3 of 3 points checked" in out, "each image was read once"


def test_what_was_not_looked_at_is_never_sound(
    mover: Command, repository: Repository, points: list[RestorePoint]
) -> None:
    """A job that runs each night has to see that it checks nothing."""
    for what in (["--repository", repository.root], [image(repository, points[2])]):
        found = parsed(mover("verify", *what, "--seconds", "1e-9", "--json", expect=exits.FAILED))
        assert (found["sound"], found["checked"], found["total"]) == (False, 0, 3)
        out, _ = mover("verify", *what, "--seconds", "1e-9", expect=exits.FAILED)
        assert out.startswith("Nothing was checked: the time was over before any of 3 ")
    assert last_verification(repository, points[2]) is None


def test_a_look_at_the_structure_alone_is_no_check(
    mover: Command, repository: Repository, points: list[RestorePoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    look = verify.check_image

    def look_slowly(*place: Any, **options: Any) -> Any:
        slow.now += slow.TAKES
        return look(*place, **options)

    monkeypatch.setattr(verify, "check_image", look_slowly)
    found = parsed(mover("verify", image(repository, points[2]), "--seconds", 5, "--json", expect=exits.FAILED))
    assert (found["sound"], [one["sound"] for one in found["images"]]) == (False, [False])
    out, _ = mover("verify", "--repository", repository.root, "--seconds", 5, expect=exits.FAILED)
    assert "Nothing was checked" in out
    assert last_verification(repository, points[2]) is None


def test_an_empty_repository_is_nothing_to_worry_about(mover: Command, repository: Repository) -> None:
    found = parsed(mover("verify", "--repository", repository.root, "--json"))
    assert (found["sound"], found["checked"], found["total"]) == (False, 0, 0)


def test_progress_has_a_total_and_only_rises(
    mover: Command, repository: Repository, points: list[RestorePoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Progress] = []
    monkeypatch.setattr(Shown, "progress", lambda _, progress: told.append(progress))
    for words, total in (
        ([image(repository, points[2])], 3 * MIB),
        ([image(repository, points[2]), "--share", "0.5"], 3 * MIB // 2),
        (["--repository", repository.root], 3 * MIB),
    ):
        told.clear()
        mover("verify", *words)
        assert [one.total for one in told] == [total] * len(told)
        passed = [one.done for one in told]
        assert passed == sorted(passed)
        assert (passed[0] < total, passed[-1]) == (True, total)


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


def test_a_read_only_repository_is_checked_to_its_end(repository: Repository, points: list[RestorePoint]) -> None:
    words = (*COMMAND, "verify", "--repository", str(repository.root), "--json")
    apart = ("unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(repository.root))
    if subprocess.run([*apart, "true"], check=False, timeout=90, capture_output=True).returncode:
        pytest.skip("mounting in a name space of its own needs root")
    done = subprocess.run([*apart, *words], check=False, timeout=90, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (exits.OK, "")
    found = json.loads(done.stdout)
    assert (found["sound"], found["checked"], found["total"]) == (True, 3, 3)
    [sentence] = found["not_kept"]
    assert sentence.startswith("The results of 3 checks could not be kept: ")
    rot(image(repository, points[0]))
    done = subprocess.run([*apart, *words[:-1]], check=False, timeout=90, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (exits.FAILED, "")
    assert done.stdout.count("NOT SOUND") == 3
    assert "The results of 3 checks could not be kept" in done.stdout
    assert last_verification(repository, points[0]) is None


def test_a_point_that_ends_meanwhile_is_no_fault(
    mover: Command, repository: Repository, points: list[RestorePoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images are then merged away, whatever the list of points said before."""
    monkeypatch.setattr(Repository, "survey", lambda *_: (tuple(points), ()))
    repository.remove_point("w1", "vm1", point_id=points[2].id)
    image(repository, points[2]).unlink()
    found = parsed(mover("verify", "--repository", repository.root, "--json"))
    assert (found["sound"], found["checked"], found["total"]) == (True, 2, 2)


def test_one_point_that_cannot_be_read_is_told_when_it_is_named(
    mover: Command, repository: Repository, points: list[RestorePoint]
) -> None:
    (repository.root / "workloads/w1/vms/vm1/points" / points[1].id / "point.json").write_text("{}")
    out, _ = mover("verify", "--repository", repository.root, "--point", points[1].id, expect=exits.FAILED)
    assert f"{points[1].id}: NOT SOUND" in out
    mover("verify", "--repository", repository.root, "--point", points[2].id)
    mover("verify", "--repository", repository.root, "--point", "", expect=exits.NOT_FOUND)


def test_images_go_once_their_points_are_gone(
    mover: Command, repository: Repository, points: list[RestorePoint], tmp_path: Path
) -> None:
    top, middle = image(repository, points[2]), image(repository, points[1])
    before, after = tmp_path / "before.raw", tmp_path / "after.raw"
    tool("qemu-img", "convert", "-O", "raw", top, before)
    _, err = mover("merge", middle, expect=exits.FAILED)
    assert "belongs to a restore point that still exists" in err
    assert middle.exists()
    (repository.root / "workloads/w1/vms/vm1/points" / points[1].id / "point.json").unlink()
    found = parsed(mover("merge", middle, "--json"))
    assert found["removed"] == [middle.name]
    assert not middle.exists()
    tool("qemu-img", "convert", "-O", "raw", top, after)
    assert before.read_bytes() == after.read_bytes()
    tool("qemu-img", "check", "-q", top)


def ended(repository: Repository, *gone: RestorePoint) -> None:
    for point in gone:
        (repository.root / "workloads/w1/vms/vm1/points" / point.id / "point.json").unlink()


def test_an_image_that_is_not_there_is_not_merged(
    mover: Command, repository: Repository, points: list[RestorePoint]
) -> None:
    ended(repository, *points[:2])
    middle = image(repository, points[1])
    wrong = middle.with_name("p0.qcow2")
    for words in ((wrong,), (middle, wrong)):
        _, err = mover("merge", *words, expect=exits.NOT_FOUND)
        assert f"There is no image {str(wrong)!r}" in err
    assert middle.exists()


def test_a_merge_that_was_stopped_is_gone_on_with(
    mover: Command, repository: Repository, points: list[RestorePoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the images that it removes are gone already."""
    ended(repository, points[1])
    middle = image(repository, points[1])

    def fail(*_: object) -> None:
        raise TargetFailed(path=middle.parent, reason="told to")

    with monkeypatch.context() as patched:
        patched.setattr(Extender, "give_back", fail)
        mover("merge", middle, expect=exits.FAILED)
    assert not middle.exists()
    assert (middle.parent / "merge.json").exists()
    mover("merge", middle)
    assert not (middle.parent / "merge.json").exists()
    mover("merge", middle, expect=exits.NOT_FOUND)


def test_data_that_nothing_is_built_upon_are_deleted_only_when_that_is_said(
    mover: Command, repository: Repository, points: list[RestorePoint]
) -> None:
    ended(repository, *points)
    paths = [image(repository, point) for point in points]
    folder = paths[0].parent
    for words in (paths[2:], paths[1:], paths, [paths[0], paths[2]]):
        _, err = mover("merge", *words, expect=exits.CONFLICT)
        assert f"No image that stays is built upon {paths[2].name}" in err or "No image that stays" in err
        assert "--delete" in err
        assert all(path.exists() for path in paths)
    assert parsed(mover("merge", paths[0], "--json"))["removed"] == [paths[0].name]
    assert parsed(mover("merge", *paths[1:], "--delete", "--json"))["removed"] == [paths[2].name, paths[1].name]
    assert not list(folder.glob("*.qcow2"))


def test_a_source_that_is_damaged_is_not_merged_away(mover: Command, tmp_path: Path) -> None:
    disk, below, above = tmp_path / "disk.raw", tmp_path / "p1.qcow2", tmp_path / "p2.qcow2"
    disk.write_bytes(os.urandom(MIB))
    mover("copy", "--from", disk, "--to", below)
    with disk.open("r+b") as file:
        file.write(os.urandom(192 * KIB))
    mover("copy", "--from", disk, "--to", above, "--base", below.name, "--compare")
    rot(above)
    _, err = mover("merge", below, expect=exits.FAILED)
    assert f"The merge into {above.name} was given up, and all points read as before: 1 cluster does not read" in err
    assert below.exists()
    out, _ = mover("verify", above, expect=exits.FAILED)
    assert f"{above.name}: NOT SOUND" in out
    mover("digest", above)
    mover("merge", below)
    mover("verify", above)


def test_a_disk_of_no_bytes(mover: Command, tmp_path: Path) -> None:
    disk, out = tmp_path / "disk.raw", tmp_path / "out.raw"
    disk.touch()
    paths = [tmp_path / f"p{number}.qcow2" for number in range(3)]
    mover("copy", "--from", disk, "--to", paths[0], "--read-back", "1")
    for below, path in pairwise(paths):
        mover("copy", "--from", disk, "--to", path, "--base", below.name, "--compare", "--compress")
    mover("verify", *paths)
    (tmp_path / "p1.sums").unlink()
    mover("digest", paths[1])
    mover("verify", *paths)
    mover("merge", paths[1])
    mover("merge", paths[0])
    mover("verify", paths[2])
    tool("qemu-img", "check", "-q", paths[2])
    mover("copy", "--from", paths[2], "--to", out)
    assert out.stat().st_size == 0
    foreign = tmp_path / "foreign.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", foreign, "0")
    mover("digest", foreign)
    mover("verify", foreign)


def test_names_that_other_programs_gave(mover: Command, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(os.urandom(1 << 20))
    below, above = tmp_path / "my vm_disk+1 (ü).qcow2", tmp_path / "_second 'one'.qcow2"
    mover("copy", "--from", disk, "--to", below)
    mover("copy", "--from", disk, "--to", above, "--base", below.name, "--compare")
    mover("digest", below)
    mover("merge", below)
    mover("verify", above)
    tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, above)
    for bad in (".hidden.qcow2", "-x.qcow2", "a:b.qcow2", "a\tb.qcow2", f"{'ü' * 125}.qcow2"):
        _, err = mover("copy", "--from", disk, "--to", tmp_path / bad, expect=exits.USAGE)
        assert "cannot be the name of an image" in err
        mover("copy", "--from", disk, "--to", tmp_path / "n.qcow2", "--compare", f"--base={bad}", expect=exits.USAGE)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["verify"], "either images or a repository"),
        (["verify", "a.qcow2", "--share", "0"], "no share"),
        (["verify", "a.qcow2", "--share", "nan"], "no share"),
        (["verify", "a.qcow2", "--seconds", "0"], "0 seconds are no time"),
        (["verify", "a.qcow2", "--seconds=-3"], "no time"),
        (["verify", "a.qcow2", "--seconds", "nan"], "no time"),
        (["verify", "a.qcow2", "--seconds", "inf"], "no time"),
        (["verify", "a.qcow2", "--seconds", "soon"], "invalid"),
        (["verify", "a.qcow2", "--point", "p"], "--point is one of a repository"),
        (["verify", "a.qcow2", "--repository", "here"], "either images or a repository"),
        (["verify", "a.raw"], "not an image"),
        (["merge", "one/a.qcow2", "two/b.qcow2"], "not all in one folder"),
    ],
)
def test_wrong_use_is_told(mover: Command, words: list[str], says: str) -> None:
    _, err = mover(*words, expect=exits.USAGE)
    assert says in err


def test_what_is_not_there_is_told(mover: Command, repository: Repository, tmp_path: Path) -> None:
    mover("verify", tmp_path / "none.qcow2", expect=exits.NOT_FOUND)
    _, err = mover("verify", "--repository", repository.root, "--point", "p", expect=exits.NOT_FOUND)
    assert "no restore point 'p'" in err
