# SPDX-License-Identifier: GPL-3.0-or-later
"""Points that end: by one rename, and their images stay until nobody needs them."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from overkeep.blocks.image import ChainReader
from overkeep.blocks.merge.acts import merge_away
from overkeep.blocks.merge.making import Watch
from overkeep.errors import Conflict, NotFound
from overkeep.model.points import Pin, RestorePoint
from overkeep.repository import layout
from overkeep.repository.errors import DocumentDamaged, PointPinned
from overkeep.repository.merging import MergeJournal
from overkeep.repository.pins import write_pin
from overkeep.repository.repository import Draft, Repository

Backup = Callable[..., RestorePoint]


def chain(backup: Backup, count: int) -> list[RestorePoint]:
    """A full point and incrementals upon it."""
    points = [backup(0)]
    for number in range(1, count):
        points.append(backup(number, backing=points[-1].images[0].file))
    return points


def disk_folder(repository: Repository) -> Path:
    return repository.root / layout.disk("w1", "vm1", "disk1")


def test_a_point_ends_and_its_image_stays(repository: Repository, backup: Backup) -> None:
    points = chain(backup, 3)
    assert repository.unnamed_images("w1", "vm1") == {}
    repository.remove_point("w1", "vm1", point_id=points[1].id)
    repository.remove_point("w1", "vm1", point_id=points[1].id)
    with pytest.raises(NotFound):
        repository.point("w1", "vm1", points[1].id)
    assert repository.points("w1", "vm1") == (points[0], points[2])
    assert repository.drafts() == ()
    assert repository.unnamed_images("w1", "vm1") == {"disk1": (points[1].images[0].file,)}
    assert len(repository.chain(points[2], "disk1")) == 3
    assert [
        path.name for path in (repository.root / layout.points("w1", "vm1")).iterdir() if "removed" in path.name
    ] == []


def test_the_images_of_ended_points_are_merged_away(repository: Repository, backup: Backup) -> None:
    points = chain(backup, 4)
    folder = disk_folder(repository)
    before = {}
    for point in points:
        reader = ChainReader(folder, point.images[0].file)
        before[point.id] = bytearray(reader.size)
        reader.read_into(0, memoryview(before[point.id]))
        reader.close()
    for point in (points[0], points[2]):
        repository.remove_point("w1", "vm1", point_id=point.id)
    unnamed = repository.unnamed_images("w1", "vm1")["disk1"]
    merge_away(folder, unnamed, journal=MergeJournal(folder), watch=Watch())
    assert repository.unnamed_images("w1", "vm1") == {}
    for point in (points[1], points[3]):
        assert repository.chain(point, "disk1")[0] == point.images[0].file
        reader = ChainReader(folder, point.images[0].file)
        found = bytearray(reader.size)
        reader.read_into(0, memoryview(found))
        reader.close()
        assert found == before[point.id]
    assert {path.suffix for path in folder.iterdir()} == {".qcow2", ".sums"}
    assert len(list(folder.iterdir())) == 4


def test_a_point_that_lost_its_name_only_is_gone(
    repository: Repository, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = chain(backup, 2)

    class Killed(BaseException):
        pass

    def die(path: object) -> None:
        raise Killed

    monkeypatch.setattr(os, "rmdir", die)
    with pytest.raises(Killed):
        repository.remove_point("w1", "vm1", point_id=points[0].id)
    monkeypatch.undo()
    folder = repository.root / layout.points("w1", "vm1")
    assert f".{points[0].id}.removed" in [path.name for path in folder.iterdir()]
    assert repository.points("w1", "vm1") == (points[1],)
    assert repository.drafts() == ()
    repository.remove_point("w1", "vm1", point_id=points[0].id)
    assert [path.name for path in folder.iterdir()] == [points[1].id]


def test_drafts_are_not_removed_and_their_images_are_theirs(
    repository: Repository, backup: Backup, prepare: Callable[..., tuple[Draft, RestorePoint]]
) -> None:
    point = backup(0)
    draft, _ = prepare(1, backing=point.images[0].file)
    with pytest.raises(Conflict, match="draft"):
        repository.remove_point("w1", "vm1", point_id=draft.point_id)
    assert repository.unnamed_images("w1", "vm1") == {}
    draft.abandon()


def test_what_a_damaged_manifest_may_name_is_not_merged_away(repository: Repository, backup: Backup) -> None:
    points = chain(backup, 3)
    repository.remove_point("w1", "vm1", point_id=points[0].id)
    (repository.root / layout.point("w1", "vm1", points[1].id) / layout.MANIFEST).write_text("{")
    with pytest.raises(DocumentDamaged):
        repository.unnamed_images("w1", "vm1")


def test_nothing_is_there(repository: Repository) -> None:
    repository.remove_point("w1", "vm1", point_id="p1")
    assert repository.unnamed_images("w1", "vm1") == {}


PIN = Pin(reason="audit of 2026", by="ann@internal", pinned_at=dt.datetime(2026, 11, 26, tzinfo=dt.UTC))


def test_a_pinned_point_does_not_end(repository: Repository, backup: Backup) -> None:
    point = backup(0)
    assert repository.pin(point) is None
    repository.put_pin(point, PIN)
    assert repository.pin(point) == PIN
    assert repository.points() == (point,), "the point is as it was"
    with pytest.raises(PointPinned, match="ann@internal"):
        repository.remove_point("w1", "vm1", point_id=point.id)
    assert repository.points() == (point,)
    repository.remove_pin(point)
    repository.remove_pin(point)
    assert repository.pin(point) is None
    repository.remove_point("w1", "vm1", point_id=point.id)
    for act in (lambda: repository.put_pin(point, PIN), lambda: repository.remove_pin(point)):
        with pytest.raises(NotFound):
            act()


@pytest.mark.parametrize("when", ["before it is written", "after it is written"])
def test_a_pin_that_meets_a_removal_is_refused(
    repository: Repository, backup: Backup, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Who pins is never told that a point stays which goes: the removal may have looked for a pin just before."""
    point = backup(0)

    def pin_and_go(folder: Path, pin: Pin) -> None:
        if when == "after it is written":
            write_pin(folder, pin)
        folder.rename(folder.with_name(layout.removed_name(point.id)))
        if when == "before it is written":
            write_pin(folder, pin)

    monkeypatch.setattr("overkeep.repository.repository.write_pin", pin_and_go)
    with pytest.raises(NotFound):
        repository.put_pin(point, PIN)


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": "pin", "version": 9}', b'{"kind": "point"}'])
def test_a_pin_that_cannot_be_read_is_one(repository: Repository, backup: Backup, content: bytes) -> None:
    point = backup(0)
    (repository.root / layout.point("w1", "vm1", point.id) / layout.PIN).write_bytes(content)
    pin = repository.pin(point)
    assert pin is not None
    assert "cannot be read" in pin.reason
    with pytest.raises(PointPinned):
        repository.remove_point("w1", "vm1", point_id=point.id)
    repository.remove_pin(point)
    repository.remove_point("w1", "vm1", point_id=point.id)
