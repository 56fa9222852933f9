# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules: when a workload is backed up, decided from values alone; what time it is, is for others to know."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from overkeep.model.cron import BadSchedule, expression, local_times
from overkeep.model.windows import window

__all__ = ["BadSchedule", "Schedule", "due", "known_zone", "next_run", "runs"]

_SECOND = dt.timedelta(seconds=1)
_DAY = dt.timedelta(days=1)
_FORESEEN = 8 * 366 * _DAY  # the 29th of February comes again within it
_LOOKED_AT = 20_000  # times until the next run; every minute for two weeks, and windows open each week


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When to run, in `zone` (of the IANA data base).

    `when` is a simple form or five fields of cron (`overkeep.model.cron.expression`). `start` and `end` are the first
    and the last day. With `windows`, a run begins only in one of them; in `blackouts` none begins. What falls outside
    is not made up for. Raises `BadSchedule` when it is made of what cannot be understood.
    """

    when: str
    zone: str = "UTC"
    start: dt.date | None = None
    end: dt.date | None = None
    windows: tuple[str, ...] = ()
    blackouts: tuple[str, ...] = ()
    enabled: bool = True

    def __post_init__(self) -> None:
        expression(self.when)
        known_zone(self.zone)
        for text in (*self.windows, *self.blackouts):
            window(text)
        if self.start and self.end and self.end < self.start:
            raise BadSchedule(when=self.when, reason=f"it ends on {self.end}, before it starts")

    def allows(self, instant: dt.datetime) -> bool:
        """Whether a run may begin at an instant: the day is not over, a window is open, and no blackout is."""
        local = instant.astimezone(known_zone(self.zone))
        if not self.enabled or (self.end and local.date() > self.end) or (self.start and local.date() < self.start):
            return False
        is_open = not self.windows or any(window(text).holds(local) for text in self.windows)
        return is_open and not any(window(text).holds(local) for text in self.blackouts)

    def next_after(self, instant: dt.datetime) -> dt.datetime | None:
        """The next run after an instant; None when there is none in the next years."""
        return next(self._runs(instant, instant + _FORESEEN, most=_LOOKED_AT), None)

    def between(self, after: dt.datetime, until: dt.datetime, *, most: int | None = None) -> tuple[dt.datetime, ...]:
        """The runs after one instant and not after another, or the first `most` of them."""
        return tuple(islice(self._runs(after, until), most))

    def last_between(self, after: dt.datetime, until: dt.datetime) -> dt.datetime | None:
        """The last of those; looks back from `until` in growing steps, so that long gaps cost little."""
        step = _DAY
        while True:
            begin = max(after, until - step)
            if found := self.between(begin, until):
                return found[-1]
            if begin == after:
                return None
            step *= 8

    def _runs(self, after: dt.datetime, until: dt.datetime, *, most: int | None = None) -> Iterator[dt.datetime]:
        zone = known_zone(self.zone)
        if self.start:
            after = max(after, _midnight(self.start, zone) - _SECOND)
        if self.end and self.end.year < dt.MAXYEAR:
            until = min(until, _midnight(self.end + _DAY, zone))
        if self.enabled:
            # The limits are on what comes, not on what is allowed: an end is reached also where no window ever opens.
            looked_at = islice(local_times(self.when, after, zone), most)
            yield from filter(self.allows, takewhile(lambda run: run <= until, looked_at))


def _midnight(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)


def due(schedules: Iterable[Schedule], after: dt.datetime, now: dt.datetime) -> dt.datetime | None:
    """The minute of the run that is due at `now` when all up to `after` were looked at; None when there is none.

    Of several that were missed the last one is made up for, once, and only while a run may begin. A mark that lies
    ahead of `now`, as one does when the clock is set back, counts as `now`.
    """
    chosen = [schedule for schedule in schedules if schedule.allows(now)]
    found = [run for schedule in chosen if (run := schedule.last_between(min(after, now), now))]
    return max(found, default=None)


def next_run(schedules: Iterable[Schedule], after: dt.datetime) -> dt.datetime | None:
    """The next run of all schedules together."""
    return min((run for schedule in schedules if (run := schedule.next_after(after))), default=None)


def runs(
    schedules: Iterable[Schedule], after: dt.datetime, until: dt.datetime, *, most: int | None = None
) -> tuple[dt.datetime, ...]:
    """The runs of all schedules together; those planned for the same minute are one. At most the first `most`."""
    found = {run for schedule in schedules for run in schedule.between(after, until, most=most)}
    return tuple(sorted(found)[:most])


@lru_cache(maxsize=128)
def known_zone(name: str) -> ZoneInfo:
    """The time zone of this name; raise `BadSchedule`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadSchedule(when=name, reason="there is no such time zone; write one as `Europe/Berlin`") from error
