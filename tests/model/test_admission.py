from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overkeep.errors import BadRequest
from overkeep.model.admission import (
    Limits,
    Priority,
    ResourceKind,
    Setting,
    Waiting,
    admit,
    group,
    in_order,
    in_words,
    is_general,
    kind_of,
    rank,
    room,
    workload,
)

NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
DEFAULTS = {ResourceKind.TOTAL: 4, ResourceKind.HOST: 2, ResourceKind.TARGET: 3, ResourceKind.DOMAIN: 3}


def waiting(name: str, *needs: str, overdue: bool = False) -> Waiting:
    return Waiting(job_id="j", vm_id=name, rank=name, needs=needs, overdue=overdue)


def names(begun: tuple[Waiting, ...]) -> list[str]:
    return [one.vm_id for one in begun]


@pytest.mark.parametrize(
    ("resource", "capacity", "paused"),
    [
        ("total", 4, False),
        ("host:h1", 7, False),  # its own
        ("host:h2", 5, False),  # that of its kind
        ("target:t1", 3, True),  # paused, with the default
        ("domain:d1", 3, False),
    ],
)
def test_a_limit_is_its_own_or_that_of_its_kind_or_the_default(resource: str, capacity: int, paused: bool) -> None:
    found = [
        Setting(resource="host:h1", capacity=7),
        Setting(resource="host", capacity=5),
        Setting(resource="target:t1", paused=True),
    ]
    limit = Limits(defaults=DEFAULTS, settings={setting.resource: setting for setting in found}, at=NOW).of(resource)
    assert (limit.capacity, limit.paused) == (capacity, paused)


def test_room_is_what_is_left_and_none_where_it_is_paused() -> None:
    settings = {"target:t1": Setting(resource="target:t1", paused=True), "total": Setting(resource="total", capacity=1)}
    limits = Limits(defaults=DEFAULTS, settings=settings, at=NOW)
    free = room(limits, {"total": 5, "host:h1": 1}, ["total", "host:h1", "host:h2", "target:t1"])
    assert free == {"total": 0, "host:h1": 1, "host:h2": 2, "target:t1": 0}


@pytest.mark.parametrize("name", ["", "disk:1", "host:", "total:all", "hosts", ":x"])
def test_what_is_no_resource(name: str) -> None:
    with pytest.raises(BadRequest, match="is not the name of a resource"):
        kind_of(name)


def test_names_of_resources() -> None:
    assert kind_of("domain:fast:1") is ResourceKind.DOMAIN
    assert [is_general(name) for name in ("total", "host", "host:h1")] == [False, True, False]
    assert [in_words(name) for name in ("total", "host:h1", "domain:d")] == ["the total", "host h1", "storage domain d"]


def test_priority_comes_before_age_and_age_before_place() -> None:
    ranks = [
        rank(Priority.RESTORE, "2026-01-02", 0),
        rank(Priority.ASKED, "2026-01-02", 0),
        rank(Priority.PLANNED, "2026-01-01", 2),
        rank(Priority.PLANNED, "2026-01-01", 11),
        rank(Priority.PLANNED, "2026-01-02", 0),
    ]
    assert ranks == sorted(ranks)


def test_a_full_resource_holds_up_only_those_that_need_it() -> None:
    line = [waiting("1", "t", "h1"), waiting("2", "t", "h1"), waiting("3", "t", "h2")]
    assert names(admit(line, {"t": 2, "h1": 1, "h2": 1})) == ["1", "3"]
    assert names(admit(line, {"t": 2, "h1": 0, "h2": 1})) == ["3"]
    assert names(admit(line, {"t": 1, "h1": 1, "h2": 1})) == ["1"]


def test_one_that_is_overdue_keeps_one_slot_of_each_of_its_needs() -> None:
    """It needs a, which is full, and b: a slot of b stays free for it, the second one does not."""
    line = [waiting("1", "a", "b", overdue=True), waiting("2", "a", "b", overdue=True), waiting("3", "b")]
    assert names(admit(line, {"a": 0, "b": 1})) == []
    assert names(admit(line, {"a": 0, "b": 2})) == ["3"]
    line[0] = line[1] = waiting("1", "a", "b")
    assert names(admit([line[0], line[2]], {"a": 0, "b": 1})) == ["3"]


