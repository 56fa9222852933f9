# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose processor time it is: what the twins and the looks of a measurement use, in the process that is measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Account:
    """Seconds of processor time that were used within it, by all threads; what is within twice counts once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = threading.local()
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """What was used so far; of a call that goes on, nothing."""
        with self._lock:
            return self._seconds

    @contextmanager
    def charged(self) -> Iterator[None]:
        """Charge what this thread uses within."""
        if getattr(self._within, "is", False):
            yield
            return
        self._within.__dict__["is"] = True
        began = time.thread_time()
        try:
            yield
        finally:
            used = time.thread_time() - began
            del self._within.__dict__["is"]
            with self._lock:
                self._seconds += used

    def charge(self, twin: object) -> None:
        """Charge all calls of an object's public methods; it knows nothing of it."""
        for name in dir(type(twin)):
            method = getattr(type(twin), name)
            if callable(method) and not name.startswith("_"):
                setattr(twin, name, self._charging(getattr(twin, name)))

    def _charging(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.charged():
                return method(*args, **kwargs)

        return call
