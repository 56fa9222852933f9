# SPDX-License-Identifier: GPL-3.0-or-later
"""Events on their way out: each place gets those that it wants, in order, after they are committed, and each once."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from overkeep.controller.events import Event
from overkeep.controller.store import Store
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.units import utc_now

TOO_OLD = dt.timedelta(days=7)  # then nobody wants to read it there any more
SPACING = 0.1  # seconds between two events: a night of thousands of VMs must not flood the place
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
_LOOK_EVERY = 1.0
_PAGE = 200

_log = logging.getLogger(__name__)


class Refused(OverkeepError):
    """A place will never take an event; it is left out there."""

    code = "event-refused"
    template = "Event {seq} is not written to {place}: {reason}"


class Place(Protocol):
    """Somewhere outside that events are sent to."""

    name: str

    def wants(self, event: Event) -> bool:
        """Whether it is sent there."""

    def send(self, event: Event, *, mark: str) -> None:
        """Send an event; may be called twice with the same one, and must not show it twice.

        `mark` is of this data base alone. Raises `Refused` when it will never work, any other error when it may later.
        """


class Courier:
    """Brings events to a place, in a thread of its own. What the place does not take now is brought later.

    How far it is is in the data base: it goes on there after a restart. An event that was sent when the process died is
    sent again, under the same name. `spacing` is in seconds.
    """

    def __init__(
        self, store: Store, place: Place, *, spacing: float = SPACING, clock: Callable[[], dt.datetime] = utc_now
    ) -> None:
        self._store = store
        self._place = place
        self._spacing = spacing
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"courier-{place.name}", daemon=True)

    def start(self) -> None:
        """Begin to bring."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present event."""
        self._stopping.set()
        self._thread.join()

    def deliver(self) -> int:
        """Bring all that there is; return how many were sent. Raises the error of the place that stops it."""
        relay = self._store.relays.get(self._place.name)
        seq, sent = relay.seq, 0
        while not self._stopping.is_set() and (page := self._store.events.after(seq, limit=_PAGE)):
            for event in page:
                if self._stopping.is_set():
                    break
                if self._is_wanted(event):
                    self._send(event, relay.mark)
                    self._store.relays.advance(relay.name, event.seq)
                    sent += 1
                    self._stopping.wait(self._spacing)
                seq = event.seq
            self._store.relays.advance(relay.name, seq)
        return sent

    def _is_wanted(self, event: Event) -> bool:
        age = self._clock() - dt.datetime.fromisoformat(event.time)
        return age < TOO_OLD and self._place.wants(event)

    def _send(self, event: Event, mark: str) -> None:
        try:
            self._place.send(event, mark=mark)
        except Refused as error:
            _log.warning("%s", error)

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            seen = self._store.events.changes
            try:
                self.deliver()
            except OverkeepError as error:
                told = fields(place=self._place.name, pause=pause, reason=repr(str(error)))
                _log.warning("events wait %s", told)
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except Exception:  # noqa: BLE001 - the outermost loop of a thread: logged, and tried again
                _log.exception("events could not be sent %s", fields(place=self._place.name))
                self._stopping.wait(_LONGEST_PAUSE)
            else:
                pause = _FIRST_PAUSE
                self._rest(seen)

    def _rest(self, seen: int) -> None:
        """Wait for news; another controller may make some as well."""
        for _ in range(10):
            if self._stopping.wait(_LOOK_EVERY) or self._store.events.changes != seen:
                return