def test_one_that_needs_much_is_not_passed_by_for_ever() -> None:
    """Of two resources with one slot each, one is always taken by those who need it alone, and they never end."""
    held: list[str] = ["a"]
    for turn in range(6):
        free = {"a": int("a" not in held), "b": int("b" not in held)}
        begun = admit([waiting("0", "a", "b", overdue=turn >= 3), waiting("1", "a"), waiting("2", "b")], free)
        if "0" in names(begun):
            return
        held += [need for one in begun for need in one.needs]
        held.pop(0)  # the oldest ends
    pytest.fail("it never began")


SHOP = workload("shop")


def test_vms_of_a_workload_that_is_serial_begin_in_their_order() -> None:
    """The host of the first is full: the second could begin, and waits; another workload's goes by."""
    line = [waiting("1", SHOP, "h1"), waiting("2", SHOP, "h2"), waiting("3", "h2")]
    free = {SHOP: 1, "h1": 0, "h2": 2}
    assert names(admit(line, free, ordered={SHOP})) == ["3"]
    assert names(admit(line, free)) == ["2", "3"], "with more than one at once the order does not matter"
    assert names(admit(line, {**free, "h1": 1}, ordered={SHOP})) == ["1", "3"]


def test_who_waits_for_his_own_workload_keeps_nothing_from_others() -> None:
    line = [waiting("1", SHOP, "h1", overdue=True), waiting("2", "h1")]
    assert names(admit(line, {SHOP: 0, "h1": 1}, ordered={SHOP})) == ["2"]
    assert names(admit(line, {SHOP: 1, "h1": 0}, ordered={SHOP})) == []


def test_a_workload_has_as_many_slots_as_it_says_and_no_default() -> None:
    settings = {SHOP: Setting(resource=SHOP, capacity=1), "workload:big": Setting(resource="workload:big", capacity=2)}
    limits = Limits(defaults=DEFAULTS, settings=settings, at=NOW)
    assert in_order(limits, ["total", SHOP, "workload:big", "workload:free"]) == {SHOP}
    assert room(limits, {}, ["workload:free"])["workload:free"] > 1000
    assert in_words(SHOP) == "its workload"


GROUP = group("job")


def test_a_group_begins_together_or_not_at_all() -> None:
    line = [waiting("1", GROUP, "h1"), waiting("2", "h2"), waiting("3", GROUP, "h2")]
    free = {GROUP: 100, "h1": 1, "h2": 1}
    assert names(admit(line, free)) == ["1", "3"]
    assert names(admit(line, {**free, "h1": 0})) == ["2"]
    assert names(admit(line, {**free, "h2": 2})) == ["1", "3", "2"]
    assert names(admit([*line, waiting("4", GROUP, "h1")], free)) == ["2"]


def test_a_group_that_is_overdue_keeps_as_many_slots_as_it_needs() -> None:
    line = [waiting("1", GROUP, "t", overdue=True), waiting("2", GROUP, "t"), waiting("3", "t"), waiting("4", "t")]
    assert names(admit(line, {GROUP: 100, "t": 1})) == []
    assert names(admit(line, {GROUP: 100, "t": 2})) == ["1", "2"]
    late = [*line[:2], waiting("2a", GROUP, "t"), *line[2:]]
    assert names(admit(late, {GROUP: 100, "t": 2})) == []


RESOURCES = ["a", "b", "c", "d"]


@given(
    st.lists(st.tuples(st.sets(st.sampled_from(RESOURCES), min_size=1), st.booleans()), max_size=30),
    st.fixed_dictionaries({name: st.integers(0, 5) for name in RESOURCES}),
)
def test_limits_are_kept_and_the_first_that_fits_begins(
    line: list[tuple[set[str], bool]], free: dict[str, int]
) -> None:
    asked = [waiting(f"{n:03d}", *sorted(needs), overdue=overdue) for n, (needs, overdue) in enumerate(line)]
    begun = admit(asked, free)
    for name in RESOURCES:
        assert sum(name in one.needs for one in begun) <= free[name]
    if asked and all(free[need] > 0 for need in asked[0].needs):
        assert begun[0] == asked[0]
    if not any(one.overdue for one in asked):  # nothing is left idle without a reason
        left = {name: free[name] - sum(name in one.needs for one in begun) for name in RESOURCES}
        assert not [one for one in asked if one not in begun and all(left[need] > 0 for need in one.needs)]
