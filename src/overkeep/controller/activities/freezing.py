# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests that hold still for a backup go on again, whatever happens: a frozen guest is an outage.

Every freeze is written down before it is asked for, with the time at which it ends at the latest. It ends in three
ways: who froze the guest thaws it; so does the release of the job, which always runs; and a thread of every controller
thaws what is frozen for longer than it may be, also when the controller that froze it has died.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.ports import Ports
from overkeep.controller.records import Held, HeldKind
from overkeep.engine.errors import GuestNotFrozen
from overkeep.errors import OverkeepError
from overkeep.units import utc_now


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


def thaw_held(exposure: Exposure, *, among: Sequence[Held] | None = None) -> None:
    """Thaw the guest if it is written down as frozen; `among` what was read before."""
    for item in exposure.held(HeldKind.FREEZE, among=among):
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
