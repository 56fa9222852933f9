# SPDX-License-Identifier: GPL-3.0-or-later
"""Work of movers inside the folders of a target: an order is given to the mover that is best for it, and followed."""

from __future__ import annotations

import time
from collections.abc import Callable

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.activities.release import watch_release
from overkeep.controller.activities.steps import PASSING
from overkeep.controller.records import HeldKind
from overkeep.errors import OverkeepError
from overkeep.mover.api import Mover
from overkeep.mover.errors import MoverUnreachable
from overkeep.mover.orders import MergeOrder, OrderStatus, VerifyOrder

_FOLLOW = 1.5  # seconds a long poll lasts here: a cancel is to be seen within two

Make = Callable[[str], MergeOrder | VerifyOrder]
"""Makes the order for the host of this name."""


class NoHostUp(OverkeepError):
    """No mover is there to work on a target."""

    code = "no-host-up"
    template = (
        "No mover of a host that is up answers, so none can work for VM {vm}; "
        "see `overkeep movers`, and start one or activate its host."
    )
    retry = True
    status = 503


class Bookkeeping:
    """Gives orders for one VM of a job, one after the other; `host_id` is where it is done best, empty for anywhere."""

    def __init__(self, exposure: Exposure, *, host_id: str) -> None:
        self._exposure = exposure
        self._ports = exposure.ports
        self._host_id = host_id
        self._ending = watch_release(self._ports, exposure.watch.job_id, exposure.vm_id)

    def begin(self) -> None:
        """Stop orders of a controller that died: they may name what is gone by now."""
        self._ending.end_orders()

    def stop(self) -> None:
        """Stop what still works, whether or not the job was cancelled."""
        self._ending.end_orders()

    def mover(self) -> tuple[str, Mover]:
        """The id of a host and its mover: that of the VM's host, else the least loaded of those that answer."""
        hosts = self._ports.spread.order(first=self._host_id)
        if not hosts:
            raise NoHostUp(vm=self._exposure.vm_id)
        return hosts[0], self._ports.movers.at(hosts[0])

    def carry_out(self, chosen: tuple[str, Mover], *, act: str, disk_id: str, make: Make) -> OrderStatus:
        """Give the order of an `act` on a disk to a chosen mover, and return its last state."""
        host_id, mover = chosen
        exposure, held = self._exposure, self._ports.store.held
        prefix = f"{exposure.watch.job_id}-{exposure.vm_id[:8]}-{act}:{disk_id}:"
        earlier = [item for item in held.orders(exposure.watch.job_id, disk_id) if item.ref.startswith(prefix)]
        order_id = f"{prefix}{len(earlier) + 1}"
        item = exposure.note(HeldKind.ORDER, order_id, disk_id=disk_id, host_id=host_id)
        order = make(mover.host)
        status = exposure.watch.persist(
            lambda: mover.put(order_id, order), seconds=self._ports.patience.retry, on=PASSING
        )
        status = self._follow(mover, status)
        held.release(item)
        return status

    def _follow(self, mover: Mover, status: OrderStatus) -> OrderStatus:
        """Follow an order to its end; a mover that is silent for longer than its lease has stopped."""
        watch, patience = self._exposure.watch, self._ports.patience
        heard = time.monotonic()
        while not status.state.terminal:
            watch.check()
            asked = time.monotonic()
            try:
                seen, status = status.seq, mover.wait(status.id, after=status.seq, timeout=_FOLLOW)
                if status.seq == seen and time.monotonic() - asked < _FOLLOW / 2:  # it answers at once without news
                    watch.pause(patience.poll)
                heard = time.monotonic()
            except MoverUnreachable:
                if time.monotonic() - heard > max(patience.mover, patience.lease * 1.5):
                    raise
                watch.pause(patience.poll)
        return status
