# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells when the mover of a host that is up no longer answers, and when it does again."""

from __future__ import annotations

import logging
import threading

from overkeep.controller.events import About, Draft, Filter, Kind
from overkeep.controller.service import Controller, MoverHealth
from overkeep.errors import OverkeepError

EVERY = 60.0  # seconds between two looks
_SURE = 2  # looks in a row that find a mover silent: one that restarts is not lost

_log = logging.getLogger(__name__)


class MoverWatch:
    """Runs in a thread of its own. Which movers are lost is known from the events, also after a restart."""

    def __init__(self, controller: Controller, *, every: float = EVERY) -> None:
        self._controller = controller
        self._events = controller.ports.store.events
        self._every = every
        self._silent: dict[str, int] = {}
        self._lost: dict[str, bool] = {}  # as the events said when they were last asked: many of them take long
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mover-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present look."""
        self._wake.set()
        self._thread.join()

    def look(self) -> None:
        """Look at all movers once. Hosts that are not up have no mover that could answer."""
        for mover in self._controller.movers():
            if mover.host_status == "up":
                self._look_at(mover)

    def _look_at(self, mover: MoverHealth) -> None:
        self._silent[mover.host] = 0 if mover.ok else self._silent.get(mover.host, 0) + 1
        if mover.host not in self._lost:
            self._lost[mover.host] = self._is_lost(mover.host)
        turned = mover.ok if self._lost[mover.host] else self._silent[mover.host] >= _SURE
        if not turned:
            return
        if self._is_lost(mover.host) is mover.ok:  # else another controller has told it
            self._tell(mover)
        self._lost[mover.host] = not mover.ok

    def _tell(self, mover: MoverHealth) -> None:
        about = About(host=mover.host)
        if mover.ok:
            text = f"The mover of host {mover.host} answers again"
            fields = {"version": mover.version}
            self._events.add(Draft(kind=Kind.MOVER_BACK, text=text, about=about, fields=fields))
        else:
            text = f"The mover of host {mover.host} does not answer: {mover.error}"
            self._events.add(Draft(kind=Kind.MOVER_LOST, text=text, about=about))

    def _is_lost(self, host: str) -> bool:
        last = self._events.before(None, Filter(kind="mover", host=host), limit=1)
        return bool(last) and last[0].kind == Kind.MOVER_LOST

    def _run(self) -> None:
        while not self._wake.wait(self._every):
            try:
                self.look()
            except OverkeepError as error:
                _log.warning("movers cannot be looked at: %s", error)
            except Exception:  # noqa: BLE001 - the outermost loop of a thread: logged, and the next look comes
                _log.exception("the look at the movers failed")
