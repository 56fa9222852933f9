# SPDX-License-Identifier: GPL-3.0-or-later
"""A mover in memory for tests of the controller: the same port and rules, no disk, no thread, no network."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from overkeep import __version__
from overkeep.errors import NotFound, OverkeepError
from overkeep.model.findings import Finding
from overkeep.model.probes import OWNER, Probe, Terms
from overkeep.mover.admission import admit
from overkeep.mover.api import LONGEST_WAIT, Health, Load
from overkeep.mover.errors import (
    FencedOff,
    LeaseExpired,
    MoverBusy,
    MoverRestarted,
    MoverUnreachable,
    OrderDiffers,
    OrderUnknown,
    cancellation,
)
from overkeep.mover.orders import (
    CopyOrder,
    CopyResult,
    ImageFindings,
    MergeOrder,
    MergeResult,
    Order,
    OrderState,
    OrderStatus,
    Progress,
    Result,
    VerifyOrder,
    VerifyResult,
    collide,
    sink_path,
)
from overkeep.units import MIB, TIB

Outcome = Callable[[CopyOrder], CopyResult]
"""What a copy comes to: a result, or an `OverkeepError` that it raises."""

Bookkeeping = Callable[[MergeOrder | VerifyOrder], MergeResult | VerifyResult]
"""The same for a merge or a check."""

Probing = Callable[[str, Terms, str], Probe]
"""What a probe of a target on some terms, that should hold a repository, comes to, or an `OverkeepError` it raises."""

SIZE = 1 << 30
_LONGEST_HOLD = 20.0  # seconds for which a cancel that a test forgot is held

_P = ParamSpec("_P")
_R = TypeVar("_R")


def instant(_: CopyOrder) -> CopyResult:
    """The usual outcome: a disk of 1 GiB that holds 1 MiB."""
    return CopyResult(virtual_size=SIZE, covered=SIZE, moved=1 << 20, stored=(1 << 20) + (1 << 18), seconds=0.5)


def fine(target: str, terms: Terms, repository: str) -> Probe:
    """The usual outcome: a target of 1 TiB, half full, with everything as it should be."""
    return Probe(
        root=f"/run/overkeep/{target}",
        source=f"server:/{target}",
        repository=repository,
        owner=OWNER,
        direct=True,
        synced_ms=2.5,
        size=terms.size,
        write_speed=300.0 * MIB,
        read_speed=500.0 * MIB,
        space=TIB,
        free=TIB // 2,
    )


def quiet(order: MergeOrder | VerifyOrder) -> MergeResult | VerifyResult:
    """The usual outcome: everything is removed, or nothing is found to be wrong."""
    if isinstance(order, MergeOrder):
        return MergeResult(moved=1 << 20, freed=1 << 18, removed=order.remove, seconds=0.5)
    return VerifyResult(images=tuple(sound(name, order.share) for name in order.images), seconds=0.5)


def sound(image: str, share: float) -> ImageFindings:
    """What is found in an image of 1 MiB with which nothing is wrong."""
    held = 1 << 20
    return ImageFindings(
        image=image, held=held, checked=int(held * share), damaged=0, named=(), undigested=0, leaked=0, errors=()
    )


def _alone(method: Callable[Concatenate[MemoryMover, _P], _R]) -> Callable[Concatenate[MemoryMover, _P], _R]:
    """Let one thread at a time run the method."""

    @functools.wraps(method)
    def locked(self: MemoryMover, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self._lock:
            return method(self, *args, **kwargs)

    return locked


@dataclass(kw_only=True)
class _Entry:
    order: Order
    status: OrderStatus
    heard: float


class MemoryMover:
    """A mover of `host` (`overkeep.mover.api.Mover`).

    Orders end as soon as they have a turn, as `outcome` says; while `held`, they keep running until `release`.
    `reachable = False` lets every call fail as if the host were down; its clock is `clock_off` seconds ahead,
    `check` finds `findings`, and `probe` what `probed` says. `received` is every order that was accepted.
    A wait that would last returns at once: time passes only by `clock`. May be used by several threads.
    """

    def __init__(
        self,
        host: str,
        *,
        targets: frozenset[str] = frozenset({"nfs1"}),
        outcome: Outcome = instant,
        bookkeeping: Bookkeeping = quiet,
        at_once: int = 4,
        waiting: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.outcome = outcome
        self.bookkeeping = bookkeeping
        self.held = False
        self.reachable = True
        self.clock_off = 0.0
        self.findings: tuple[Finding, ...] = ()
        self.probed: Probing = fine
        self.received: dict[str, Order] = {}
        self._targets = targets
        self._at_once = at_once
        self._waiting = waiting
        self._clock = clock
        self._lock = threading.RLock()
        self._cancels = threading.Event()
        self._cancels.set()
        self._entries: dict[str, _Entry] = {}
        self._fences: dict[str, int] = {}

    # the port

    @_alone
    def put(self, order_id: str, order: Order) -> OrderStatus:
        """As `Mover.put`."""
        self._arrive()
        known = self._entries.get(order_id)
        if known is None:
            known = self._accept(order_id, order)
        elif known.order != order:
            raise OrderDiffers(order=order_id)
        known.heard = self._clock()
        self._work()
        return known.status

    @_alone
    def wait(self, order_id: str, *, after: int, timeout: float = LONGEST_WAIT) -> OrderStatus:
        """As `Mover.wait`."""
        self._arrive()
        entry = self._entry(order_id)
        entry.heard = self._clock()
        return entry.status

    def cancel(self, order_id: str, *, timeout: float = 60) -> OrderStatus:
        """As `Mover.cancel`."""
        self._cancels.wait(_LONGEST_HOLD)
        with self._lock:
            self._arrive()
            entry = self._entry(order_id)
            self._fail(entry, cancellation(order_id, kind=entry.order.kind), state=OrderState.CANCELLED)
            self._work()
            return entry.status

    @_alone
    def orders(self) -> tuple[OrderStatus, ...]:
        """As `Mover.orders`."""
        self._arrive()
        return tuple(entry.status for entry in self._entries.values())

    @_alone
    def health(self) -> Health:
        """As `Mover.health`."""
        self._arrive()
        states = [entry.status.state for entry in self._entries.values() if not entry.status.state.terminal]
        running = states.count(OrderState.RUNNING)
        load = Load(at_once=self._at_once, running=running, waiting=len(states) - running)
        return Health(version=__version__, host=self.host, time=time.time() + self.clock_off, load=load)

    @_alone
    def check(self) -> tuple[Finding, ...]:
        """As `Mover.check`."""
        self._arrive()
        return self.findings

    @_alone
    def probe(self, target: str, terms: Terms, *, repository: str) -> Probe:
        """As `Mover.probe`."""
        self._arrive()
        if target not in self._targets:
            raise NotFound(kind="target", name=target, how=f"the settings of the mover on {self.host}")
        return self.probed(target, terms, repository)

    def close(self) -> None:
        """Nothing to release."""

    # what a test does to it

    @_alone
    def release(self) -> None:
        """Let held orders end."""
        self.held = False
        self._work()

    @_alone
    def end(self, order_id: str, error: OverkeepError) -> None:
        """Let one order that is held fail."""
        self._fail(self._entry(order_id), error)

    def hold_cancels(self) -> None:
        """Let every cancel take long, until `let_cancels`."""
        self._cancels.clear()

    def let_cancels(self) -> None:
        """Let cancels that are held go on."""
        self._cancels.set()

    def running(self) -> tuple[str, ...]:
        """The ids of orders that have not ended; not a call."""
        return tuple(entry.status.id for entry in self._entries.values() if not entry.status.state.terminal)

    @_alone
    def advance(self, order_id: str, progress: Progress) -> None:
        """Let a running order report progress."""
        self._change(self._entry(order_id), progress=progress)

    @_alone
    def restart(self) -> None:
        """Be killed and started again: what has not ended is interrupted, the rest is remembered."""
        for entry in self._entries.values():
            self._fail(entry, MoverRestarted(host=self.host), state=OrderState.INTERRUPTED)

    # inside

    def _arrive(self) -> None:
        if not self.reachable:
            raise MoverUnreachable(host=self.host, url=f"https://{self.host}:54325", reason="Connection refused")
        for entry in self._entries.values():
            if self._clock() - entry.heard >= entry.order.lease:
                self._fail(entry, LeaseExpired(lease=f"{entry.order.lease:g}"))
        self._work()

    def _accept(self, order_id: str, order: Order) -> _Entry:
        admit(order_id, order, host=self.host, targets=self._targets)
        waiting = sum(entry.status.state is OrderState.ACCEPTED for entry in self._entries.values())
        if waiting >= self._waiting:
            raise MoverBusy(host=self.host, waiting=waiting, seconds=10)
        sink = sink_path(order)
        seen = self._fences.get(sink, 0)
        if order.fenced and order.fence < seen:
            raise FencedOff(order=order_id, fence=order.fence, seen=seen, sink=sink)
        self._fences[sink] = order.fence
        self.received[order_id] = order
        status = OrderStatus(id=order_id, state=OrderState.ACCEPTED, seq=1)
        self._entries[order_id] = _Entry(order=order, status=status, heard=self._clock())
        return self._entries[order_id]

    def _entry(self, order_id: str) -> _Entry:
        if order_id not in self._entries:
            raise OrderUnknown(host=self.host, order=order_id)
        return self._entries[order_id]

    def _work(self) -> None:
        """Give turns, and end what runs unless it is held."""
        while started := self._next():
            self._change(started, state=OrderState.RUNNING)
            if not self.held:
                self._end(started)
        if not self.held:
            running = [entry for entry in self._entries.values() if entry.status.state is OrderState.RUNNING]
            for entry in running:
                self._end(entry)
            if running:
                self._work()

    def _next(self) -> _Entry | None:
        running = [entry for entry in self._entries.values() if entry.status.state is OrderState.RUNNING]
        if len(running) >= self._at_once:
            return None
        waiting = (entry for entry in self._entries.values() if entry.status.state is OrderState.ACCEPTED)
        return next((one for one in waiting if not any(collide(one.order, entry.order) for entry in running)), None)

    def _end(self, entry: _Entry) -> None:
        try:
            result = self._outcome(entry.order)
        except OverkeepError as error:
            self._fail(entry, error)
        else:
            self._change(entry, state=OrderState.DONE, result=result)

    def _outcome(self, order: Order) -> Result:
        return self.outcome(order) if isinstance(order, CopyOrder) else self.bookkeeping(order)

    def _fail(self, entry: _Entry, error: OverkeepError, *, state: OrderState = OrderState.FAILED) -> None:
        self._change(entry, state=state, error_code=error.code, error=str(error), retry=error.retry)

    def _change(self, entry: _Entry, **update: object) -> None:
        if not entry.status.state.terminal:
            entry.status = entry.status.model_copy(update={**update, "seq": entry.status.seq + 1})
