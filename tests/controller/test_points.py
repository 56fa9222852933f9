# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of restore points: pages with every filter, against the same choice made over values."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
from collections.abc import Callable, Iterator

import pytest

from overkeep.controller.store import Store
from overkeep.controller.store.points import PointFilter, SeenPoint, known, place_of
from overkeep.model.inventory import DiskFormat
from overkeep.model.points import Changes, DiskImage, Mode, Pin, RestorePoint

BEGAN = dt.datetime(2026, 3, 1, 22, tzinfo=dt.UTC)
PIN = Pin(reason="audit", by="ann", pinned_at=BEGAN)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    store = Store(database)
    yield store
    store.close()


def point(number: int, *, vm: int = 1, workload: int = 1, mode: Mode = Mode.FULL) -> RestorePoint:
    """A point `number` hours after the first ones."""
    created = BEGAN + dt.timedelta(hours=number)
    image = DiskImage(
        disk_id=f"disk-{vm}",
        name="root",
        file=f"p{number}.qcow2",
        backing=None,
        mode=mode,
        reason="",
        virtual_size=1 << 30,
        stored=1 << 20,
        covered=1 << 30,
        moved=1 << 20,
        format=DiskFormat.COW,
        interface="virtio",
        bootable=True,
        changes=Changes.ALL,
    )
    return RestorePoint(
        id=f"{created:%Y%m%dT%H%M%SZ}-{workload:08}",
        workload_id=f"workload-{workload}",
        vm_id=f"vm-{vm}",
        vm_name=f"web{vm}",
        created=created,
        job_id=f"job-{number}",
        mode=mode,
        checkpoint_id=None,
        images=(image,),
    )


def ids(page: tuple[SeenPoint, ...]) -> list[tuple[str, str, str]]:
    return [(one.point.id, one.vm_id, one.target) for one in page]


def all_pages(store: Store, wanted: PointFilter, *, limit: int) -> list[SeenPoint]:
    found: list[SeenPoint] = []
    while page := store.points.page(wanted, after=found[-1].key if found else None, limit=limit):
        assert len(page) <= limit
        found += page
    return found


def test_a_point_is_kept_as_it_is(store: Store) -> None:
    made = point(1)
    store.points.put("nfs1", made)
    store.points.put("nfs1", made)  # a step may be repeated
    [seen] = store.points.page(PointFilter(), after=None, limit=10)
    assert (seen.point, seen.pin, seen.target) == (made, None, "nfs1")
    store.points.set_pin("nfs1", made, PIN)
    store.points.put("nfs1", made)
    [seen] = store.points.page(PointFilter(), after=None, limit=10)
    assert seen.pin == PIN, "the repeat of a step takes no pin away"
    assert store.points.places(made.id) == {("workload-1", "vm-1")}
    assert store.points.places("20260101T000000Z-00000000") == frozenset()
    store.points.remove("nfs2", made)
    assert len(store.points.page(PointFilter(), after=None, limit=10)) == 1, "one of another target"
    store.points.remove("nfs1", made)
    store.points.remove("nfs1", made)
    assert store.points.page(PointFilter(), after=None, limit=10) == ()


