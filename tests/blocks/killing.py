# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that are killed while they do a piece of work, and whether the kill came in time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from typing import Any

from tests.forks import FORKS

DEADLINE = 90.0
BEGUN, ENDED = "begun", "ended"


class Victim:
    """A process that does `work(*args)`; what is killed before or after that is not killed in time."""

    def __init__(self, work: Callable[..., None], *args: Any) -> None:
        self._told, telling = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=_do, args=(telling, work, *args))
        self._process.start()
        telling.close()
        assert self._told.poll(DEADLINE)
        assert self._told.recv() == BEGUN
        self._begun = time.monotonic()

    def outlive(self) -> float:
        """Wait for the end of the work; return how many seconds it took."""
        assert self._ended(DEADLINE)
        lived = time.monotonic() - self._begun
        self._process.join(DEADLINE)
        assert self._process.exitcode == 0
        return lived

    def die_by_itself(self) -> bool:
        """Wait for its end; whether it was killed at its work."""
        ended = self._ended(DEADLINE)
        self._process.join(DEADLINE)
        assert self._process.exitcode in (0, -9)
        return not ended

    def kill(self, *, after: float) -> bool:
        """Kill it so many seconds after it began; whether it was at its work then."""
        ended = self._ended(after)
        self._process.kill()
        self._process.join(DEADLINE)
        assert self._process.exitcode in (0, -9)
        return not (ended or self._ended(0))

    def _ended(self, seconds: float) -> bool:
        """Whether it says within so many seconds that its work is done; a death is not the end of the work."""
        try:
            return self._told.poll(seconds) and self._told.recv() == ENDED
        except EOFError:
            return False


def _do(telling: Connection, work: Callable[..., None], *args: Any) -> None:
    telling.send(BEGUN)
    work(*args)
    telling.send(ENDED)


def kill_in_time(attempt: Callable[[], AbstractContextManager[Victim]], rng: random.Random, *, times: int) -> None:
    """Kill at random instants of the work until so many kills came in time; an attempt looks at what is left.

    An instant that is drawn from the time that one piece of work took may come too late for another, which is not
    counted; when most of them come too late, that is told.
    """
    whole = min(_time_of(attempt) for _ in range(3))  # the first one also finds nothing in caches
    killed = tried = 0
    while killed < times:
        assert tried < 4 * times + 20, f"only {killed} of {tried} kills came in time, within {whole:.3f} s"
        tried += 1
        with attempt() as victim:
            killed += victim.kill(after=rng.uniform(0, whole))
    print(f"{killed} of {tried} kills came in time, within {whole:.3f} s")


def _time_of(attempt: Callable[[], AbstractContextManager[Victim]]) -> float:
    with attempt() as victim:
        return victim.outlive()
