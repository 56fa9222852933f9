# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls that may hang for ever, as those to a hard mount whose server is away, and callers that do not wait so long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

MOST = 8  # calls that hang at once; more fail at once

_Value = TypeVar("_Value")


class Answer(Generic[_Value]):
    """What a call in a thread of its own returns or raises."""

    def __init__(self, act: Callable[[], _Value], turns: threading.Semaphore) -> None:
        self._act = act
        self._turns = turns
        self._began = time.monotonic()
        self._over = threading.Event()
        self._value: list[_Value] = []
        self._error: BaseException = TimeoutError()
        if turns.acquire(blocking=False):
            # a daemon, because no process should stay for the sake of a dead server
            threading.Thread(target=self._run, name="target", daemon=True).start()
        else:
            self._over.set()

    def wait(self, seconds: float) -> _Value:
        """Return or raise what the call did; raise `TimeoutError` when `seconds` after its beginning it has not."""
        self._over.wait(max(0.0, self._began + seconds - time.monotonic()))
        if self._value:
            return self._value[0]
        raise self._error

    def _run(self) -> None:
        try:
            self._value.append(self._act())
        except BaseException as error:  # noqa: BLE001 - it is raised again where somebody waits for the answer
            self._error = error
        finally:
            self._turns.release()
            self._over.set()


class Impatient:
    """Makes calls in threads. Those that hang are few, whatever the number of callers."""

    def __init__(self) -> None:
        self._turns = threading.Semaphore(MOST)

    def begin(self, act: Callable[[], _Value]) -> Answer[_Value]:
        """Begin a call; when too many hang already its answer is `TimeoutError`."""
        return Answer(act, self._turns)

    def call(self, act: Callable[[], _Value], *, seconds: float) -> _Value:
        """Make a call and wait for it; raise `TimeoutError` when it takes longer."""
        return self.begin(act).wait(seconds)