FILTERS: dict[str, tuple[PointFilter, Callable[[RestorePoint, str], bool]]] = {
    "none": (PointFilter(), lambda _point, _target: True),
    "workload": (PointFilter(workload_id="workload-2"), lambda point, _: point.workload_id == "workload-2"),
    "vm by id": (PointFilter(vm="vm-3"), lambda point, _: point.vm_id == "vm-3"),
    "vm by name": (PointFilter(vm="web3"), lambda point, _: point.vm_name == "web3"),
    "vm that is name and id": (PointFilter(vm="both"), lambda point, _: "both" in (point.vm_id, point.vm_name)),
    "no such vm": (PointFilter(vm="other"), lambda _point, _: False),
    "target": (PointFilter(target="nfs2"), lambda _, target: target == "nfs2"),
    "targets": (PointFilter(targets=("nfs2", "nfs3")), lambda _, target: target in ("nfs2", "nfs3")),
    "mode": (PointFilter(mode=Mode.INCREMENTAL), lambda point, _: point.mode is Mode.INCREMENTAL),
    "time": (
        PointFilter(since=BEGAN + dt.timedelta(hours=3), until=BEGAN + dt.timedelta(hours=6)),
        lambda point, _: BEGAN + dt.timedelta(hours=3) <= point.created < BEGAN + dt.timedelta(hours=6),
    ),
    "vms that are shown": (
        PointFilter(vm_ids=frozenset({"vm-1", "vm-4"})),
        lambda point, _: point.vm_id in ("vm-1", "vm-4"),
    ),
    "none is shown": (PointFilter(vm_ids=frozenset()), lambda _point, _: False),
    "all of them": (
        PointFilter(
            workload_id="workload-1",
            vm="web2",
            target="nfs1",
            mode=Mode.FULL,
            since=BEGAN,
            vm_ids=frozenset({"vm-2"}),
        ),
        lambda point, target: (
            (point.workload_id, point.vm_id, point.mode, target) == ("workload-1", "vm-2", Mode.FULL, "nfs1")
        ),
    ),
}


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_pages_hold_what_is_wanted_each_once_and_oldest_first(store: Store, limit: int) -> None:
    modes = (Mode.FULL, Mode.INCREMENTAL, Mode.INCREMENTAL)
    placed = [
        (point(number, vm=vm, workload=1 + vm % 2, mode=modes[number % 3]), target)
        for number in range(8)
        for vm, target in ((1, "nfs1"), (2, "nfs1"), (3, "nfs2"), (4, "nfs3"))
    ]
    odd = [dataclasses.replace(point(2, vm=8), vm_name="both"), dataclasses.replace(point(3, vm=9), vm_id="both")]
    placed += [(each, "nfs1") for each in odd]
    random.Random(limit).shuffle(placed)
    for each, target in placed:
        store.points.put(target, each)
    for name, (wanted, sees) in FILTERS.items():
        found = all_pages(store, wanted, limit=limit)
        expected = {(each.id, each.vm_id, target) for each, target in placed if sees(each, target)}
        assert len(found) == len(expected), name
        assert set(ids(tuple(found))) == expected, name
        assert [one.point.created for one in found] == sorted(one.point.created for one in found), name


def test_what_comes_and_goes_between_two_pages_shifts_nothing(store: Store) -> None:
    for number in range(6):
        store.points.put("nfs1", point(number))
    first = store.points.page(PointFilter(), after=None, limit=3)
    store.points.remove("nfs1", point(0))
    store.points.put("nfs1", point(9))
    rest = store.points.page(PointFilter(), after=first[-1].key, limit=10)
    assert [one.point.id for one in (*first, *rest)] == [point(number).id for number in (0, 1, 2, 3, 4, 5, 9)]


def test_a_key_that_was_made_up_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="9223372036854775808"):
        store.points.page(PointFilter(), after=(2**63, 1), limit=1)


def test_what_a_retention_looks_at(store: Store) -> None:
    made = [point(2, vm=2), point(1, vm=1), point(3, vm=1)]
    for each in made:
        store.points.put("nfs1", each)
    store.points.put("nfs2", point(4, vm=1))
    store.points.put("nfs1", point(5, workload=2))
    store.points.set_pin("nfs1", made[1], PIN)
    found = store.points.candidates("workload-1")
    assert [(one.candidate.id, one.candidate.created, one.vm_id, one.target) for one in found] == [
        (made[1].id, made[1].created, "vm-1", "nfs1"),
        (made[0].id, made[0].created, "vm-2", "nfs1"),
        (made[2].id, made[2].created, "vm-1", "nfs1"),
        (point(4).id, point(4).created, "vm-1", "nfs2"),
    ]
    assert [one.pin for one in found] == [PIN, None, None, None]
    assert store.points.counts("workload-1") == {"nfs1": 3, "nfs2": 1}


