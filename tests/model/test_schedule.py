# SPDX-License-Identifier: GPL-3.0-or-later
"""When schedules run: forms, zones whose clocks change, windows, missed runs."""

from __future__ import annotations

import datetime as dt
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overkeep.model.cron import BadSchedule, expression, local_times
from overkeep.model.schedule import Schedule, due, next_run, runs

BERLIN, NEW_YORK, LORD_HOWE, KOLKATA = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"


def at(text: str) -> dt.datetime:
    """An instant; without an offset in UTC."""
    found = dt.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def local(instants: object, zone: str) -> list[str]:
    return [f"{instant.astimezone(ZoneInfo(zone)):%m-%d %H:%M%z}" for instant in instants]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("when", "fields"),
    [
        ("daily at 22:00", "0 22 * * *"),
        ("Every day at 7:05", "5 7 * * *"),
        ("hourly", "0 * * * *"),
        ("every hour at :30", "30 * * * *"),
        ("every 4 hours", "0 0,4,8,12,16,20 * * *"),
        ("every 24 hours at :15", "15 0 * * *"),
        ("weekly on mon,thu at 22:00", "0 22 * * MON,THU"),
        ("weekly on mon-wed, sat at 1:00", "0 1 * * MON,TUE,WED,SAT"),
        ("weekly on sat-mon at 1:00", "0 1 * * MON,SAT,SUN"),
        ("monthly on 1,15,last at 03:00", "0 3 1,15,L * *"),
        ("*/15 8-18/2 * jan-mar mon-fri", "*/15 8-18/2 * JAN-MAR MON-FRI"),
    ],
)
def test_forms(when: str, fields: str) -> None:
    assert expression(when) == fields


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ("every 5 hours", "must be one of"),
        ("weekly on someday at 1:00", "'someday' is no day"),
        ("monthly on 32 at 1:00", "day-of-month"),
        ("monthly on soon at 1:00", "day-of-month"),
        ("daily at 25:00", "hour"),
        ("daily at 22:61", "minute"),
        ("whenever", "five fields"),
        ("0 0 0 * * *", "five fields"),
        ("61 * * * *", "minute"),
        ("0 0 31 2 *", "day"),
        ("*/0 * * * *", "minute"),
        ("", "five fields"),
    ],
)
def test_what_is_no_schedule_is_said(when: str, reason: str) -> None:
    with pytest.raises(BadSchedule, match=reason) as caught:
        Schedule(when=when)
    assert caught.value.status == 400


def test_a_zone_a_window_and_an_end_that_cannot_be() -> None:
    for wrong in (
        {"zone": "Europe/Nowhere"},
        {"zone": "../etc/passwd"},
        {"windows": ("8-18",)},
        {"blackouts": ("25:00-26:00",)},
    ):
        with pytest.raises(BadSchedule):
            Schedule(when="hourly", **wrong)
    with pytest.raises(BadSchedule, match="before it starts"):
        Schedule(when="hourly", start=dt.date(2026, 2, 1), end=dt.date(2026, 1, 1))


