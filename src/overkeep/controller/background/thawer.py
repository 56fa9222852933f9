# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests that are frozen for longer than they may be are thawed, also when the controller that froze them is dead."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from overkeep.controller.activities.freezing import thaw
from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import Held
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.units import utc_now

_FOR_EVER = "9999"
EVERY = 1.0  # seconds between two looks at what is frozen
_AT_ONCE = 8  # guests that are thawed at the same time

_log = logging.getLogger(__name__)


class Thawer:
    """Thaws what is frozen for too long, in a thread of its own. Every controller has one.

    With `alone` there is no other controller: what is written down as frozen when this one starts was frozen by a dead
    one, and is thawed at once.
    """

    def __init__(self, ports: Ports, *, alone: bool, every: float = EVERY) -> None:
        self._ports = ports
        self._every = every
        self._inherited = ports.store.held.frozen_until(_FOR_EVER) if alone else ()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="thawer", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present look."""
        self._stop.set()
        self._thread.join()

    def round(self) -> None:
        """Thaw what is frozen for too long now."""
        late = self._ports.store.held.frozen_until(utc_now().isoformat(timespec="milliseconds"))
        if late:
            self._thaw(late)

    def _thaw(self, items: Iterable[Held]) -> None:
        with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="thaw") as pool:
            list(pool.map(self._thaw_one, items))

    def _thaw_one(self, item: Held) -> None:
        try:
            thaw(self._ports, item)
        except OverkeepError as error:
            _log.error("guest still frozen %s", fields(vm=item.vm_id, job=item.job_id, error=error.code))
            self._tell(Kind.GUEST_FROZEN, f"A guest is frozen and cannot be thawed yet: {error.message}", item)
        else:
            _log.warning("guest thawed late %s", fields(vm=item.vm_id, job=item.job_id))
            self._tell(Kind.GUEST_THAWED, "A guest was frozen for longer than it may be, and was thawed", item)

    def _tell(self, kind: Kind, text: str, item: Held) -> None:
        about = About(job_id=item.job_id, vm_id=item.vm_id)
        self._ports.store.events.add(Draft(kind=kind, text=text, about=about, key=f"{kind}/{item.vm_id}/{item.ref}"))

    def _run(self) -> None:
        self._thaw(self._inherited)
        while not self._stop.wait(self._every):
            try:
                self.round()
            except Exception:  # noqa: BLE001 - the outermost loop of a thread: logged, and the next look comes
                _log.exception("a look at frozen guests failed")
