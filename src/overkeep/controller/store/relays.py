# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the events were sent to each place outside: what is committed and not sent yet is sent later."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import sqlalchemy as sa

from overkeep.controller.store import schema as t


@dataclass(frozen=True, kw_only=True)
class Relay:
    """Events up to `seq` were sent. `mark` is the same for ever, and of this data base alone."""

    name: str
    seq: int
    mark: str


class Relays:
    """The table of places that events are sent to."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def get(self, name: str) -> Relay:
        """How far a place is; it begins with the first event when it is new."""
        try:
            return self._find(name) or self._make(name)
        except sa.exc.IntegrityError:  # another controller made it meanwhile
            found = self._find(name)
            if found is None:
                raise
            return found

    def _find(self, name: str) -> Relay | None:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(t.relay).where(t.relay.c.name == name)).first()
        return None if row is None else Relay(name=row.name, seq=row.seq, mark=row.mark)

    def _make(self, name: str) -> Relay:
        made = Relay(name=name, seq=0, mark=uuid.uuid4().hex)
        with self._engine.begin() as connection:
            connection.execute(sa.insert(t.relay).values(name=made.name, seq=made.seq, mark=made.mark))
        return made

    def advance(self, name: str, seq: int) -> None:
        """Write down that a place has all events up to a number; it never goes back."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.relay).where(t.relay.c.name == name, t.relay.c.seq < seq).values(seq=seq))