# (form, zone, after, the runs that follow on the wall)
CLOCKS = {
    "Berlin, spring: 02:30 is skipped": (
        "daily at 02:30", BERLIN, "2026-03-28T12:00", ["03-29 03:00+0200", "03-30 02:30+0200"],
    ),
    "Berlin, spring: all of the hour is one run": (
        "*/15 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00+0200", "03-30 02:00+0200"],
    ),
    "Berlin, spring: a named hour after the gap is not run twice": (
        "0 2,3 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00+0200", "03-30 02:00+0200"],
    ),
    "Berlin, autumn: 02:30 comes twice": (
        "daily at 02:30", BERLIN, "2026-10-24T12:00", ["10-25 02:30+0200", "10-26 02:30+0100"],
    ),
    "Berlin, autumn: every hour that passes": (
        "hourly", BERLIN, "2026-10-24T23:30", ["10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100"],
    ),
    "Berlin, spring: every hour that passes": (
        "hourly", BERLIN, "2026-03-29T00:30", ["03-29 03:00+0200", "03-29 04:00+0200"],
    ),
    "Berlin, autumn: every two hours, by the wall": (
        "every 2 hours", BERLIN, "2026-10-24T21:00", ["10-25 00:00+0200", "10-25 02:00+0200", "10-25 04:00+0100"],
    ),
    "New York, spring": ("daily at 02:30", NEW_YORK, "2026-03-07T12:00", ["03-08 03:00-0400", "03-09 02:30-0400"]),
    "New York, autumn": ("daily at 01:30", NEW_YORK, "2026-10-31T12:00", ["11-01 01:30-0400", "11-02 01:30-0500"]),
    "Lord Howe, spring: half an hour is skipped": (
        "daily at 02:15", LORD_HOWE, "2026-10-03T12:00", ["10-04 02:30+1100", "10-05 02:15+1100"],
    ),
    "Lord Howe, autumn: half an hour comes twice": (
        "daily at 01:45", LORD_HOWE, "2026-04-04T12:00", ["04-05 01:45+1100", "04-06 01:45+1030"],
    ),
    "Kolkata": ("daily at 00:00", KOLKATA, "2026-05-01T00:00", ["05-02 00:00+0530", "05-03 00:00+0530"]),
    "Apia skipped a day": (
        "daily at 12:00", "Pacific/Apia", "2011-12-29T12:00",
        ["12-29 12:00-1000", "12-31 00:00+1400", "12-31 12:00+1400"],
    ),
    "month ends": (
        "monthly on last at 23:00", "UTC", "2027-12-31T23:30",
        ["01-31 23:00+0000", "02-29 23:00+0000", "03-31 23:00+0000"],
    ),
    "the 31st": ("monthly on 31 at 01:00", "UTC", "2026-01-31T02:00", ["03-31 01:00+0000", "05-31 01:00+0000"]),
    "a day of the month or of the week": (
        "0 0 13 * FRI", "UTC", "2026-11-09T00:00", ["11-13 00:00+0000", "11-20 00:00+0000", "11-27 00:00+0000"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CLOCKS)
def test_clocks(case: str) -> None:
    when, zone, after, expected = CLOCKS[case]
    assert local(islice(local_times(when, at(after), ZoneInfo(zone)), len(expected)), zone) == expected


def test_a_run_is_after_the_instant_itself() -> None:
    daily = Schedule(when="daily at 22:00")
    assert daily.next_after(at("2026-01-01T22:00")) == at("2026-01-02T22:00")
    assert daily.next_after(at("2026-01-01T21:59:59")) == at("2026-01-01T22:00")
    assert daily.between(at("2026-01-01T22:00"), at("2026-01-03T22:00")) == (
        at("2026-01-02T22:00"),
        at("2026-01-03T22:00"),
    )


def test_first_and_last_day_are_those_of_the_zone() -> None:
    limited = Schedule(when="hourly", zone=NEW_YORK, start=dt.date(2026, 5, 2), end=dt.date(2026, 5, 3))
    found = limited.between(at("2026-01-01T00:00"), at("2026-12-31T00:00"))
    assert local((found[0], found[-1]), NEW_YORK) == ["05-02 00:00-0400", "05-03 23:00-0400"]
    assert len(found) == 48
    assert limited.next_after(found[-1]) is None


def test_windows_and_blackouts() -> None:
    night = Schedule(
        when="hourly", zone=BERLIN, windows=("mon-fri 22:00-02:00", "sun 12:00-13:00"), blackouts=("wed 23:00-24:00",)
    )
    week = night.between(at("2026-06-01T00:00+02:00") - dt.timedelta(seconds=1), at("2026-06-07T23:59+02:00"))
    by_day = [f"{run.astimezone(ZoneInfo(BERLIN)):%a %H}" for run in week]
    assert by_day == [
        "Mon 22", "Mon 23", "Tue 00", "Tue 01", "Tue 22", "Tue 23", "Wed 00", "Wed 01", "Wed 22", "Thu 00", "Thu 01",
        "Thu 22", "Thu 23", "Fri 00", "Fri 01", "Fri 22", "Fri 23", "Sat 00", "Sat 01", "Sun 12",
    ]  # fmt: skip


@pytest.mark.timeout(60)
def test_a_window_that_never_opens_is_no_endless_search() -> None:
    never = Schedule(when="* * * * *", windows=("mon 01:00-02:00",), blackouts=("00:00-24:00",))
    assert never.next_after(at("2026-01-01T00:00")) is None


def test_what_is_switched_off_never_runs() -> None:
    off = Schedule(when="hourly", enabled=False)
    assert off.next_after(at("2026-01-01T00:00")) is None
    assert due([off], at("2026-01-01T00:00"), at("2026-01-02T00:00")) is None
    assert next_run([off], at("2026-01-01T00:00")) is None


DAILY = Schedule(when="daily at 22:00")
DUE = {
    "not yet": ([DAILY], "2026-01-01T22:00", "2026-01-02T21:59", None),
    "on the minute": ([DAILY], "2026-01-01T22:00", "2026-01-02T22:00", "2026-01-02T22:00"),
    "late": ([DAILY], "2026-01-01T22:00", "2026-01-03T09:00", "2026-01-02T22:00"),
    "of many that were missed the last": ([DAILY], "2025-01-01T22:00", "2026-01-03T09:00", "2026-01-02T22:00"),
    "of several schedules the last": (
        [DAILY, Schedule(when="hourly")], "2026-01-02T20:30", "2026-01-03T00:10", "2026-01-03T00:00",
    ),
    "not while a blackout lasts": (
        [Schedule(when="daily at 22:00", blackouts=("08:00-18:00",))], "2026-01-01T23:00", "2026-01-03T09:00", None,
    ),
    "but after it": (
        [Schedule(when="daily at 22:00", blackouts=("08:00-18:00",))], "2026-01-01T23:00", "2026-01-03T18:00",
        "2026-01-02T22:00",
    ),
    "the clock was set back": ([DAILY], "2026-01-03T22:00", "2026-01-02T22:00", None),
    "the schedule has ended": (
        [Schedule(when="daily at 22:00", end=dt.date(2026, 1, 2))], "2026-01-01T23:00", "2026-01-03T09:00", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DUE)
def test_due(case: str) -> None:
    schedules, after, now, expected = DUE[case]
    assert due(schedules, at(after), at(now)) == (at(expected) if expected else None)


def test_runs_of_several_schedules_at_one_minute_are_one() -> None:
    both = [Schedule(when="every 12 hours"), Schedule(when="daily at 12:00")]
    assert len(runs(both, at("2026-01-01T00:00"), at("2026-01-02T00:00"))) == 2
    assert next_run(both, at("2026-01-01T00:00")) == at("2026-01-01T12:00")


FORMS = st.sampled_from(
    ["daily at 02:30", "every 2 hours", "hourly", "*/20 1,2 * * *", "weekly on sun at 02:15", "30 2 * * *"]
)
ZONES = st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, KOLKATA, "UTC", "America/St_Johns"])
INSTANTS = st.integers(0, 3650 * 86400).map(lambda seconds: at("2020-01-01T00:00") + dt.timedelta(seconds=seconds))