def test_a_listing_adds_and_corrects_but_overwrites_nothing_that_was_changed_meanwhile(store: Store) -> None:
    old, new = point(1), point(2)
    store.points.put("nfs1", old)
    before = store.points.known("nfs1", "workload-1")[place_of(old)]
    assert before == known(old, None)
    store.points.set_pin("nfs1", old, PIN)
    store.points.correct("nfs1", old, before=before, now=known(old, None))
    store.points.add("nfs1", [(old, None), (new, PIN)])
    assert [one.pin for one in store.points.page(PointFilter(), after=None, limit=9)] == [PIN, PIN]
    renamed = dataclasses.replace(old, vm_name="other")
    store.points.correct("nfs1", renamed, before=known(old, PIN), now=known(renamed, None))
    [seen] = store.points.page(PointFilter(vm="other"), after=None, limit=9)
    assert (seen.point, seen.pin) == (renamed, None)
    assert store.points.workloads("nfs1") == {"workload-1"}
    assert store.points.places_on("nfs1", "workload-1") == {place_of(old), place_of(new)}
    store.points.remove_target("nfs1")
    assert store.points.workloads("nfs1") == frozenset()


HOUR, MINUTE = dt.timedelta(hours=1), dt.timedelta(minutes=1)


def test_a_listing_is_begun_once_and_again_when_it_is_due(store: Store) -> None:
    rows = store.listings
    first = rows.begin("nfs1", BEGAN, every=HOUR, again=MINUTE)
    assert first is not None
    assert first.listed is None
    assert rows.begin("nfs1", BEGAN + MINUTE, every=HOUR, again=MINUTE) is None, "another controller lists it"
    assert rows.begin("nfs2", BEGAN, every=HOUR, again=MINUTE) is not None
    rows.beat("nfs1", BEGAN + MINUTE)
    assert rows.begin("nfs1", BEGAN + 10 * MINUTE, every=HOUR, again=MINUTE) is None
    rows.end("nfs1", first, BEGAN)
    assert (rows.of("nfs1").listed, rows.of("nfs1").going_on) == (BEGAN, False)
    assert rows.begin("nfs1", BEGAN + 59 * MINUTE, every=HOUR, again=MINUTE) is None
    second = rows.begin("nfs1", BEGAN + HOUR, every=HOUR, again=MINUTE)
    assert second is not None
    rows.end("nfs1", second, BEGAN + HOUR, error="it is away")
    assert (rows.of("nfs1").listed, rows.of("nfs1").error) == (BEGAN, "it is away")
    assert rows.begin("nfs1", BEGAN + HOUR + MINUTE / 2, every=HOUR, again=MINUTE) is None
    assert rows.begin("nfs1", BEGAN + HOUR + MINUTE, every=HOUR, again=MINUTE) is not None
    # the controller that began it died
    assert rows.begin("nfs1", BEGAN + HOUR + 5 * MINUTE, every=HOUR, again=MINUTE) is None
    assert rows.begin("nfs1", BEGAN + HOUR + 20 * MINUTE, every=HOUR, again=MINUTE) is not None
    rows.leave(["nfs1"])
    assert rows.begin("nfs1", BEGAN + HOUR + 21 * MINUTE, every=HOUR, again=MINUTE) is not None


def test_who_asks_during_a_listing_gets_another_one(store: Store) -> None:
    rows = store.listings
    going_on = rows.begin("nfs1", BEGAN, every=HOUR, again=MINUTE)
    assert going_on is not None
    rows.ask("nfs1", BEGAN + MINUTE)
    rows.end("nfs1", going_on, BEGAN)
    asked = rows.begin("nfs1", BEGAN + 2 * MINUTE, every=HOUR, again=MINUTE)
    assert asked is not None
    assert asked.asked == BEGAN + MINUTE
    rows.end("nfs1", asked, BEGAN + 2 * MINUTE)
    assert not rows.of("nfs1").going_on


def test_a_listing_of_another_repository_says_nothing_about_the_one_that_was_accepted(store: Store) -> None:
    rows = store.listings
    before = rows.begin("nfs1", BEGAN, every=HOUR, again=MINUTE)
    assert before is not None
    rows.ask("nfs1", BEGAN + MINUTE, anew=True)
    rows.end("nfs1", before, BEGAN)
    assert rows.of("nfs1").listed is None
    assert rows.begin("nfs1", BEGAN + MINUTE, every=HOUR, again=MINUTE) is not None
