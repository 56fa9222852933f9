# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits that are others in windows of the week: which holds, and when the next one does."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overkeep.model.admission import Change, Limits, ResourceKind, Setting, SlotsWindow, room, until_in_words
from overkeep.model.cron import BadSchedule

DAY = SlotsWindow(when="mon-fri 08:00-18:00", capacity=1)
SHUT = SlotsWindow(when="sun 00:00-24:00", capacity=0)
BERLIN = "Europe/Berlin"


def at(text: str, zone: str = BERLIN) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(dt.UTC)


def limits(*found: Setting, now: dt.datetime) -> Limits:
    return Limits(defaults={ResourceKind.HOST: 2}, settings={each.resource: each for each in found}, at=now)


def of_hosts(*windows: SlotsWindow, zone: str = BERLIN, capacity: int | None = 4) -> Setting:
    return Setting(resource="host", capacity=capacity, windows=windows, zone=zone)


@pytest.mark.parametrize(
    ("now", "capacity", "until", "then"),
    [
        ("2026-11-27T07:59", 4, "2026-11-27T08:00", 1),  # a Friday
        ("2026-11-27T08:00", 1, "2026-11-27T18:00", 4),
        ("2026-11-27T17:59:59", 1, "2026-11-27T18:00", 4),
        ("2026-11-27T18:00", 4, "2026-11-29T00:00", 0),
        ("2026-11-29T12:00", 0, "2026-11-30T00:00", 4),
    ],
)
def test_what_holds_at_a_time_of_the_week(now: str, capacity: int, until: str, then: int) -> None:
    found = limits(of_hosts(DAY, SHUT), now=at(now))
    assert found.of("host:h1").capacity == capacity
    assert found.of("host:h1").closed is (capacity == 0)
    assert found.change_of("host:h1") == Change(at=at(until), capacity=then, zone=BERLIN)
    assert room(found, {"host:h1": 1}, ["host:h1"]) == {"host:h1": max(0, capacity - 1)}
    assert (found.usual("host:h1"), found.most("host:h1")) == (4, 4)


def test_the_clocks_are_those_of_the_zone() -> None:
    now = dt.datetime(2026, 11, 27, 7, 30, tzinfo=dt.UTC)
    assert limits(of_hosts(DAY), now=now).of("host:h1").capacity == 1
    assert limits(of_hosts(DAY, zone="UTC"), now=now).of("host:h1").capacity == 4


def test_the_first_window_that_is_open_counts() -> None:
    noon = SlotsWindow(when="12:00-13:00", capacity=9)
    for windows, capacity in (((noon, DAY), 9), ((DAY, noon), 1)):
        assert limits(of_hosts(*windows), now=at("2026-11-27T12:30")).of("host:h1").capacity == capacity


def test_a_resource_of_its_own_is_asked_before_its_kind() -> None:
    own = Setting(resource="host:h1", windows=(SlotsWindow(when="10:00-12:00", capacity=3),), zone="UTC")
    found = limits(own, of_hosts(DAY), now=dt.datetime(2026, 11, 27, 10, 30, tzinfo=dt.UTC))
    assert found.of("host:h1").capacity == 3
    assert found.change_of("host:h1") == Change(at=at("2026-11-27T12:00", "UTC"), capacity=1, zone="UTC")
    assert found.of("host:h2").capacity == 1
    numbered = Setting(resource="host:h2", capacity=6)
    assert limits(numbered, of_hosts(DAY), now=at("2026-11-27T12:00")).of("host:h2").capacity == 6
    assert limits(numbered, of_hosts(DAY), now=at("2026-11-27T12:00")).change_of("host:h2") is None


def test_outside_of_all_windows_the_default_holds() -> None:
    found = limits(of_hosts(DAY, capacity=None), now=at("2026-11-27T20:00"))
    assert (found.of("host:h1").capacity, found.usual("host:h1"), found.most("host:h1")) == (2, 2, 2)
    assert found.change_of("total") is None


def test_the_best_time_may_be_a_window() -> None:
    night = SlotsWindow(when="22:00-06:00", capacity=12)
    assert limits(of_hosts(DAY, night), now=at("2026-11-27T12:00")).most("host:h1") == 12


def test_a_window_that_changes_nothing_is_no_change() -> None:
    for window in (SlotsWindow(when="08:00-18:00", capacity=4), SlotsWindow(when="00:00-24:00", capacity=1)):
        assert limits(of_hosts(window), now=at("2026-11-27T07:00")).change_of("host") is None


def test_in_words() -> None:
    change = Change(at=at("2026-11-27T18:00"), capacity=4, zone=BERLIN)
    assert until_in_words(change) == "until fri 18:00 (Europe/Berlin)"


@pytest.mark.parametrize("when", ["", "nights", "mon 25:00-26:00", "mon-xyz 08:00-18:00"])
def test_what_is_no_window(when: str) -> None:
    with pytest.raises(BadSchedule):
        SlotsWindow(when=when, capacity=1)


def test_what_is_no_zone() -> None:
    with pytest.raises(BadSchedule, match="Mars"):
        of_hosts(DAY, zone="Mars/Olympus")


TIMES = st.integers(0, 47).map(lambda half: f"{half // 2:02}:{30 * (half % 2):02}")
WINDOWS = st.builds(
    lambda days, begin, end, capacity: SlotsWindow(when=f"{days} {begin}-{end}", capacity=capacity),
    st.sampled_from(["mon-fri", "sat,sun", "sun", "mon-sun"]),
    TIMES,
    TIMES,
    st.integers(0, 3),
)
# days around the changes of clocks, where local times are skipped or come twice
CHANGES = [
    (BERLIN, "2026-03-28"),
    (BERLIN, "2026-10-24"),
    ("America/New_York", "2026-10-31"),
    ("Asia/Kolkata", "2026-05-01"),
]


@settings(max_examples=25, deadline=None)
@given(st.lists(WINDOWS, min_size=1, max_size=3), st.sampled_from(CHANGES), st.integers(0, 47 * 60), st.integers(0, 59))
def test_a_change_is_the_first_minute_in_which_another_number_holds(
    windows: list[SlotsWindow], day: tuple[str, str], minute: int, second: int
) -> None:
    zone, date = day
    now = dt.datetime.fromisoformat(f"{date}T00:00+00:00") + dt.timedelta(minutes=minute, seconds=second)
    setting = of_hosts(*windows, zone=zone)
    change = limits(setting, now=now).change_of("host")
    first = now.replace(second=0) + dt.timedelta(minutes=1)
    week = (first + dt.timedelta(minutes=ahead) for ahead in range(7 * 24 * 60))
    expected = next((one for one in week if setting.at(one) != setting.at(now)), None)
    assert expected is None or (change is not None and change.at == expected)
    assert change is None or change.capacity == setting.at(change.at) != setting.at(now)
