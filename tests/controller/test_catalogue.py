# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of points follows the targets, and no listing that failed takes a row away."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from overkeep.blocks.errors import TargetFailed
from overkeep.controller.background.catalogue import Catalogue
from overkeep.controller.events import Event, Filter, Kind
from overkeep.controller.records import JobState
from overkeep.controller.store.points import PointFilter
from overkeep.errors import NotFound
from overkeep.model.points import Pin
from overkeep.model.policy import Policy
from overkeep.model.retention import Retention
from overkeep.repository.identity import create_identity
from overkeep.repository.repository import Repository
from overkeep.units import utc_now
from tests.controller.world import World, disk, succeeded, vm

EVERYTHING = PointFilter()


@pytest.fixture
def site(world: World) -> World:
    world.add(vm("web", disk("root")))
    return world


def back_up(world: World) -> str:
    job = world.back_up()
    assert succeeded(job), job.failure
    return job.vms[0].point_id


def seen(world: World) -> list[str]:
    return [one.point.id for one in world.controller.points.page(EVERYTHING)]


def rescan(world: World) -> None:
    world.controller.targets.rescan("nfs1")
    world.catalogue.round()
    assert not world.store.listings.of("nfs1").going_on


def told(world: World, kind: Kind) -> list[Event]:
    return list(world.store.events.after(0, Filter(kind=kind)))


def folder_of(world: World, point_id: str) -> Path:
    [folder] = world.repository.root.glob(f"workloads/*/vms/*/points/{point_id}")
    return folder


def test_rows_come_and_go_with_the_points(site: World) -> None:
    made = [back_up(site), back_up(site), back_up(site)]
    assert seen(site) == made
    [first, *_] = site.controller.points.page(EVERYTHING)
    assert first.point == site.repository.points()[0]
    placed = site.controller.points.find(made[1])
    pin = site.controller.points.put_pin(placed, "audit", caller="ann")
    assert site.controller.points.page(EVERYTHING)[1].pin == pin
    site.controller.points.remove_pin(placed)
    assert site.controller.points.page(EVERYTHING)[1].pin is None
    assert succeeded(site.finish(site.controller.start_removal(placed, caller="ann")))
    assert seen(site) == [made[0], made[2]]
    policy = site.controller.policies.create(Policy(name="few", retention=Retention(last=1)))
    site.controller.policies.give(site.controller.workload("demo"), policy)
    last = back_up(site)
    assert seen(site) == [last] == [point.id for point in site.repository.points()]


def test_a_lost_data_base_is_filled_again_from_the_target(site: World) -> None:
    made = [back_up(site), back_up(site)]
    pin = Pin(reason="audit", by="ann", pinned_at=utc_now())
    site.repository.put_pin(site.repository.points()[0], pin)
    site.stop()
    site.lose_data_base()
    site.start()
    assert seen(site) == made
    assert [one.pin for one in site.controller.points.page(EVERYTHING)] == [pin, None]
    assert site.controller.points.away() == ()


def test_a_listing_by_the_hour_finds_what_came_and_went(site: World) -> None:
    made = [back_up(site), back_up(site)]
    site.stop()
    shutil.move(folder_of(site, made[1]), site.folder / "gone")
    site.store.points.remove("nfs1", site.repository.points()[0])
    site.start()  # which lists it
    assert seen(site) == [made[0]]
    [event] = told(site, Kind.TARGET_LISTED)
    assert event.fields == {"points": 1, "added": 1, "corrected": 0, "removed": 1}


def test_only_a_whole_listing_reads_what_is_known(site: World) -> None:
    point_id = back_up(site)
    path = folder_of(site, point_id) / "point.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "vm_name": "renamed"}))
    site.restart()
    assert [one.point.vm_name for one in site.controller.points.page(EVERYTHING)] == ["web"]
    rescan(site)
    assert [one.point.vm_name for one in site.controller.points.page(EVERYTHING)] == ["renamed"]
    site.repository.put_pin(site.repository.points()[0], Pin(reason="by hand", by="", pinned_at=utc_now()))
    rescan(site)
    assert site.controller.points.page(EVERYTHING)[0].pin.reason == "by hand"
    assert [event.fields["corrected"] for event in told(site, Kind.TARGET_LISTED)] == [1, 1]


def test_a_damaged_manifest_takes_no_row_away(site: World) -> None:
    point_id = back_up(site)
    (folder_of(site, point_id) / "point.json").write_text("{")
    rescan(site)
    assert seen(site) == [point_id]
    assert told(site, Kind.TARGET_LISTED)[-1].fields["removed"] == 0


@pytest.mark.parametrize("fault", ["away", "another repository", "no repository"])
def test_no_row_goes_while_the_target_is_not_what_it_was(site: World, fault: str) -> None:
    made = [back_up(site), back_up(site)]
    root = site.repository.root
    hidden = root.rename(site.folder / "hidden")
    if fault != "away":
        root.mkdir()
    if fault == "another repository":
        create_identity(root)
    site.controller.targets.rescan("nfs1")
    site.catalogue.round()
    assert seen(site) == made
    [event] = told(site, Kind.TARGET_UNLISTED)
    assert "shown as they were last seen" in event.text
    assert site.store.listings.of("nfs1").error
    [away] = site.controller.points.away()
    assert away.target == "nfs1"
    if fault != "away":
        shutil.rmtree(root)
    hidden.rename(root)
    rescan(site)
    assert (seen(site), site.controller.points.away()) == (made, ())


