# SPDX-License-Identifier: GPL-3.0-or-later
"""A clock that only a test moves."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """Stands still until somebody sleeps by it or sets `now`, in seconds; `asked` is called whenever it is read."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.asked: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        self.asked()
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
