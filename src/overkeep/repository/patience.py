# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls that may hang for ever, as those to a hard mount whose server is away, and callers that do not wait so long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

MOST = 8  # calls that hang at once; more fail at once
AGAIN = 60.0  # seconds after which somebody waits once more for what did not answer, though it still hangs

_Value = TypeVar("_Value")
_NO_TURNS = threading.Semaphore(0)


class Answer(Generic[_Value]):
    """What a call in a thread of its own returns or raises; it is not `begun` when too many hang already."""

    def __init__(self, act: Callable[[], _Value], turns: threading.Semaphore) -> None:
        self._act = act
        self._turns = turns
        self._began = time.monotonic()
        self._given_up_at: float | None = None
        self._over = threading.Event()
        self._value: list[_Value] = []
        self._error: BaseException = TimeoutError()
        self.begun = turns.acquire(blocking=False)
        if self.begun:
            # a daemon, because no process should stay for the sake of a dead server
            threading.Thread(target=self._run, name="target", daemon=True).start()
        else:
            self._over.set()

    def wait(self, seconds: float, *, glance: bool = False) -> _Value:
        """Return or raise what the call did; raise `TimeoutError` when `seconds` after its beginning it has not.

        Who only takes a `glance` has not found out that it hangs: it may only be slow.
        """
        self._over.wait(max(0.0, self._began + seconds - time.monotonic()))
        if self._value:
            return self._value[0]
        if not (glance or self._over.is_set()):
            self._given_up_at = time.monotonic()
        raise self._error

    @property
    def over(self) -> bool:
        """Whether nothing comes any more."""
        return self._over.is_set()

    @property
    def hangs(self) -> bool:
        """Whether somebody waited in vain a short while ago, and it has not come since."""
        given_up_at = self._given_up_at
        return not self._over.is_set() and given_up_at is not None and time.monotonic() - given_up_at < AGAIN

    def _run(self) -> None:
        try:
            self._value.append(self._act())
        except BaseException as error:  # noqa: BLE001 - it is raised again where somebody waits for the answer
            self._error = error
        finally:
            self._turns.release()
            self._over.set()


class Impatient:
    """Makes calls in threads. Those that hang are few, whatever the number of callers, and so are those who wait.

    While one hangs that somebody has given up, others are not begun: they fail at once.
    """

    def __init__(self, *, most: int = MOST) -> None:
        self._turns = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._begun: list[Answer[Any]] = []

    def begin(self, act: Callable[[], _Value]) -> Answer[_Value]:
        """Begin a call; when too many hang already, or one that was given up, its answer is `TimeoutError`."""
        with self._lock:
            self._begun = [answer for answer in self._begun if not answer.over]
            if any(answer.hangs for answer in self._begun):
                return Answer(act, _NO_TURNS)
            answer = Answer(act, self._turns)
            if answer.begun:
                self._begun.append(answer)
            return answer

    def call(self, act: Callable[[], _Value], *, seconds: float, glance: bool = False) -> _Value:
        """Make a call and wait for it, as `Answer.wait`; raise `TimeoutError` when it takes longer."""
        return self.begin(act).wait(seconds, glance=glance)
