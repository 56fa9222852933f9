# SPDX-License-Identifier: GPL-3.0-or-later
"""What administrators wrote down about resources in the data base: how many use one at once, and which are paused."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from overkeep.controller.events import Draft, Kind
from overkeep.controller.store import schema as t
from overkeep.controller.store.events import Events
from overkeep.model.admission import Setting, SlotsWindow, in_words

_WINDOWS = TypeAdapter(tuple[SlotsWindow, ...])
_NO_WINDOWS = "[]"

_ALL = sa.select(t.resource)  # asked for all the time


class ResourceSettings:
    """The table of resources. One that has no row has the defaults."""

    def __init__(self, engine: sa.Engine, events: Events) -> None:
        self._engine = engine
        self._events = events

    def all(self) -> dict[str, Setting]:
        """All settings, by the name of the resource or of the kind."""
        with self._engine.connect() as connection:
            return settings_in(connection)

    def set_slots(self, asked: Setting, *, caller: str = "") -> None:
        """Write down how many use it at once, at which time; whether it is paused stays."""
        how = "the default" if asked.capacity is None else str(asked.capacity)
        others = ", ".join(f"{each.capacity} {each.when}" for each in asked.windows)
        text = f"The limit of {in_words(asked.resource)} is now {how}{f'; {others} ({asked.zone})' if others else ''}"
        windows = _WINDOWS.dump_python(asked.windows, mode="json")
        fields = {"resource": asked.resource, "capacity": asked.capacity, "windows": windows, "zone": asked.zone}
        told = Draft(kind=Kind.LIMIT_SET, text=text, caller=caller, fields=fields)
        written = _WINDOWS.dump_json(asked.windows).decode()
        self._write(asked.resource, {"capacity": asked.capacity, "windows": written, "zone": asked.zone}, told)

    def pause(self, name: str, *, caller: str = "") -> None:
        """Write down that nothing new uses it."""
        text = f"Nothing new uses {in_words(name)}: it was paused"
        told = Draft(kind=Kind.LIMIT_PAUSED, text=text, caller=caller, fields={"resource": name})
        self._write(name, {"paused": True}, told)

    def resume(self, name: str, *, caller: str = "") -> None:
        """Write down that it is used again."""
        text = f"What was paused is used again: {in_words(name)}"
        told = Draft(kind=Kind.LIMIT_RESUMED, text=text, caller=caller, fields={"resource": name})
        self._write(name, {"paused": False}, told)

    def _write(self, name: str, change: dict[str, Any], told: Draft) -> None:
        mine = t.resource.c.name == name
        with self._engine.begin() as connection:
            found = connection.execute(sa.select(t.resource).where(mine)).first()
            nothing = {"name": name, "capacity": None, "paused": False, "windows": _NO_WINDOWS, "zone": "UTC"}
            before = nothing if found is None else dict(found._mapping)
            row = {**before, **change}
            if row == before:
                return
            connection.execute(sa.delete(t.resource).where(mine))
            if row != nothing:
                connection.execute(sa.insert(t.resource).values(row))
            self._events.insert(connection, told)
        self._events.tell()


def settings_in(connection: sa.Connection) -> dict[str, Setting]:
    """All settings, read within a transaction."""
    rows = connection.execute(_ALL).all()
    return {
        row.name: Setting(
            resource=row.name,
            capacity=row.capacity,
            paused=row.paused,
            windows=_WINDOWS.validate_json(row.windows),
            zone=row.zone,
        )
        for row in rows
    }