def test_no_row_goes_when_a_part_of_the_listing_fails(site: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when a folder cannot be read, nor when the whole tree vanishes in the midst of it."""
    made = [back_up(site), back_up(site)]
    shutil.move(folder_of(site, made[0]), site.folder / "gone")
    repository = site.ports.targets.get("nfs1").repository

    def broken(_workload_id: str) -> Iterator[tuple[str, str]]:
        raise TargetFailed(path=repository.root, reason="input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(repository, "places", broken)
        site.controller.targets.rescan("nfs1")
        site.catalogue.round()
    assert seen(site) == made

    def unmounted(_workload_id: str) -> Iterator[tuple[str, str]]:
        repository.root.rename(site.folder / "hidden")
        repository.root.mkdir()
        return iter(())

    with monkeypatch.context() as patched:
        patched.setattr(repository, "places", unmounted)
        site.controller.targets.rescan("nfs1")
        site.catalogue.round()
    assert seen(site) == made
    repository.root.rmdir()
    (site.folder / "hidden").rename(repository.root)
    rescan(site)
    assert seen(site) == made[1:], "what has ended goes once the target is listed whole"


def test_a_point_that_an_old_listing_lacks_is_asked_for_by_itself(site: World, monkeypatch: pytest.MonkeyPatch) -> None:
    point_id = back_up(site)
    repository = site.ports.targets.get("nfs1").repository
    monkeypatch.setattr(repository, "places", lambda _workload_id: iter(()))
    rescan(site)
    assert seen(site) == [point_id]


def test_a_point_that_ends_while_it_is_read_does_not_come_back(site: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [back_up(site), back_up(site)]
    site.store.points.remove_target("nfs1")
    repository = site.ports.targets.get("nfs1").repository
    look = repository.look

    def overtaken(workload_id: str, vm_id: str, point_id: str):
        found = look(workload_id, vm_id, point_id)
        if point_id == made[0]:
            Repository(repository.root).remove_point(workload_id, vm_id, point_id=point_id)
            site.store.points.remove("nfs1", (workload_id, vm_id, point_id))
        return found

    monkeypatch.setattr(repository, "look", overtaken)
    rescan(site)
    assert seen(site) == made[1:]


def test_a_removal_that_meets_a_listing_is_not_undone(site: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [back_up(site), back_up(site)]
    repository = site.ports.targets.get("nfs1").repository
    pin = repository.pin

    def overtaken(point):
        found = pin(point)
        if point.id == made[0]:
            Repository(repository.root).remove_point(point.workload_id, point.vm_id, point_id=point.id)
            site.store.points.remove("nfs1", point)
        return found

    monkeypatch.setattr(repository, "pin", overtaken)
    rescan(site)
    assert seen(site) == made[1:]


def test_another_repository_is_listed_once_it_is_accepted(site: World) -> None:
    made = back_up(site)
    right = site.repository.root.rename(site.folder / "right")
    site.repository.root.mkdir()
    other = create_identity(site.repository.root).id
    site.controller.targets.accept("nfs1", found=other)
    assert seen(site) == [], "they are not there"
    assert [one.error.code for one in site.controller.points.away()] == ["target-not-listed"]
    site.catalogue.round()
    assert (seen(site), site.controller.points.away()) == ([], ())
    shutil.rmtree(site.repository.root)
    right.rename(site.repository.root)
    site.controller.targets.accept("nfs1", found=Repository(site.repository.root).id)
    assert site.controller.points.find(made).point.id == made, "found on the target although there is no row"
    site.catalogue.round()
    assert seen(site) == [made]


def test_decisions_read_the_target_whatever_the_table_says(site: World) -> None:
    made = [back_up(site), back_up(site)]
    policy = site.controller.policies.create(Policy(name="few", retention=Retention(last=2)))
    site.controller.policies.give(site.controller.workload("demo"), policy)
    ghost = site.repository.points()[0]
    site.store.points.remove_target("nfs1")
    assert site.controller.points.find(made[0]).point == ghost
    assert succeeded(site.restore(made[1], "copy"))
    last = back_up(site)
    assert [point.id for point in site.repository.points()] == [made[1], last]
    assert site.repository.points()[-1].images[0].backing == f"{made[1]}.qcow2"
    site.store.points.put("nfs1", ghost)
    with pytest.raises(NotFound):
        site.controller.points.find(ghost.id)


def test_a_preview_looks_at_the_table_and_its_pins(site: World) -> None:
    made = [back_up(site) for _ in range(3)]
    placed = site.controller.points.find(made[0])
    site.controller.points.put_pin(placed, "audit", caller="ann")
    hidden = site.repository.root.rename(site.folder / "hidden")
    [marked] = site.controller.policies.marks(site.controller.workload("demo"), Retention(last=1))
    assert [(mark.id, mark.reasons) for mark in marked.marks] == [
        (made[2], ("last, 1 of 1", "it is the newest")),
        (made[1], ()),
        (made[0], ("pinned: audit",)),
    ]
    hidden.rename(site.repository.root)


def test_the_threads_list_what_is_asked_for_and_end(site: World) -> None:
    made = back_up(site)
    site.store.points.remove_target("nfs1")
    catalogue = Catalogue(site.ports)
    catalogue.start()
    try:
        site.controller.targets.rescan("nfs1")
        site.until(lambda: seen(site) == [made] and not site.store.listings.of("nfs1").going_on)
    finally:
        catalogue.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("listing-")]


def test_a_crash_between_target_and_row_is_mended_at_the_next_start(site: World) -> None:
    """The commit step is repeated; of a point that a retention ended the row may be left."""
    made = [back_up(site), back_up(site)]
    folder = folder_of(site, made[0])
    workload_id, vm_id = folder.parts[-5], folder.parts[-3]
    site.repository.remove_point(workload_id, vm_id, point_id=made[0])
    assert seen(site) == made
    site.restart()
    assert seen(site) == made[1:]
    assert site.back_up().state is JobState.SUCCEEDED
