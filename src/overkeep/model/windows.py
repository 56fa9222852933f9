# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows of the week, in which runs may or must not begin, or other limits hold: `mon-fri 08:00-18:00`."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from overkeep.model.cron import BadSchedule, days_of

_FORM = re.compile(r"((?P<days>[a-z, -]+?) )?(?P<begin>\d{1,2}:\d{2}) ?- ?(?P<end>\d{1,2}:\d{2})")
_ALL_DAYS = tuple(range(7))
_MINUTE = dt.timedelta(minutes=1)


@dataclass(frozen=True)
class Window:
    """From `begin` (in it) to `end` (not in it) by the clock on the wall; with `end` not after `begin`, overnight.

    `days` are those on which it begins, Monday being 0.
    """

    days: tuple[int, ...]
    begin: dt.time
    end: dt.time

    def holds(self, local: dt.datetime) -> bool:
        """Whether a local time lies in it."""
        time = local.time()
        today, yesterday = local.weekday() in self.days, (local.weekday() - 1) % 7 in self.days
        if self.begin < self.end:
            return today and self.begin <= time < self.end
        return (today and time >= self.begin) or (yesterday and time < self.end)


@lru_cache(maxsize=512)
def window(text: str) -> Window:
    """Read `[days] HH:MM-HH:MM`; raise `BadSchedule`. Without days it is that of every day; 24:00 is midnight."""
    match = _FORM.fullmatch(" ".join(text.lower().split()))
    if match is None:
        raise BadSchedule(when=text, reason="write a window as `mon-fri 08:00-18:00` or `22:00-06:00`")
    days = days_of(match["days"], text) if match["days"] else _ALL_DAYS
    return Window(days, _time(match["begin"], text), _time(match["end"], text))


def edges(windows: Iterable[Window], zone: dt.tzinfo, after: dt.datetime) -> Iterator[dt.datetime]:
    """Yield the instants of the next week at which windows may open or close, in no order, each with the minute before.

    When clocks are changed a window may open or close between two of them: whoever finds that one window is open at one
    of them and not at the one before has to look for the minute.
    """
    today = after.astimezone(zone).date()
    times = {time for each in windows for time in (each.begin, each.end)}
    for day in (today + dt.timedelta(days=ahead) for ahead in range(-1, 9)):
        for time in times:
            for fold in (0, 1):  # a local time that comes twice
                edge = dt.datetime.combine(day, time.replace(fold=fold), zone).astimezone(dt.UTC)
                yield from (one for one in (edge - _MINUTE, edge) if one > after)


def _time(text: str, whole: str) -> dt.time:
    hour, minute = map(int, text.split(":"))
    if (hour, minute) == (24, 0):
        return dt.time(0)
    try:
        return dt.time(hour, minute)
    except ValueError as error:
        raise BadSchedule(when=whole, reason=f"{text} is no time of the day") from error
