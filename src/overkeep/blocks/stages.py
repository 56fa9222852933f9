# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the time of a copy or a merge goes: seconds of all workers, by stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stages:
    """Adds up the seconds that workers spend in each stage. Safe for several threads.

    The stages are `source` (waiting for the disk that is read), `digest`, `compress` and `target` (waiting for what is
    written); of a merge also `tables` (finding out from the tables of the images what is to be moved, and writing those
    of the merged one). With several workers their sum exceeds the time on the clock.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def spent(self, stage: str) -> Iterator[None]:
        """Count the time of the body for `stage`."""
        begin = time.monotonic()
        try:
            yield
        finally:
            passed = time.monotonic() - begin
            with self._lock:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + passed

    def each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Yield `items`, counting for `stage` the time for which each is waited for."""
        waited = iter(items)
        while True:
            with self.spent(stage):
                try:
                    item = next(waited)
                except StopIteration:
                    return
            yield item

    @property
    def seconds(self) -> Mapping[str, float]:
        """The seconds so far, of the stages that occurred."""
        with self._lock:
            return dict(self._seconds)
