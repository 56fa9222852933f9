# SPDX-License-Identifier: GPL-3.0-or-later
"""Which points stay and why: tables of cases, and what holds for every set of points and rules."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overkeep.errors import BadRequest
from overkeep.model.cron import BadSchedule
from overkeep.model.retention import Candidate, Retention, decide, foresee, kept
from overkeep.model.schedule import Schedule

NOW = dt.datetime(2026, 11, 26, 12, 0, tzinfo=dt.UTC)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(f"{text}+00:00")


def points(*times: str) -> list[Candidate]:
    return [Candidate(id=time, created=at(time)) for time in times]


def every(step: dt.timedelta, count: int) -> list[Candidate]:
    times = [NOW - number * step for number in range(count)]
    return [Candidate(id=time.isoformat(), created=time) for time in times]


DAILY = [f"2026-11-{day:02}T22:00" for day in range(1, 26)]
# (rules, points, those that stay, newest first)
CASES: dict[str, tuple[Retention, list[str], list[str]]] = {
    "no rule": (Retention(), ["2020-01-01T00:00", "2026-01-01T00:00"], ["2026-01-01T00:00", "2020-01-01T00:00"]),
    "by count": (Retention(last=3), DAILY, ["2026-11-25T22:00", "2026-11-24T22:00", "2026-11-23T22:00"]),
    "more than there are": (Retention(last=99), DAILY[:2], ["2026-11-02T22:00", "2026-11-01T22:00"]),
    "by days": (Retention(days=2), DAILY, ["2026-11-25T22:00", "2026-11-24T22:00"]),
    "by days, to the second": (
        Retention(days=1),
        ["2026-11-25T12:00", "2026-11-25T12:00:01"],
        ["2026-11-25T12:00:01"],
    ),
    "all are too old: the newest stays": (Retention(days=1), DAILY[:3], ["2026-11-03T22:00"]),
    "the newest of an hour": (
        Retention(hourly=2),
        ["2026-11-26T09:59", "2026-11-26T10:01", "2026-11-26T10:30", "2026-11-26T11:00"],
        ["2026-11-26T11:00", "2026-11-26T10:30"],
    ),
    "the newest of a day": (
        Retention(daily=2),
        ["2026-11-24T01:00", "2026-11-25T01:00", "2026-11-25T13:00"],
        ["2026-11-25T13:00", "2026-11-24T01:00"],
    ),
    "days without a point do not count": (
        Retention(daily=2),
        ["2026-10-01T01:00", "2026-10-02T01:00", "2026-11-25T13:00"],
        ["2026-11-25T13:00", "2026-10-02T01:00"],
    ),
    "weeks begin on Monday": (
        Retention(weekly=2),
        ["2026-11-15T22:00", "2026-11-16T22:00", "2026-11-22T22:00", "2026-11-23T22:00"],
        ["2026-11-23T22:00", "2026-11-22T22:00"],
    ),
    "a week over the end of the year is one": (
        Retention(weekly=2),
        ["2020-12-25T22:00", "2020-12-31T22:00", "2021-01-02T22:00", "2021-01-05T22:00"],
        ["2021-01-05T22:00", "2021-01-02T22:00"],
    ),
    "months and years": (
        Retention(monthly=2, yearly=2),
        ["2024-05-01T00:00", "2025-03-01T00:00", "2025-08-01T00:00", "2026-10-05T00:00", "2026-11-05T00:00"],
        ["2026-11-05T00:00", "2026-10-05T00:00", "2025-08-01T00:00", "2024-05-01T00:00"],
    ),
    "a rule passes over what one before it holds": (
        Retention(last=2, daily=2),
        ["2026-11-22T22:00", "2026-11-23T22:00", "2026-11-24T22:00", "2026-11-25T21:00", "2026-11-25T22:00"],
        ["2026-11-25T22:00", "2026-11-25T21:00", "2026-11-24T22:00", "2026-11-23T22:00"],
    ),
    "grandfather, father, son": (
        Retention(daily=3, weekly=2, monthly=1),
        ["2026-10-31T22:00", *DAILY],
        [
            *("2026-11-25T22:00", "2026-11-24T22:00", "2026-11-23T22:00"),
            *("2026-11-22T22:00", "2026-11-15T22:00"),
            "2026-10-31T22:00",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_stays(case: str) -> None:
    retention, times, expected = CASES[case]
    marks = decide(points(*times), retention, now=NOW)
    assert [mark.id for mark in kept(marks)] == expected
    assert len(marks) == len(times)


def test_the_day_is_that_of_the_zone() -> None:
    times = ["2026-11-24T22:30", "2026-11-24T23:30"]
    assert len(kept(decide(points(*times), Retention(daily=2), now=NOW))) == 1
    assert len(kept(decide(points(*times), Retention(daily=2, zone="Europe/Berlin"), now=NOW))) == 2


def test_an_hour_that_comes_twice_is_two() -> None:
    times = ["2026-10-25T00:30", "2026-10-25T01:30"]
    assert len(kept(decide(points(*times), Retention(hourly=2, zone="Europe/Berlin"), now=NOW))) == 2


def test_reasons_are_told() -> None:
    marks = decide(
        points(*DAILY[-9:]), Retention(last=1, days=1, daily=2, weekly=1), now=NOW, held={DAILY[-9]: "pinned"}
    )
    assert [(mark.id[8:10], mark.reasons) for mark in marks] == [
        ("25", ("last, 1 of 1", "younger than 1 days", "it is the newest")),
        ("24", ("daily 2026-11-24, 1 of 2",)),
        ("23", ("daily 2026-11-23, 2 of 2",)),
        ("22", ("weekly 2026-W47, 1 of 1",)),
        ("21", ()),
        ("20", ()),
        ("19", ()),
        ("18", ()),
        ("17", ("pinned",)),
    ]


def test_rules_that_cannot_be() -> None:
    with pytest.raises(BadRequest, match="-1"):
        Retention(daily=-1)
    with pytest.raises(BadSchedule, match="time zone"):
        Retention(daily=1, zone="Nowhere")


COUNTS = st.integers(0, 5)
RULES = st.builds(
    Retention,
    last=COUNTS,
    days=st.integers(0, 60),
    hourly=COUNTS,
    daily=COUNTS,
    weekly=COUNTS,
    monthly=COUNTS,
    yearly=COUNTS,
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
)
AGES = st.one_of(st.integers(0, 3 * 86400), st.integers(0, 3 * 365 * 86400))
SOME = st.lists(AGES, max_size=60, unique=True).map(
    lambda ages: [Candidate(id=str(age), created=NOW - dt.timedelta(seconds=age)) for age in ages]
)


@settings(deadline=None)
@given(SOME, RULES, st.randoms(use_true_random=False))
def test_for_every_set_of_points(candidates: list[Candidate], retention: Retention, random: object) -> None:
    held = {point.id: "pinned" for point in candidates[::7]}
    marks = decide(candidates, retention, now=NOW, held=held)
    stay = {mark.id for mark in kept(marks)}
    assert sorted(mark.id for mark in marks) == sorted(point.id for point in candidates), "each point is marked once"
    assert set(held) <= stay
    if candidates:
        assert max(candidates, key=lambda point: point.created).id in stay
        assert len(stay) >= min(len(candidates), retention.last)
    # what is held changes nothing about the others
    free = {mark.id for mark in kept(decide(candidates, retention, now=NOW))}
    assert stay == free | set(held)
    # the order in which the points are given does not matter
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decide(shuffled, retention, now=NOW, held=held) == marks
    # done once, there is nothing left to do
    left = [point for point in candidates if point.id in stay]
    assert {mark.id for mark in kept(decide(left, retention, now=NOW, held=held))} == stay


@settings(deadline=None)
@given(SOME, RULES)
def test_each_rule_keeps_what_it_says(candidates: list[Candidate], retention: Retention) -> None:
    marks = decide(candidates, retention, now=NOW)
    if retention.keeps_all:
        assert len(kept(marks)) == len(marks)
        return
    newest = sorted(candidates, key=lambda point: point.created, reverse=True)
    by_id = {mark.id: mark for mark in marks}
    assert all(by_id[point.id].kept for point in newest[: retention.last])
    young = [point for point in newest if NOW - point.created < dt.timedelta(days=retention.days)]
    assert all(by_id[point.id].kept for point in young)
    for rule in ("hourly", "daily", "weekly", "monthly", "yearly"):
        count = sum(any(reason.startswith(rule) for reason in mark.reasons) for mark in marks)
        assert count <= getattr(retention, rule)


@pytest.mark.parametrize(
    ("when", "retention", "runs", "most", "left"),
    [
        ("daily at 22:00", Retention(last=3), 365, 3, 3),
        ("daily at 22:00", Retention(), 365, 365, 365),
        # 7 days and 4 weeks hold points of December and November: ten months are left of the twelve
        ("daily at 22:00", Retention(daily=7, weekly=4, monthly=12), 365, 21, 21),
        ("hourly", Retention(hourly=24, daily=7), 8760, 31, 31),
        ("daily at 22:00", Retention(days=30), 365, 30, 30),
    ],
)
def test_a_year_is_foreseen(when: str, retention: Retention, runs: int, most: int, left: int) -> None:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    seen = foresee([Schedule(when=when)], retention, start=start - dt.timedelta(seconds=1))
    assert (seen.runs, seen.most_points, len(seen.marks)) == (runs, most, left)


def test_what_is_foreseen_is_what_the_decision_leaves() -> None:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    seen = foresee([Schedule(when="every 12 hours")], Retention(daily=7, weekly=4, yearly=1), start=start)
    [newest, *_] = seen.marks
    assert newest.created == seen.until
    left = [Candidate(id=mark.id, created=mark.created) for mark in seen.marks]
    assert decide(left, Retention(daily=7, weekly=4, yearly=1), now=seen.until) == seen.marks


def test_a_schedule_that_never_runs_keeps_nothing() -> None:
    seen = foresee([Schedule(when="hourly", enabled=False)], Retention(last=3), start=NOW)
    assert (seen.runs, seen.most_points, seen.marks) == (0, 0, ())
