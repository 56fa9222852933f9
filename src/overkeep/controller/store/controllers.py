# SPDX-License-Identifier: GPL-3.0-or-later
"""Which controllers live on this data base: each has a row with its last beat, by the data base's clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from overkeep.controller.store import schema as t
from overkeep.controller.store.database import is_alone


class Controllers:
    """The table of living controllers, by the id of their executor in the job engine.

    A controller whose row is gone was declared dead, and must end.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def join(self, executor_id: str, place: str) -> None:
        """Write a controller down; `place` tells people where it runs."""
        row = {"executor_id": executor_id, "place": place, "beat": self._now()}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(t.controller).values(row))

    def leave(self, executor_id: str) -> None:
        """Take a controller that ends off the list; the others go on with what it leaves."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(t.controller).where(t.controller.c.executor_id == executor_id))

    def beat(self, executor_id: str) -> bool:
        """Say that a controller lives; False when it was declared dead."""
        mine = sa.update(t.controller).where(t.controller.c.executor_id == executor_id).values(beat=self._now())
        with self._engine.begin() as connection:
            return connection.execute(mine).rowcount > 0

    def living(self) -> frozenset[str]:
        """The controllers that were not declared dead."""
        with self._engine.connect() as connection:
            return frozenset(connection.scalars(sa.select(t.controller.c.executor_id)))

    @contextmanager
    def burying(self, executor_id: str, ttl: float) -> Iterator[tuple[Callable[[], frozenset[str]], tuple[str, ...]]]:
        """Declare dead who did not beat for `ttl` seconds; gives what tells who lives now, and where the dead ran.

        One controller at a time is in here, so that what a dead one left is taken up once. Where another one is, it is
        not waited for, as it may sleep, and nobody is found living: the caller has nothing to do.
        """
        with self._engine.begin() as connection:
            if not is_alone(connection, "take up"):
                yield frozenset, ()
                return
            late = sa.and_(t.controller.c.beat < self._now() - ttl, t.controller.c.executor_id != executor_id)
            dead = tuple(connection.scalars(sa.select(t.controller.c.place).where(late)))
            connection.execute(sa.delete(t.controller).where(late))
            yield lambda: frozenset(connection.scalars(sa.select(t.controller.c.executor_id))), dead

    def _now(self) -> sa.ColumnElement[Any]:
        """The clock of the data base, in seconds: those of the controllers differ."""
        if self._engine.dialect.name == "postgresql":
            return sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Float)
        return (sa.func.julianday("now") - 2440587.5) * 86400.0
