# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's table of exclusive and shared locks, which refuses a busy object instead of waiting for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType

from ovirtlab.engine.faults import Conflict

_IS_LOCKED = " is locked. Please try again"  # in texts that the engine puts after a colon

Key = tuple[str, str]  # (kind such as "vm", "disk", "template", id)


class Lock:
    """A set of locks held together; `release` may be called more than once."""

    def __init__(self, table: LockTable, *, exclusive: frozenset[Key], shared: frozenset[Key], why: str) -> None:
        self._table = table
        self.exclusive = exclusive
        self.shared = shared
        self.why = why

    def refusal(self, action: str) -> str:
        """What others are told; some texts follow the action after a colon, others after a full stop."""
        return f"{action}{':' if _IS_LOCKED in self.why else '.'} {self.why}"

    def release(self) -> None:
        self._table.forget(self)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


@contextmanager
def releasing(lock: Lock) -> Iterator[None]:
    """Release a lock when what is done under it is refused or fails; else whoever goes on holds it."""
    try:
        yield
    except BaseException:
        lock.release()
        raise


class LockTable:
    """Who holds what. Shared locks of one object live together; an exclusive one stands alone."""

    def __init__(self) -> None:
        self._held: list[Lock] = []

    def take(self, *, exclusive: Iterable[Key] = (), shared: Iterable[Key] = (), why: str, action: str) -> Lock:
        """Take all or none; raise `Conflict` with the holder's words when something is busy.

        `why` is what others are told while it is held (`The VM is during a backup operation.`), `action` begins the
        refusal (`Cannot run VM`): `[Cannot run VM. The VM is during a backup operation.]`.
        """
        lock = Lock(self, exclusive=frozenset(exclusive), shared=frozenset(shared), why=why)
        holder = self.holder(lock.exclusive, lock.shared)
        if holder is not None:
            raise Conflict(f"[{holder.refusal(action)}]")
        self._held.append(lock)
        return lock

    def holder(self, exclusive: Iterable[Key], shared: Iterable[Key] = ()) -> Lock | None:
        """The lock that stands in the way of these, if any."""
        exclusive, shared = frozenset(exclusive), frozenset(shared)
        for held in self._held:
            if exclusive & (held.exclusive | held.shared) or shared & held.exclusive:
                return held
        return None

    def forget(self, lock: Lock) -> None:
        if lock in self._held:
            self._held.remove(lock)
