# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover merge` and `verify`: on images of a folder, and on the points of a repository."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import pytest

from overkeep import exits
from overkeep.model.points import RestorePoint, point_id
from overkeep.repository.repository import Repository
from overkeep.repository.verification import last_verification
from overkeep.units import KIB
from tests.mover.bench import tool
from tests.mover.test_commands import Command
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
    assert parsed(mover("verify", "--repository", repository.root, "--seconds", "0", "--json"))["points"] == []
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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["verify"], "either images or a repository"),
        (["verify", "a.qcow2", "--share", "0"], "no share"),
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
