# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's event log: numbered, only ever growing, searched by clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from ovirtlab.engine.clock import Clock

Severity = Literal["normal", "warning", "error", "alert"]


@dataclass(kw_only=True)
class Event:
    """`index` is its id and order; `ids` names the objects it is about by kind (`vm`, `host`, `user`, `disk`)."""

    index: int
    code: int
    severity: Severity
    description: str
    time: datetime
    correlation_id: str = ""
    origin: str = "oVirt"
    custom_id: int = -1
    custom_data: str = ""
    flood_rate: int = 30
    ids: dict[str, str] = field(default_factory=dict)


class EventLog:
    """All events, oldest first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: dict[int, Event] = {}
        self._last = 0
        self._listeners: list[Callable[[Event], None]] = []

    def add(self, code: int, severity: Severity, text: str, *, correlation_id: str = "", **ids: str) -> Event:
        """Write an event of the engine; `ids` such as `vm=vm.id, host=host.id, user=user.id`."""
        event = Event(
            index=self._last + 1,
            code=code,
            severity=severity,
            description=text,
            time=self._clock.now(),
            correlation_id=correlation_id,
            ids={kind: value for kind, value in ids.items() if value},
        )
        self.keep(event)
        return event

    def keep(self, event: Event) -> None:
        self._last = event.index
        self._events[event.index] = event
        for listener in self._listeners:
            listener(event)

    def next_index(self) -> int:
        return self._last + 1

    def get(self, index: int) -> Event | None:
        return self._events.get(index)

    def remove(self, index: int) -> None:
        self._events.pop(index, None)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with each new event; used by tests and by the lab's own page."""
        self._listeners.append(listener)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events.values())

    def __len__(self) -> int:
        return len(self._events)
