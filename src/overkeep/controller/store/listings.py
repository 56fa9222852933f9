# SPDX-License-Identifier: GPL-3.0-or-later
"""When the restore points of each target were last listed, and which controller lists them now."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from overkeep.controller.store import schema as t
from overkeep.controller.store.database import alone, reading

DEAD = dt.timedelta(minutes=10)  # without a sign of life after which a listing is begun by another controller


@dataclass(frozen=True, kw_only=True)
class Listed:
    """How the points of a target were last listed.

    `listed`: when the last listing began that read all of it. `tried`: when the last one began. `asked`: since when
    somebody waits for one that reads every manifest. `beat`: the last sign of life of one that goes on. `error`: why
    the last one ended early, empty when it did not.
    """

    listed: dt.datetime | None = None
    tried: dt.datetime | None = None
    asked: dt.datetime | None = None
    beat: dt.datetime | None = None
    error: str = ""

    @property
    def going_on(self) -> bool:
        """Whether it is being listed, or will be at once because somebody asked for it."""
        return self.beat is not None or self.asked is not None

    def due(self, now: dt.datetime, *, every: dt.timedelta, again: dt.timedelta) -> bool:
        """Whether it is time for a listing: `every` so often, and `again` so long after one that failed."""
        if self.beat is not None and now - self.beat < DEAD:
            return False
        if self.error:
            return self.tried is None or now - self.tried >= again
        return self.asked is not None or self.listed is None or now - self.listed >= every


class ListingRows:
    """The table of listings, one row a target."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self.news = threading.Condition()  # notified when somebody of this process asks for a listing

    def all(self) -> Mapping[str, Listed]:
        """What is known of each target that was ever listed or asked for."""
        with self._reader.connect() as connection:
            return {row.target: _value(row) for row in connection.execute(sa.select(t.listing))}

    def of(self, target: str) -> Listed:
        """What is known of one target."""
        return self.all().get(target, Listed())

    def ask(self, target: str, now: dt.datetime, *, anew: bool = False) -> None:
        """Let a target be listed with every manifest; `anew`: what was known of it is that of another repository."""

        def change(known: Listed) -> Listed:
            return Listed(asked=now) if anew else replace(known, asked=now, error="")

        self._change(target, change)
        with self.news:
            self.news.notify_all()

    def begin(self, target: str, now: dt.datetime, *, every: dt.timedelta, again: dt.timedelta) -> Listed | None:
        """Begin a listing if it is due and no other controller has begun it; return what was known before."""
        before: list[Listed] = []

        def change(known: Listed) -> Listed:
            if not known.due(now, every=every, again=again):
                return known
            before.append(known)
            return replace(known, tried=now, beat=now)

        self._change(target, change)
        return before[0] if before else None

    def beat(self, target: str, now: dt.datetime) -> None:
        """Say that the listing goes on."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.listing).where(t.listing.c.target == target).values(beat=_text(now)))

    def end(self, target: str, before: Listed, began: dt.datetime, *, error: str = "") -> None:
        """Write how a listing went that followed on `before`; who asked for another one meanwhile goes on waiting.

        One that was overtaken, because another repository was accepted or another controller began anew, is nothing.
        """

        def change(known: Listed) -> Listed:
            if known.tried != began:
                return known
            if error:
                return replace(known, beat=None, error=error)
            asked = None if known.asked == before.asked else known.asked
            return replace(known, listed=began, beat=None, asked=asked, error="")

        self._change(target, change)

    def leave(self, targets: Collection[str]) -> None:
        """Forget listings that a dead controller had begun; for one that is alone on its data base."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.listing).where(t.listing.c.target.in_(targets)).values(beat=""))

    def _change(self, target: str, change: Callable[[Listed], Listed]) -> None:
        mine = t.listing.c.target == target
        with self._engine.begin() as connection:
            alone(connection, f"listing {target}")
            row = connection.execute(sa.select(t.listing).where(mine)).first()
            known = Listed() if row is None else _value(row)
            values = _row(change(known))
            if row is None:
                connection.execute(sa.insert(t.listing).values(target=target, **values))
            else:
                connection.execute(sa.update(t.listing).where(mine).values(**values))


def _row(known: Listed) -> dict[str, str]:
    times = {name: _text(getattr(known, name)) for name in ("listed", "tried", "asked", "beat")}
    return {**times, "error": known.error}


def _value(row: Any) -> Listed:
    times = {name: _time(getattr(row, name)) for name in ("listed", "tried", "asked", "beat")}
    return Listed(**times, error=row.error)


def _text(time: dt.datetime | None) -> str:
    return "" if time is None else time.astimezone(dt.UTC).isoformat()


def _time(text: str) -> dt.datetime | None:
    return dt.datetime.fromisoformat(text) if text else None
