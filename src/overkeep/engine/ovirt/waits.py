# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for the Manager to finish something it took on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from overkeep.engine.errors import NotReadyInTime

_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often to look and how long, in seconds, with the clock to do it by."""

    interval: float = 1.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until(self, look: Callable[[], tuple[_Found | None, str]], act: str, *, what: str, seconds: float) -> _Found:
        """Call `look` until it finds something; it returns that or None, and words for what it saw.

        Raises `NotReadyInTime`, with those words, after `seconds`.
        """
        deadline = self.clock() + seconds
        while True:
            found, seen = look()
            if found is not None:
                return found
            if self.clock() >= deadline:
                raise NotReadyInTime(act=act, what=what, seconds=seconds, seen=seen)
            self.sleep(self.interval)
