# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks and growth of targets, as tables of cases."""

from __future__ import annotations

import datetime as dt

import pytest

from overkeep.model.capacity import Fill, Marks, Sample, Space, days_until_full, fill, fill_after, growth

NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def space(used: int, *, size: int = 1000, kept: int = 0) -> Space:
    """A file system of `size` bytes, of which `kept` are not for us."""
    return Space(size=size, used=used, free=size - used - kept)


@pytest.mark.parametrize(
    ("used", "marks", "expected"),
    [
        (849, Marks(), Fill.OK),
        (850, Marks(), Fill.HIGH),
        (949, Marks(), Fill.HIGH),
        (950, Marks(), Fill.FULL),
        (500, Marks(reserve=500), Fill.OK),
        (501, Marks(reserve=500), Fill.FULL),
        (501, Marks(high=50, full=100), Fill.HIGH),
        (1000, Marks(high=50, full=100), Fill.FULL),
    ],
)
def test_marks(used: int, marks: Marks, expected: Fill) -> None:
    assert fill(space(used), marks) is expected


def test_what_is_kept_for_others_is_not_free() -> None:
    assert space(900, kept=100).percent == 100.0
    assert Space(size=0, used=0, free=0).percent == 0.0


@pytest.mark.parametrize(
    ("before", "used", "expected"),
    [
        (Fill.OK, 850, Fill.HIGH),
        (Fill.HIGH, 845, Fill.HIGH),
        (Fill.HIGH, 839, Fill.OK),
        (Fill.FULL, 945, Fill.FULL),
        (Fill.FULL, 939, Fill.HIGH),
        (Fill.FULL, 845, Fill.HIGH),
        (Fill.FULL, 100, Fill.OK),
        (Fill.HIGH, 950, Fill.FULL),
    ],
)
def test_a_mark_is_left_only_with_a_margin(before: Fill, used: int, expected: Fill) -> None:
    assert fill_after(before, space(used), Marks()) is expected


def samples(*used: int, step: dt.timedelta = HOUR * 12) -> list[Sample]:
    return [Sample(time=NOON + number * step, space=space(each, size=10**6)) for number, each in enumerate(used)]


def test_growth_is_the_line_that_fits_best() -> None:
    assert growth(samples(100, 150, 200, 250)) == pytest.approx(100)
    assert growth(samples(250, 200, 150)) == pytest.approx(-100)
    assert growth(samples(100, 100, 100)) == pytest.approx(0)
    assert growth(samples(100, 160, 200, 240, 300)) == pytest.approx(96)


def test_too_little_tells_no_growth() -> None:
    assert growth([]) is None
    assert growth(samples(1, 2)) is None
    assert growth(samples(1, 2, 3, step=HOUR)) is None


def test_days_until_full() -> None:
    assert days_until_full(space(400), 100.0) == 6.0
    assert days_until_full(space(400), -1.0) is None
    assert days_until_full(space(400), 0.0) is None
    assert days_until_full(space(400), None) is None
