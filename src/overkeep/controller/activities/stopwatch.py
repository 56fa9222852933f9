# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the time of the work on a VM goes: with the Manager's own phases, with copies, or with neither."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Counts the seconds in which somebody waits for the Manager and nobody copies. May be used by several threads.

    Disks are opened and copied side by side: a wait for one of them while another is copied costs nothing.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = self._copying = 0
        self._since = clock()
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The Manager works on something, and it is waited for."""
        self._change(waiting=1)
        try:
            yield
        finally:
            self._change(waiting=-1)

    @contextmanager
    def copying(self) -> Iterator[None]:
        """A mover copies."""
        self._change(copying=1)
        try:
            yield
        finally:
            self._change(copying=-1)

    def take(self) -> float:
        """Return what was counted since it was last asked."""
        self._change()
        with self._lock:
            taken, self._waited = self._waited, 0.0
        return taken

    def _change(self, *, waiting: int = 0, copying: int = 0) -> None:
        with self._lock:
            now = self._clock()
            if self._waiting and not self._copying:
                self._waited += now - self._since
            self._since = now
            self._waiting += waiting
            self._copying += copying
