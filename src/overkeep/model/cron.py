# SPDX-License-Identifier: GPL-3.0-or-later
"""When a schedule runs, as text: a simple form or five fields of cron; the only importer of the cron library."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from overkeep.errors import OverkeepError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = (1, 2, 3, 4, 6, 8, 12, 24)
_TIME = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})"
_MINUTE = dt.timedelta(minutes=1)


class BadSchedule(OverkeepError):
    """A schedule cannot be understood."""

    code = "bad-schedule"
    template = "The schedule {when!r} cannot be used: {reason}."
    status = 400


def expression(when: str) -> str:
    """Return the five fields of cron that `when` means; raise `BadSchedule`.

    Forms: `every 4 hours`, `every 4 hours at :30`, `daily at 22:00`, `weekly on mon,thu at 22:00`,
    `monthly on 1,15,last at 22:00`, or the five fields themselves.
    """
    text = " ".join(when.lower().split())
    for form, write in _FORMS:
        if match := re.fullmatch(form, text):
            return _checked(write(match, when), when)
    return _checked(text.upper(), when)


def local_times(when: str, after: dt.datetime, zone: ZoneInfo) -> Iterator[dt.datetime]:
    """Yield the instants, in UTC and rising, at which `when` comes in `zone` after an instant.

    A time that the clocks skip counts as the first minute after the gap, one that comes twice as its first time. Where
    every hour is meant, the hours that really pass count: none is left out and none lies two hours from the next.
    """
    fields = expression(when)
    start = after.astimezone(zone)
    hourly = fields.split()[1] == "*"
    last = after
    for found in CronSim(fields, start if hourly else start.replace(tzinfo=None)):
        instant = found.astimezone(dt.UTC) if hourly else _instant(found, zone)
        if instant > last:
            yield instant
            last = instant


def _instant(local: dt.datetime, zone: ZoneInfo) -> dt.datetime:
    """The instant of a time of the wall; of a skipped one the first that exists after it."""
    while (found := local.replace(tzinfo=zone).astimezone(dt.UTC)).astimezone(zone).replace(tzinfo=None) != local:
        local = local.replace(second=0) + _MINUTE
    return found


def _every(match: re.Match[str], when: str) -> str:
    hours, minute = int(match["hours"] or 1), int(match["minute"] or 0)
    if hours not in _HOURS:
        raise BadSchedule(when=when, reason=f"the hours must be one of {', '.join(map(str, _HOURS))}")
    named = "*" if hours == 1 else ",".join(map(str, range(0, 24, hours)))
    return f"{minute} {named} * * *"


def _daily(match: re.Match[str], _when: str) -> str:
    return f"{_clock(match)} * * *"


def _weekly(match: re.Match[str], when: str) -> str:
    return f"{_clock(match)} * * {','.join(_CRON_DAYS[day] for day in days_of(match['days'], when))}"


def _monthly(match: re.Match[str], _when: str) -> str:
    return f"{_clock(match)} {match['days'].replace(' ', '').replace('last', 'L')} * *"


def _clock(match: re.Match[str]) -> str:
    return f"{int(match['minute'])} {int(match['hour'])}"


def days_of(text: str, when: str) -> tuple[int, ...]:
    """The days of `mon,thu` or `mon-fri`, Monday being 0; raise `BadSchedule`."""
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise BadSchedule(when=when, reason=f"{part!r} is no day; write {', '.join(DAYS)}, or mon-fri")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found.update(range(begin, end + 1) if begin <= end else (*range(begin, 7), *range(end + 1)))
    return tuple(sorted(found))


_CRON_DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_FORMS: tuple[tuple[str, Callable[[re.Match[str], str], str]], ...] = (
    (r"(every hour|every (?P<hours>\d+) hours?|hourly)( at :(?P<minute>\d{2}))?", _every),
    (rf"(daily|every day) at {_TIME}", _daily),
    (rf"weekly on (?P<days>[a-z, -]+) at {_TIME}", _weekly),
    (rf"monthly on (?P<days>[0-9a-z, -]+) at {_TIME}", _monthly),
)


@lru_cache(maxsize=512)
def _checked(fields: str, when: str) -> str:
    if len(fields.split()) != 5:
        reason = "write five fields of cron, or `every 4 hours`, `daily at 22:00`, `weekly on mon,thu at 22:00`, " + (
            "`monthly on 1,last at 22:00`"
        )
        raise BadSchedule(when=when, reason=reason)
    try:
        next(CronSim(fields, dt.datetime(2000, 1, 1)))  # noqa: DTZ001 - any time will do, on the wall of no place
    except CronSimError as error:
        raise BadSchedule(when=when, reason=str(error).replace("Bad ", "it has a wrong ")) from error
    except StopIteration as error:
        raise BadSchedule(when=when, reason="that day never comes") from error
    return fields
