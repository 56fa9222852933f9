# SPDX-License-Identifier: GPL-3.0-or-later
"""The Manager's event log: what we write there, and what it wrote about things of ours that failed."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from ovirtsdk4 import types

from overkeep.engine.errors import EngineRefused
from overkeep.engine.ovirt import values
from overkeep.engine.ovirt.session import Session
from overkeep.errors import OverkeepError

_log = logging.getLogger(__name__)
ORIGIN = "Overkeep"
_LOOKED_AT = 200  # newest events searched for a reason
_TOLD = 3
_BAD = {"warning", "error", "alert"}


class Events:
    """Writes and reads events."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def post(self, severity: str, text: str, *, vm_id: str | None) -> None:
        """Write an event; a refusal is logged, as no job may fail for it.

        The Manager wants a number that no event of this origin has yet; a second draw makes a clash unlikely enough.
        """
        try:
            try:
                self._post(severity, text, vm_id)
            except EngineRefused:
                self._post(severity, text, vm_id)
        except OverkeepError as error:
            _log.warning("an event could not be written into the Manager's log event=%r reason=%s", text, error)

    def explain(self, ids: tuple[str, ...]) -> str:
        """Return the newest bad events that name one of `ids`, oldest first, as sentences."""
        with self._session.system("list events", what="the events") as system:
            found = system.events_service().list(max=_LOOKED_AT)
        telling = [event for event in found if values.word(event.severity) in _BAD and _names_any(event, ids)]
        telling.sort(key=_number, reverse=True)
        return " ".join((event.description or "").strip() for event in reversed(telling[:_TOLD]))

    def _post(self, severity: str, text: str, vm_id: str | None) -> None:
        event = types.Event(
            origin=ORIGIN,
            severity=values.member(types.LogSeverity, severity),
            custom_id=secrets.randbits(31),
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
