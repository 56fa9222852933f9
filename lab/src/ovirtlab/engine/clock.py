# SPDX-License-Identifier: GPL-3.0-or-later
"""Engine time: real time, or time that runs faster so that tests of long timers are short."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta


class Clock:
    """All times and waits of the engine; with `scale` 60 a minute of the engine passes in a real second."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self._epoch = datetime.now(UTC)
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Engine seconds since the engine was made; never goes back."""
        return (time.monotonic() - self._start) * self.scale

    def now(self) -> datetime:
        """Engine time of day, UTC, in milliseconds as the engine's data base keeps it."""
        moment = self._epoch + timedelta(seconds=self.seconds())
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of engine time."""
        await asyncio.sleep(seconds / self.scale)

    def real_time(self, seconds: float = 0.0) -> float:
        """The time of day, in seconds since 1970, when `seconds` of engine time from now have passed.

        For what others hold against clocks of their own.
        """
        return time.time() + self.real(seconds)

    def real(self, seconds: float) -> float:
        """Real seconds that `seconds` of engine time take."""
        return seconds / self.scale
