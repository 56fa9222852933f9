# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system of which any call fails: a point is there, whole, or it is not, and doing it again ends it."""

from __future__ import annotations

import datetime as dt
import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from overkeep.blocks.errors import TargetFailed
from overkeep.blocks.image import ChainReader
from overkeep.model.points import Pin, RestorePoint, point_id
from overkeep.repository import layout
from overkeep.repository.errors import ChainBroken
from overkeep.repository.repository import Draft, Repository
from tests.filesystems.mounting import FailingTarget, failing_target
from tests.repository.conftest import describe, write_image

ERRORS = (errno.ENOSPC, errno.EIO, errno.ESTALE)
CREATED = [dt.datetime(2026, 11, 22, 22, number, tzinfo=dt.UTC) for number in range(3)]


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[FailingTarget]:
    """A file system whose calls fail when they should."""
    with failing_target(tmp_path) as target:
        yield target


def begin(root: Path, number: int) -> Draft:
    job = f"job{number}"
    return Repository(root).begin("w1", "vm1", point_id=point_id(CREATED[number], job), job_id=job)


def fill(draft: Draft, number: int) -> RestorePoint:
    """Write all that belongs to a point; return it as it should become."""
    backing = layout.image_name(point_id(CREATED[number - 1], f"job{number - 1}")) if number else None
    draft.write_configuration("<ovf/>", {"number": number})
    write_image(draft, "disk1", backing=backing)
    return describe(draft, CREATED[number], backing=backing)


def back_up(root: Path, number: int = 1) -> None:
    draft = begin(root, number)
    if not draft.committed:
        draft.commit(fill(draft, number))


def back_up_before(root: Path) -> None:
    back_up(root, 0)


def leave(root: Path) -> None:
    """All of a point is written, and its job ends before the commit."""
    fill(begin(root, 1), 1)


def abandon(root: Path) -> None:
    name = point_id(CREATED[1], "job1")
    Repository(root).draft("w1", "vm1", point_id=name, job_id="job1").abandon()


def remove(root: Path) -> None:
    Repository(root).remove_point("w1", "vm1", point_id=point_id(CREATED[0], "job0"))


def pin(root: Path) -> None:
    (point,) = Repository(root).points("w1", "vm1")
    Repository(root).put_pin(point, Pin(reason="kept", by="admin@internal", pinned_at=CREATED[2]))


Act = Callable[[Path], None]
# what is there before, what is done, and how many points there are behind it
LIVES: dict[str, tuple[list[Act], Act, int]] = {
    "a backup": ([back_up_before], back_up, 2),
    "an abandoned draft": ([back_up_before, leave], abandon, 1),
    "a removal": ([back_up_before, back_up], remove, 1),
    "a pin": ([back_up_before], pin, 1),
}

# what is not named by anything any more may stay as an empty or hidden folder: the next of its kind takes it
REMOVALS = {"an abandoned draft", "a removal"}


class Life:
    """A repository of which copies are made, one for each failure, and what is done there."""

    def __init__(self, folder: Path, name: str) -> None:
        acts, self.act, self._after = LIVES[name]
        self._folder, self._before, self._copies = folder, folder / "before", 0
        self._before.mkdir()
        Repository(self._before).create()
        for act in acts:
            act(self._before)
        self._points = self.points(self._before)

    def fresh(self) -> Path:
        self._copies += 1
        return Path(shutil.copytree(self._before, self._folder / f"copy{self._copies}"))

    @staticmethod
    def points(root: Path) -> list[str]:
        """The points, all of which can be read."""
        repository = Repository(root).open()
        assert repository.damaged() == ()
        for point in repository.points():
            repository.configuration(point)
            folder = root / repository.folder(point, "disk1")
            with closing(ChainReader(folder, point.images[0].file)) as chain:
                chain.read_into(0, memoryview(bytearray(chain.size)))
        return [point.id for point in repository.points()]

    def settle(self, root: Path) -> None:
        """What was there is there, what is new is whole or absent, and doing it again ends it."""
        found = self.points(root)
        assert len(found) in {len(self._points), self._after}
        assert set(found) <= set(self._points) or set(self._points) <= set(found)
        self.act(root)
        assert len(self.points(root)) == self._after
        assert Repository(root).drafts() == ()
        odd = [path.name for path in root.rglob("*") if path.name.startswith(".") or path.suffix == ".partial"]
        assert [name for name in odd if not name.startswith(".pin.json.")] == [], "that goes with its point"
        shutil.rmtree(root)


@pytest.mark.parametrize("name", LIVES)
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_any_call_to_a_file_system_fails(failing: FailingTarget, name: str, number: int) -> None:
    life = Life(failing.root, name)
    for call in failing.calls(life.fresh, life.act):
        root = life.fresh()
        failing.fail(call, number, partial(life.act, root), told=name not in REMOVALS)
        life.settle(root)


@pytest.mark.parametrize("name", LIVES)
def test_a_file_system_moves_only_a_part(failing: FailingTarget, name: str) -> None:
    life = Life(failing.root, name)
    root = life.fresh()
    with failing.short():
        life.act(root)
    life.settle(root)


def test_a_bad_place_breaks_the_chains_over_it_and_no_others(failing: FailingTarget) -> None:
    root = failing.root / "repository"
    root.mkdir()
    Repository(root).create()
    for number in range(3):
        back_up(root, number)
    repository = Repository(root)
    points = repository.points("w1", "vm1")
    with failing.bad(points[1].images[0].file, 0):
        assert len(repository.chain(points[0], "disk1")) == 1
        for point in points[1:]:
            with pytest.raises(ChainBroken, match=f"{points[1].images[0].file} cannot be read on the backup target"):
                repository.chain(point, "disk1")
    with failing.failing("reads", 1, errno.EIO, lasting=True), pytest.raises(TargetFailed):
        repository.chain(points[0], "disk1")
    assert len(repository.chain(points[2], "disk1")) == 3
