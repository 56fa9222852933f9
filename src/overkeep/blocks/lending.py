# SPDX-License-Identifier: GPL-3.0-or-later
"""Clones of one end, lent to one worker at a time: as many as the end allows, made when they are first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Cloned(Protocol):
    """An end as far as lending it goes."""

    @property
    def parallel(self) -> int:
        """Clones that may work at the same time."""

    def close(self) -> None:
        """Release what it holds."""


End = TypeVar("End", bound=Cloned)


class Lending(Generic[End]):
    """Lends clones of `end`; a borrower waits while `end.parallel` of them are lent.

    So more workers than connections can share a disk: while some wait for it, others write what they have read.
    """

    def __init__(self, end: End, clone: Callable[[], End]) -> None:
        self._end = end
        self._clone = clone
        self._idle: list[End] = []
        self._made = 0
        self._changed = threading.Condition()

    @contextmanager
    def lent(self) -> Iterator[End]:
        """Lend a clone during the body; raises what making one raises."""
        clone = self._take()
        try:
            yield clone
        finally:
            with self._changed:
                self._idle.append(clone)
                self._changed.notify()

    def _take(self) -> End:
        with self._changed:
            while not self._idle and self._made >= self._end.parallel:
                self._changed.wait()
            if self._idle:
                return self._idle.pop()
            self._made += 1
        try:
            return self._clone()
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise

    def close(self) -> None:
        """Close all clones, when nobody borrows any more."""
        while self._idle:
            clone = self._idle.pop()
            if clone is not self._end:
                clone.close()
