# SPDX-License-Identifier: GPL-3.0-or-later
"""Which restore points of a VM stay, and why: a decision over values, before anything is removed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from types import MappingProxyType

from overkeep.errors import BadRequest
from overkeep.model.schedule import Schedule, known_zone, runs

_NOBODY: Mapping[str, str] = MappingProxyType({})
_MOST_RUNS = 10_000  # of a preview: every hour for a year, and nobody waits for the answer


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How many points stay; 0 is a rule that is not used. Without any rule every point stays.

    The rules are looked at in this order, each over the points from the newest to the oldest:

    `last`: the newest points. `days`: every point younger than so many days of 24 hours. `hourly` to `yearly`: the
    newest point of so many hours, days, weeks (of ISO 8601, from Monday), months and years of the calendar in `zone`
    in which there are points; periods that a rule before it holds a point of are passed over and do not count.

    The newest point always stays.
    """

    last: int = 0
    days: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    zone: str = "UTC"

    def __post_init__(self) -> None:
        known_zone(self.zone)
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 0:
                raise BadRequest(what=f"A retention of {value} ({field.name}) cannot be", todo="give 0 or more")

    @property
    def keeps_all(self) -> bool:
        """Whether there is no rule."""
        return not any((self.last, self.days, *(getattr(self, name) for name in _PERIODS)))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A point as far as retention looks at it."""

    id: str
    created: dt.datetime


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What becomes of a point: it stays for at least one reason, or it is removed."""

    id: str
    created: dt.datetime
    reasons: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


def decide(
    points: Iterable[Candidate], retention: Retention, *, now: dt.datetime, held: Mapping[str, str] = _NOBODY
) -> tuple[Mark, ...]:
    """Mark all points of one VM, newest first.

    `held` are the reasons, by point, for which a point must stay whatever the rules say: it is pinned, it is being
    restored. They change nothing about the other points.
    """
    ordered = sorted(points, key=lambda point: (point.created, point.id), reverse=True)
    reasons = _by_rules(ordered, retention, now) if not retention.keeps_all else _all(ordered)
    for point in ordered[:1]:
        reasons.setdefault(point.id, []).append("it is the newest")
    for point in ordered:
        if point.id in held:
            reasons.setdefault(point.id, []).append(held[point.id])
    return tuple(Mark(id=p.id, created=p.created, reasons=tuple(reasons.get(p.id, ()))) for p in ordered)


def _all(ordered: Sequence[Candidate]) -> dict[str, list[str]]:
    return {point.id: ["no rule removes points"] for point in ordered}


def _by_rules(ordered: Sequence[Candidate], retention: Retention, now: dt.datetime) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for number, point in enumerate(ordered[: retention.last], start=1):
        reasons.setdefault(point.id, []).append(f"last, {number} of {retention.last}")
    oldest = now - dt.timedelta(days=min(retention.days, 100_000))
    for point in ordered:
        if retention.days and point.created > oldest:
            reasons.setdefault(point.id, []).append(f"younger than {retention.days} days")
    in_periods = {point.id: _periods(point.created, retention.zone) for point in ordered}
    for index, name in enumerate(_PERIODS):
        count = getattr(retention, name)
        periods = {key: found[index] for key, found in in_periods.items()}
        for number, chosen in enumerate(_newest_of_periods(periods, count, kept=reasons), start=1):
            reasons.setdefault(chosen, []).append(f"{name} {periods[chosen]}, {number} of {count}")
    return reasons


@lru_cache(maxsize=4096)
def _periods(created: dt.datetime, zone: str) -> tuple[str, ...]:
    """The hour, day, week, month and year of a point; a preview asks for those of one point again and again."""
    local = created.astimezone(known_zone(zone))
    return tuple(period(local) for period in _PERIODS.values())


def _newest_of_periods(periods: Mapping[str, str], count: int, *, kept: Collection[str]) -> list[str]:
    """The newest point of each of `count` periods that hold none of `kept`; `periods` are newest first."""
    covered = {period for point, period in periods.items() if point in kept}
    chosen: list[str] = []
    for point, period in periods.items():
        if len(chosen) == count:
            break
        if period not in covered:
            covered.add(period)
            chosen.append(point)
    return chosen


def _week(time: dt.datetime) -> str:
    year, week, _ = time.isocalendar()
    return f"{year}-W{week:02}"


# In the order in which they are looked at. An hour that comes twice is two: its offset tells them apart.
_PERIODS: Mapping[str, Callable[[dt.datetime], str]] = MappingProxyType(
    {
        "hourly": lambda time: f"{time:%Y-%m-%d %H}:00{time:%z}",
        "daily": lambda time: f"{time:%Y-%m-%d}",
        "weekly": _week,
        "monthly": lambda time: f"{time:%Y-%m}",
        "yearly": lambda time: f"{time:%Y}",
    }
)


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """What a schedule and a retention lead to: how many runs, the most points at once, and what is there at the end."""

    runs: int
    until: dt.datetime
    most_points: int
    marks: tuple[Mark, ...]


def foresee(schedules: Iterable[Schedule], retention: Retention, *, start: dt.datetime, days: int = 365) -> Foresight:
    """What is there after `days` of runs that all succeed, each followed by what the retention removes.

    Of schedules that run more than ten thousand times in that time only the first ten thousand runs are foreseen.
    """
    planned = runs(schedules, start, start + dt.timedelta(days=days), most=_MOST_RUNS)
    there: tuple[Mark, ...] = ()
    most = 0
    for run in planned:
        new = Candidate(id=run.isoformat(), created=run)
        there = kept(decide((new, *_candidates(there)), retention, now=run))
        most = max(most, len(there))
    until = planned[-1] if planned else start
    return Foresight(runs=len(planned), until=until, most_points=most, marks=there)


def kept(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Those that stay."""
    return tuple(mark for mark in marks if mark.kept)


def _candidates(marks: Iterable[Mark]) -> Iterable[Candidate]:
    return (Candidate(id=mark.id, created=mark.created) for mark in marks)
