# SPDX-License-Identifier: GPL-3.0-or-later
"""How the space of targets went: one row an hour for three months, and which mark was passed last."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from overkeep.controller.store import schema as t
from overkeep.controller.store.database import alone, reading
from overkeep.model.capacity import Fill, Sample, Space

KEPT = dt.timedelta(days=90)


class CapacityRows:
    """The tables of space."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reader = reading(engine)

    def add(self, target: str, time: dt.datetime, space: Space) -> None:
        """Keep the space of a target for the hour of `time`, in place of what that hour had; old hours go."""
        hour = _hour(time)
        mine = t.target_space.c.target == target
        row = {"target": target, "hour": hour, "size": space.size, "used": space.used, "free": space.free}
        with self._engine.begin() as connection:
            alone(connection, f"space {target}")  # two controllers may be the first to write of an hour
            old = sa.or_(t.target_space.c.hour == hour, t.target_space.c.hour < _hour(time - KEPT))
            connection.execute(sa.delete(t.target_space).where(mine, old))
            connection.execute(sa.insert(t.target_space).values(row))

    def since(self, target: str, time: dt.datetime) -> tuple[Sample, ...]:
        """The samples of a target from `time` on, oldest first."""
        wanted = (t.target_space.c.target == target, t.target_space.c.hour >= _hour(time))
        query = sa.select(t.target_space).where(*wanted).order_by(t.target_space.c.hour)
        with self._reader.connect() as connection:
            rows = connection.execute(query).all()
        return tuple(
            Sample(time=dt.datetime.fromisoformat(row.hour), space=Space(size=row.size, used=row.used, free=row.free))
            for row in rows
        )

    def fill(self, target: str) -> Fill:
        """The mark that a target passed last."""
        with self._reader.connect() as connection:
            found = connection.scalar(sa.select(t.target_fill.c.fill).where(t.target_fill.c.target == target))
        return Fill(found) if found else Fill.OK

    def change_fill(self, target: str, before: Fill, now: Fill) -> bool:
        """Write down that a target passed a mark; False when somebody else has done so."""
        mine = t.target_fill.c.target == target
        try:
            with self._engine.begin() as connection:
                change = sa.update(t.target_fill).where(mine, t.target_fill.c.fill == before).values(fill=now)
                if connection.execute(change).rowcount:
                    return True
                if connection.scalar(sa.select(t.target_fill.c.fill).where(mine)) is not None:
                    return False
                connection.execute(sa.insert(t.target_fill).values(target=target, fill=now))
        except sa.exc.IntegrityError:
            return False
        return True


def _hour(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0).isoformat()
