# SPDX-License-Identifier: GPL-3.0-or-later
"""Which repository is behind the name of each target, and which one this installation calls its home."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import sqlalchemy as sa

from overkeep.controller.store import schema as t
from overkeep.controller.store.database import reading
from overkeep.units import utc_now

_REPOSITORY = sa.select(t.target.c.repository).where(t.target.c.name == sa.bindparam("target"))
_REMEMBERED = 1.0  # seconds for which the repository of a target is not asked for again: many backups do all the time


class TargetRows:
    """The tables of targets. Of several controllers that write the same row at once, the first one wins."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._clock = clock
        self._seen: dict[str, tuple[str, float]] = {}  # repositories by target, and when they were read

    def repository(self, name: str) -> str | None:
        """The id of the repository that target `name` had when it was first used, or that was accepted since.

        What another controller accepted is known a second later.
        """
        known, at = self._seen.get(name, ("", -math.inf))
        now = self._clock()
        if now - at < _REMEMBERED:
            return known
        with self._reader.connect() as connection:
            found: str | None = connection.scalar(_REPOSITORY, {"target": name})
        if found is not None:
            self._seen[name] = found, now
        return found

    def remember(self, name: str, repository: str) -> str:
        """Write down the repository of a target unless one is known; return the one that is known then."""
        try:
            with self._engine.begin() as connection:
                known = connection.scalar(sa.select(t.target.c.repository).where(t.target.c.name == name))
                if known is not None:
                    return str(known)
                connection.execute(sa.insert(t.target).values(_row(name, repository)))
        except sa.exc.IntegrityError:  # another controller was quicker
            return self.repository(name) or repository
        return repository

    def replace(self, name: str, repository: str) -> None:
        """Write down another repository for a target."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(t.target).where(t.target.c.name == name))
            connection.execute(sa.insert(t.target).values(_row(name, repository)))
        self._seen.pop(name, None)

    @property
    def home(self) -> str | None:
        """The repository by which this installation marks what is its own in the Manager."""
        with self._reader.connect() as connection:
            return connection.scalar(sa.select(t.installation.c.home))

    def settle(self, repository: str) -> str:
        """Let a repository be the home unless there is one; return the one that is then."""
        try:
            with self._engine.begin() as connection:
                known = connection.scalar(sa.select(t.installation.c.home))
                if known is None:
                    connection.execute(sa.insert(t.installation).values(id=1, home=repository))
        except sa.exc.IntegrityError:  # another controller was quicker
            known = self.home
        return known or repository


def _row(name: str, repository: str) -> dict[str, str]:
    return {"name": name, "repository": repository, "since": utc_now().isoformat(timespec="seconds")}