@settings(deadline=None, max_examples=60)
@given(FORMS, ZONES, INSTANTS)
def test_runs_rise_and_do_not_depend_on_where_one_begins_to_look(when: str, zone: str, start: dt.datetime) -> None:
    schedule = Schedule(when=when, zone=zone)
    found = schedule.between(start, start + dt.timedelta(days=30))
    assert all(a < b for a, b in pairwise(found))
    for run in found[:: max(1, len(found) // 5)]:
        assert schedule.between(run, start + dt.timedelta(days=30)) == found[found.index(run) + 1 :]
        assert schedule.last_between(start, run) == run


@settings(deadline=None, max_examples=40)
@given(ZONES, st.integers(2020, 2029), st.times())
def test_a_daily_schedule_runs_once_on_each_day(zone: str, year: int, time: dt.time) -> None:
    schedule = Schedule(when=f"daily at {time:%H:%M}", zone=zone)
    begin, end = (dt.datetime(y, 1, 1, tzinfo=ZoneInfo(zone)) for y in (year, year + 1))
    found = schedule.between(begin - dt.timedelta(seconds=1), end - dt.timedelta(seconds=1))
    days = [run.astimezone(ZoneInfo(zone)).date() for run in found]
    assert days == [dt.date(year, 1, 1) + dt.timedelta(days=n) for n in range((end.date() - begin.date()).days)]
