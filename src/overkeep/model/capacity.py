# SPDX-License-Identifier: GPL-3.0-or-later
"""How full a target is, how fast it fills, and what follows from that."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_DAY = 86400.0
_SHORTEST = 6 * 3600.0  # seconds that samples must span before a growth is told
_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Space:
    """The file system of a target, in bytes; `free` is what we may still use, which can be less than what is unused."""

    size: int
    used: int
    free: int

    @property
    def percent(self) -> float:
        """How much of what we may use is used, 0 to 100; a file system without a size is not full."""
        usable = self.used + self.free
        return 100.0 * self.used / usable if usable else 0.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The space of a target at a time."""

    time: dt.datetime
    space: Space


@dataclass(frozen=True, kw_only=True)
class Marks:
    """From when on a target is high, and from when on no backup to it begins: percent, and bytes that stay free."""

    high: float = 85.0
    full: float = 95.0
    reserve: int = 0


class Fill(StrEnum):
    """How full a target is by its marks."""

    OK = "ok"
    HIGH = "high"
    FULL = "full"


def fill(space: Space, marks: Marks) -> Fill:
    """How full a target is; at a mark is above it."""
    if space.percent >= marks.full or space.free < marks.reserve:
        return Fill.FULL
    return Fill.HIGH if space.percent >= marks.high else Fill.OK


def fill_after(before: Fill, space: Space, marks: Marks) -> Fill:
    """How full a target is that was `before`: below a mark again only by a percent, so that no one hears it twice."""
    now = fill(space, marks)
    order = list(Fill)
    if order.index(now) >= order.index(before):
        return now
    lower = Marks(high=marks.high - 1, full=marks.full - 1, reserve=marks.reserve)
    return max((now, min(fill(space, lower), before, key=order.index)), key=order.index)


def growth(samples: Sequence[Sample]) -> float | None:
    """Bytes by which the used space grew a day, by the line that fits best; None when there is too little to say."""
    if len(samples) < _FEWEST:
        return None
    times = [(sample.time - samples[0].time).total_seconds() for sample in samples]
    if max(times) - min(times) < _SHORTEST:
        return None
    middle = sum(times) / len(times)
    mean = sum(sample.space.used for sample in samples) / len(samples)
    spread = sum((time - middle) ** 2 for time in times)
    slope = sum((time - middle) * (sample.space.used - mean) for time, sample in zip(times, samples, strict=True))
    return slope / spread * _DAY


def days_until_full(space: Space, grows: float | None) -> float | None:
    """Days until nothing is free if it grows on like that; None when it does not grow or that is not known."""
    return space.free / grows if grows and grows > 0 else None
