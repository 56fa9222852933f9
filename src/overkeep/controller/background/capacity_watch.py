# SPDX-License-Identifier: GPL-3.0-or-later
"""The space of the targets: measured every minute, kept by the hour, and told when a mark is passed."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable

from overkeep.controller.activities.capacity import limit, percent
from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.ports import Ports
from overkeep.controller.targets.target import Target
from overkeep.model.capacity import Fill, Space, fill_after
from overkeep.units import human_size, utc_now

EVERY = 60.0  # seconds between two looks

_KINDS = {Fill.OK: Kind.TARGET_ROOM, Fill.HIGH: Kind.TARGET_HIGH, Fill.FULL: Kind.TARGET_FULL}
_log = logging.getLogger(__name__)


class CapacityWatch:
    """Looks at the targets in a thread of its own; one that hangs does not keep it from the others for long."""

    def __init__(self, ports: Ports, *, every: float = EVERY, clock: Callable[[], dt.datetime] = utc_now) -> None:
        self._ports = ports
        self._every = every
        self._clock = clock
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capacity", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present look."""
        self._wake.set()
        self._thread.join()

    def look(self) -> None:
        """Measure all targets that can be read, and tell of marks that were passed since the last look."""
        for target, space in self._ports.targets.survey(Target.space).answers:
            self._ports.store.capacity.add(target.name, self._clock(), space)
            self._compare(target, space)

    def _compare(self, target: Target, space: Space) -> None:
        before = self._ports.store.capacity.fill(target.name)
        now = fill_after(before, space, target.marks)
        # of several controllers that see it, the one that writes it down tells it
        if now is before or not self._ports.store.capacity.change_fill(target.name, before, now):
            return
        fields = {"size": space.size, "used": space.used, "free": space.free}
        text = _told(target, space, now)
        self._ports.store.events.add(Draft(kind=_KINDS[now], text=text, about=About(target=target.name), fields=fields))

    def _run(self) -> None:
        while not self._wake.is_set():
            try:
                self.look()
            except Exception:  # noqa: BLE001 - the outermost loop of a thread: logged, and the next look comes
                _log.exception("the look at the targets' space failed")
            self._wake.wait(self._every)


def _told(target: Target, space: Space, now: Fill) -> str:
    how = f"{percent(space)} used, {human_size(space.free)} free"
    if now is Fill.FULL:
        return f"Backup target {target.name!r} is full ({how}): no backup to it begins"
    if now is Fill.HIGH:
        return f"Backup target {target.name!r} fills up ({how}): backups to it stop at {limit(target)}"
    return f"Backup target {target.name!r} has room again ({how})"
