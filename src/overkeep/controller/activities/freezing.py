# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests that hold still for a backup go on again, whatever happens: a frozen guest is an outage.

Every freeze is written down before it is asked for, with the time at which it ends at the latest. It ends in three
ways: who froze the guest thaws it; so does the release of the job, which always runs; and a thread of every controller
thaws what is frozen for longer than it may be, also when the controller that froze it has died.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import Held, HeldKind
from overkeep.engine.errors import GuestNotFrozen
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.units import utc_now

_FOR_EVER = "9999"
EVERY = 1.0  # seconds between two looks at what is frozen
_AT_ONCE = 8  # guests that are thawed at the same time

_log = logging.getLogger(__name__)


def freeze(exposure: Exposure, *, seconds: float) -> Held:
    """Freeze the guest of a VM for `seconds` at most, and return what is written down about it.

    Raises `GuestNotFrozen` when it cannot; and whatever else is raised, it may be frozen and is written down as such.
    """
    until = utc_now() + dt.timedelta(seconds=seconds)
    item = exposure.note(HeldKind.FREEZE, f"{until.isoformat(timespec='milliseconds')}/{exposure.vm_id}")
    try:
        exposure.ports.engine.freeze(exposure.vm_id)
    except GuestNotFrozen:
        with suppress(OverkeepError):  # an agent that did not answer in time may have frozen it all the same
            exposure.ports.engine.thaw(exposure.vm_id)
        exposure.ports.store.held.release(item)
        raise
    return item


def thaw(ports: Ports, item: Held) -> None:
    """Thaw a guest; raises `GuestNotThawed` and the errors of the Manager: then it is written down as frozen still."""
    ports.engine.thaw(item.vm_id)
    ports.store.held.release(item)


def thaw_held(exposure: Exposure) -> None:
    """Thaw the guest if it is written down as frozen."""
    for item in exposure.held(HeldKind.FREEZE):
        thaw(exposure.ports, item)


def can_freeze(exposure: Exposure, *, seconds: float) -> str:
    """Freeze the guest and thaw it at once; return why it cannot be, empty when it can. May be repeated."""
    thaw_held(exposure)
    with _thawed_after(exposure):
        try:
            freeze(exposure, seconds=seconds)
        except GuestNotFrozen as error:
            return error.message
    return ""


@contextmanager
def _thawed_after(exposure: Exposure) -> Iterator[None]:
    try:
        yield
    finally:
        thaw_held(exposure)


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
