# SPDX-License-Identifier: GPL-3.0-or-later
"""One order while it is worked on: what stops it, how long it was left alone, and where it reports to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from overkeep.mover.orders import Order, Progress, sink_path
from overkeep.mover.stopping import Stoppable

REPORT_EVERY = 1.0  # seconds between two reports of progress


class Work(Stoppable):
    """An accepted order and its fate. Safe to use from several threads."""

    def __init__(
        self,
        order_id: str,
        order: Order,
        *,
        report: Callable[[str, Progress], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.id = order_id
        self.order = order
        self.sink = sink_path(order)
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._heard = clock()
        self._listeners = 0
        self._reported = float("-inf")

    # progress

    def progress(self, progress: Progress) -> None:
        """Report how far the work is, at most once in `REPORT_EVERY` seconds; the rest is dropped."""
        now = self._clock()
        with self._lock:
            if now - self._reported < REPORT_EVERY:
                return
            self._reported = now
        self._report(self.id, progress)

    # lease

    @contextmanager
    def contact(self) -> Iterator[None]:
        """Keep the lease alive during the body and renew it at the end."""
        with self._lock:
            self._listeners += 1
        try:
            yield
        finally:
            with self._lock:
                self._listeners -= 1
                self._heard = self._clock()

    def lease_left(self) -> float:
        """Seconds until the lease ends; not positive when it has."""
        with self._lock:
            if self._listeners:
                return self.order.lease
            return self._heard + self.order.lease - self._clock()
