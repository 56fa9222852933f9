# SPDX-License-Identifier: GPL-3.0-or-later
"""The Manager's event log: what we write there, and what it wrote about things of ours that failed."""

from __future__ import annotations

from typing import Any

from ovirtsdk4 import types

from overkeep.engine.errors import EngineRefused, EventNumberTaken
from overkeep.engine.ovirt import values
from overkeep.engine.ovirt.session import Session

ORIGIN = "Overkeep"
LONGEST = 4000  # characters; the Manager cuts longer texts in its own way
_LOOKED_AT = 200  # newest events searched for a reason
_TOLD = 3
_BAD = {"warning", "error", "alert"}


class Events:
    """Writes and reads events."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def post(self, severity: str, text: str, *, number: int, vm_id: str | None) -> None:
        """Write an event under a number; what the Manager refuses because it has it already is success.

        The Manager takes each number of an origin once. A repeat therefore finds what an answer that was lost left.
        """
        try:
            self._post(severity, text[:LONGEST], number, vm_id)
        except EngineRefused:
            there = self._find(number)
            if there is None:
                raise
            if there != text[:LONGEST].strip():
                raise EventNumberTaken(number=number) from None

    def explain(self, ids: tuple[str, ...]) -> str:
        """Return the newest bad events that name one of `ids`, oldest first, as sentences."""
        with self._session.system("list events", what="the events") as system:
            found = system.events_service().list(max=_LOOKED_AT)
        telling = [event for event in found if values.word(event.severity) in _BAD and _names_any(event, ids)]
        telling.sort(key=_number, reverse=True)
        return " ".join((event.description or "").strip() for event in reversed(telling[:_TOLD]))

    def _find(self, number: int) -> str | None:
        """The text of the event of ours with this number."""
        with self._session.system("list events", what="the events") as system:
            found = system.events_service().list(search=f"custom_event_id = {number}", max=_LOOKED_AT)
        ours = [event for event in found if event.origin == ORIGIN and event.custom_id == number]
        return (ours[0].description or "").strip() if ours else None

    def _post(self, severity: str, text: str, number: int, vm_id: str | None) -> None:
        event = types.Event(
            origin=ORIGIN,
            severity=values.member(types.LogSeverity, severity),
            custom_id=number,
            description=text,
            vm=types.Vm(id=vm_id) if vm_id else None,
        )
        with self._session.system("write an event", what="the VM of the event") as system:
            system.events_service().add(event)


def _names_any(event: Any, ids: tuple[str, ...]) -> bool:
    texts = (event.description or "", event.correlation_id or "", values.link_id(event.vm))
    return any(wanted in text for wanted in ids for text in texts)


def _number(event: Any) -> int:
    text = str(event.index if event.index is not None else event.id)
    return int(text) if text.isdigit() else 0
