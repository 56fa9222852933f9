# SPDX-License-Identifier: GPL-3.0-or-later
"""The orders of a mover from acceptance to their end: turns, threads, leases, cancelling."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.mover.api import LONGEST_WAIT, Load
from overkeep.mover.errors import LeaseExpired, MoverBusy, MoverRestarted, MoverStopping, OrderCancelled, cancellation
from overkeep.mover.orders import (
    Access,
    CopyOrder,
    CopyResult,
    Image,
    MergeResult,
    Order,
    OrderState,
    OrderStatus,
    Progress,
    Result,
    collide,
    masked,
)
from overkeep.mover.table import Accepted, OrderTable
from overkeep.mover.work import Work

RETRY_AFTER = 10  # seconds a controller waits when the queue is full
PRUNE_EVERY = 600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many orders run at once, and how many more may wait."""

    at_once: int
    waiting: int


class OrderQueue:
    """Runs orders with `execute`, each in a thread, never two that `collide`.

    `execute` gets a `Work`, looks at its `stopped`, and raises `OverkeepError` when it cannot finish.
    """

    def __init__(self, table: OrderTable, execute: Callable[[Work], Result], *, host: str, limits: Limits) -> None:
        self._table = table
        self._execute = execute
        self._host = host
        self._limits = limits
        self._changed = threading.Condition()
        self._waiting: dict[str, Work] = {}
        self._running: dict[str, Work] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = False
        self._watch = threading.Thread(target=self._watch_leases, name="leases", daemon=True)

    def start(self) -> None:
        """Settle what a dead process left and begin to take orders."""
        for order_id in self._table.interrupt_unfinished():
            log.warning("order interrupted %s", fields(order=order_id, reason="the mover was restarted"))
        self._table.prune()
        self._watch.start()

    def refuse(self) -> None:
        """Take no more orders and let waiting calls return."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def stop(self, *, timeout: float) -> bool:
        """Interrupt everything and end all threads; False when one did not end within `timeout` seconds."""
        error = MoverRestarted(host=self._host)
        self.refuse()
        with self._changed:
            for work in list(self._waiting.values()):
                self._settle(self._waiting.pop(work.id), error)
            works, threads = list(self._running.values()), [*self._threads.values(), self._watch]
        for work in works:
            work.stop(error)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    # calls of the controller

    def put(self, order_id: str, order: Order) -> Accepted:
        """Accept an order (`Mover.put`)."""
        with self._changed:
            if not self._table.knows(order_id):
                self._make_room()
            accepted = self._table.accept(order_id, order)
            if accepted.new:
                log.info("order accepted %s", fields(order=order_id, fence=order.fence))
                self._waiting[order_id] = Work(order_id, order, report=self._advance)
                self._dispatch()
            with self._contact(order_id):
                self._changed.notify_all()
        return accepted

    def wait(self, order_id: str, *, after: int, timeout: float) -> OrderStatus:
        """Wait for a change (`Mover.wait`)."""
        with self._contact(order_id):
            return self._until(lambda status: status.seq > after, order_id, timeout=timeout)

    def cancel(self, order_id: str, *, timeout: float = LONGEST_WAIT) -> OrderStatus:
        """Cancel an order (`Mover.cancel`)."""
        with self._changed:
            waiting, running = self._waiting.pop(order_id, None), self._running.get(order_id)
            if waiting:
                self._settle(waiting, cancellation(order_id, kind=waiting.order.kind))
        if running:
            running.stop(cancellation(order_id, kind=running.order.kind))
        with self._contact(order_id):
            return self._until(lambda _: False, order_id, timeout=timeout)

    def orders(self) -> tuple[OrderStatus, ...]:
        """All that is known (`Mover.orders`)."""
        return self._table.orders()

    def load(self) -> Load:
        """How much there is to do."""
        with self._changed:
            return Load(at_once=self._limits.at_once, running=len(self._running), waiting=len(self._waiting))

    # inside

    def _make_room(self) -> None:
        if self._stopping:
            raise MoverStopping(host=self._host)
        if len(self._waiting) >= self._limits.waiting:
            raise MoverBusy(host=self._host, waiting=len(self._waiting), seconds=RETRY_AFTER)

    @contextmanager
    def _contact(self, order_id: str) -> Iterator[None]:
        with self._changed:
            work = self._waiting.get(order_id) or self._running.get(order_id)
        with work.contact() if work else nullcontext():
            yield

    def _until(self, wanted: Callable[[OrderStatus], bool], order_id: str, *, timeout: float) -> OrderStatus:
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                status = self._table.status(order_id)
                left = deadline - time.monotonic()
                if wanted(status) or status.state.terminal or left <= 0 or self._stopping:
                    return status
                self._changed.wait(left)

    def _dispatch(self) -> None:
        """Start what may start; the caller holds the lock."""
        started = [work.order for work in self._running.values()]
        for work in list(self._waiting.values()):
            if self._stopping or len(self._running) >= self._limits.at_once:
                return
            if any(collide(work.order, order) for order in started):
                continue
            started.append(work.order)
            self._running[work.id] = self._waiting.pop(work.id)
            self._threads[work.id] = threading.Thread(
                target=self._run, args=(work,), name=f"order-{work.id}", daemon=True
            )
            self._threads[work.id].start()

    def _run(self, work: Work) -> None:
        try:
            self._table.start(work.id)
            self._notify()
            log.info("order begins %s", fields(order=work.id, kind=work.order.kind, **_told(work.order)))
            work.check()
            self._finish(work, self._execute(work))
        except OverkeepError as error:
            self._settle(work, work.reason or error)
        except Exception as error:  # the outermost worker: recorded, logged, and the mover goes on
            log.exception("order broke %s", fields(order=work.id))
            self._settle(work, work.reason or OverkeepError(reason=f"{type(error).__name__}: {error}"))
        finally:
            with self._changed:
                del self._running[work.id]
                del self._threads[work.id]
                self._dispatch()
                self._changed.notify_all()

    def _finish(self, work: Work, result: Result) -> None:
        self._table.finish(work.id, result)
        log.info("order done %s", fields(order=work.id, **_figures(result), seconds=f"{result.seconds:.3f}"))

    def _settle(self, work: Work, error: OverkeepError) -> None:
        state = OrderState.FAILED
        if isinstance(error, OrderCancelled):
            state = OrderState.CANCELLED
        elif isinstance(error, MoverRestarted):
            state = OrderState.INTERRUPTED
        self._table.fail(work.id, error, state=state)
        log.info("order ended %s", fields(order=work.id, state=state, code=error.code, error=repr(str(error))))
        self._notify()

    def _advance(self, order_id: str, progress: Progress) -> None:
        self._table.advance(order_id, progress)
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _watch_leases(self) -> None:
        pruned = time.monotonic()
        while True:
            with self._changed:
                works = (*self._waiting.values(), *self._running.values())
                left = [work.lease_left() for work in works if not work.stopped]
                self._changed.wait(min([PRUNE_EVERY, *(max(0.02, seconds) for seconds in left)]))
                if self._stopping:
                    return
                expired = [work for work in self._waiting.values() if work.lease_left() <= 0]
                for work in expired:
                    self._settle(self._waiting.pop(work.id), _silence(work))
                running = [work for work in self._running.values() if work.lease_left() <= 0]
            for work in running:
                work.stop(_silence(work))
            if time.monotonic() - pruned > PRUNE_EVERY:
                self._table.prune()
                pruned = time.monotonic()


def _told(order: Order) -> dict[str, str]:
    """What an order works on, for the log."""
    if isinstance(order, CopyOrder):
        return {"source": _end(order.source), "sink": _end(order.sink)}
    return {"disk": f"{order.target}/{order.folder}"}


def _figures(result: Result) -> dict[str, int | str]:
    """What an order came to, for the log."""
    found: dict[str, int | str] = {key: value for key, value in result.model_dump().items() if isinstance(value, int)}
    if isinstance(result, CopyResult | MergeResult):
        found["stages"] = ",".join(f"{name}:{seconds:.3f}" for name, seconds in result.stages.items()) or "none"
    return found


def _end(end: Access | Image) -> str:
    if isinstance(end, Access):
        return f"access:{masked(end.ticket)}"
    return f"image:{end.target}/{end.folder}/{end.name}"


def _silence(work: Work) -> LeaseExpired:
    return LeaseExpired(lease=f"{work.order.lease:g}")
