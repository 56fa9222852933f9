# SPDX-License-Identifier: GPL-3.0-or-later
"""One order while it is worked on: what stops it, how long it was left alone, and where it reports to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from overkeep.errors import OverkeepError
from overkeep.mover.orders import CopyOrder, Progress, sink_path

REPORT_EVERY = 1.0  # seconds between two reports of progress


class Work:
    """An accepted order and its fate. Safe to use from several threads."""

    def __init__(
        self,
        order_id: str,
        order: CopyOrder,
        *,
        report: Callable[[str, Progress], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = order_id
        self.order = order
        self.sink = sink_path(order)
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._reason: OverkeepError | None = None
        self._hooks: list[Callable[[], None]] = []
        self._heard = clock()
        self._listeners = 0
        self._reported = float("-inf")

    # stopping

    @property
    def reason(self) -> OverkeepError | None:
        """Why the work must stop, None while it may go on."""
        return self._reason

    @property
    def stopped(self) -> bool:
        """Whether the work must stop."""
        return self._reason is not None

    def stop(self, reason: OverkeepError) -> None:
        """Ask the work to stop; the first reason counts."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            hooks = list(self._hooks)
        for hook in hooks:
            hook()

    def check(self) -> None:
        """Raise the reason to stop, if there is one."""
        if self._reason is not None:
            raise self._reason

    @contextmanager
    def on_stop(self, hook: Callable[[], None]) -> Iterator[None]:
        """Call `hook` from the stopping thread while the body runs, to end a wait that cannot look at `stopped`."""
        with self._lock:
            self._hooks.append(hook)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._hooks.remove(hook)

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
