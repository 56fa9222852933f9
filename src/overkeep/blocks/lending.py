# SPDX-License-Identifier: GPL-3.0-or-later
"""Clones of one end, lent to one worker at a time: as many as there may be, made when they are first needed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Generic, Protocol, TypeVar

from overkeep.blocks.errors import DiskUnreachable
from overkeep.logs import fields

log = logging.getLogger(__name__)


class Cloned(Protocol):
    """An end as far as lending it goes."""

    @property
    def parallel(self) -> int:
        """Clones that may work at the same time; with 0 the end itself must do the work."""

    def close(self) -> None:
        """Release what it holds."""


End = TypeVar("End", bound=Cloned)


class Lending(Generic[End]):
    """Lends clones of `end`; a borrower waits while `end.parallel` of them are lent, or all that the server takes.

    So more workers than connections can share a disk: while some wait for it, others write what they have read.
    """

    def __init__(self, end: End, clone: Callable[[], End]) -> None:
        self._end = end
        self._clone = clone
        self._idle: list[End] = []
        self._made = 0
        self._most = end.parallel
        self._changed = threading.Condition()

    def begin(self) -> bool:
        """Make the first clone, before any is lent; return False when there can be none and the end itself is lent.

        Raises what making one raises, but for `DiskUnreachable`.
        """
        first = self._one_more() if self._most else None
        self._idle.append(first or self._end)
        self._made = 1
        if first is None:
            self._most = 1
        return first is not None

    @contextmanager
    def lent(self) -> Iterator[End]:
        """Lend a clone during the body; raises what making one raises, but for `DiskUnreachable`."""
        clone = self._take()
        try:
            yield clone
        finally:
            with self._changed:
                self._idle.append(clone)
                self._changed.notify()

    def _take(self) -> End:
        while True:
            with self._changed:
                while not self._idle and self._made >= self._most:
                    self._changed.wait()
                if self._idle:
                    return self._idle.pop()
                self._made += 1
            clone = None
            try:
                clone = self._one_more()
            finally:
                if clone is None:
                    self._make_do()
            if clone is not None:
                return clone

    def _one_more(self) -> End | None:
        """Make a clone; None when the server takes no more connections."""
        try:
            return self._clone()
        except DiskUnreachable as error:
            log.info("fewer connections %s", fields(reason=repr(str(error))))
            return None

    def _make_do(self) -> None:
        """Go on with those that there are."""
        with self._changed:
            self._made -= 1
            self._most = self._made
            self._changed.notify_all()

    def close(self) -> None:
        """Close all clones, when nobody borrows any more; also the others when closing one fails."""
        with ExitStack() as clones:
            while self._idle:
                clone = self._idle.pop()
                if clone is not self._end:
                    clones.callback(clone.close)
