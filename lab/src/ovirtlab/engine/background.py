# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that goes on beside requests and ends with the engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ovirtlab.engine.clock import Clock

log = logging.getLogger(__name__)


class Background:
    """Tasks with the engine's lifetime: `spawn` runs one to its end, `every` repeats one until the engine stops."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start `work` now; its failure is logged with its traceback, and seen by whoever awaits the task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def every(self, seconds: float, work: Callable[[], Awaitable[None]], *, name: str) -> asyncio.Task[None]:
        """Run `work` each `seconds` of engine time, first after one period; a failed round does not end it."""
        return self.spawn(self._repeat(seconds, work), name=name)

    async def stop(self) -> None:
        """Cancel everything and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.sleep(seconds)
            try:
                await work()
            except Exception:
                log.exception("A round of background work failed")

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("Background work %s failed", task.get_name(), exc_info=task.exception())
