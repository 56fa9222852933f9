# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that goes on beside requests: what an engine forgets when it restarts, and what it then goes on with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ovirtlab.engine.clock import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")


class Background:
    """Tasks beside the requests.

    What is `spawn`ed, and what repeats `every` so often, ends with the engine, also when it only restarts. An act that
    is `undertake`n is written down, as the engine's asynchronous tasks and commands are: the engine that starts again
    goes on with it, so that nothing that it holds stays locked for ever.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: set[asyncio.Task[Any]] = set()
        self._acts: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start `work` now; its failure is logged with its traceback, and seen by whoever awaits the task."""
        return self._begin(work, self._tasks, name=name)

    def undertake(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start an act that outlives a restart; whoever may end before it awaits it shielded."""
        return self._begin(work, self._acts, name=name)

    def every(self, seconds: float, work: Callable[[], Awaitable[None]], *, name: str) -> asyncio.Task[None]:
        """Run `work` each `seconds` of engine time, first after one period; a failed round does not end it."""
        return self.spawn(self._repeat(seconds, work), name=name)

    async def interrupt(self) -> None:
        """What a restart of the engine ends: everything but acts."""
        await _cancel(self._tasks)

    async def stop(self) -> None:
        """Cancel everything and wait for it."""
        await _cancel({*self._tasks, *self._acts})

    def _begin(self, work: Coroutine[Any, Any, T], kept: set[asyncio.Task[Any]], *, name: str) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        kept.add(task)
        task.add_done_callback(self._finished)
        return task

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.sleep(seconds)
            try:
                await work()
            except Exception:
                log.exception("A round of background work failed")

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._acts.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("Background work %s failed", task.get_name(), exc_info=task.exception())


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
