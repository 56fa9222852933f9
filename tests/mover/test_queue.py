# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns, leases and ends of orders where the contract suite cannot look."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overkeep.mover.errors import LeaseExpired, MoverStopping, OrderCancelled
from overkeep.mover.orders import Access, CopyOrder, CopyResult, Image, OrderState, OrderStatus, Progress
from overkeep.mover.queue import Limits, OrderQueue
from overkeep.mover.table import OrderTable
from overkeep.mover.work import Work
from tests.clock import Clock

DEADLINE = 90.0
RESULT = CopyResult(virtual_size=4, covered=3, moved=2, stored=1, seconds=0.5)


def order(name: str = "p.qcow2", **changes: Any) -> CopyOrder:
    sink = Image(target="nfs1", repository="r", folder="w/d", name=name)
    return CopyOrder(host="h", source=Access(ticket="t"), sink=sink, **changes)


@pytest.fixture
def make_queue(tmp_path: Path) -> Iterator[Callable[..., OrderQueue]]:
    table = OrderTable(tmp_path / "orders.sqlite", host="h")
    made: list[OrderQueue] = []

    def make(execute: Callable[[Work], CopyResult], at_once: int = 2) -> OrderQueue:
        made.append(OrderQueue(table, execute, host="h", limits=Limits(at_once=at_once, waiting=8)))
        made[-1].start()
        return made[-1]

    yield make
    for queue in made:
        assert queue.stop(timeout=DEADLINE)
    table.close()


def final(queue: OrderQueue, order_id: str) -> OrderStatus:
    status = queue.wait(order_id, after=10**6, timeout=DEADLINE)
    assert status.state.terminal, status
    return status


def until_stopped(work: Work) -> CopyResult:
    woken = threading.Event()
    with work.on_stop(woken.set):
        assert woken.wait(DEADLINE)
    work.check()
    raise AssertionError("it was not stopped")


def test_a_bug_fails_one_order_and_not_the_mover(
    make_queue: Callable[..., OrderQueue], caplog: pytest.LogCaptureFixture
) -> None:
    bugs = iter([True, False])

    def execute(_: Work) -> CopyResult:
        if next(bugs):
            raise ZeroDivisionError("by zero")
        return RESULT

    queue = make_queue(execute, at_once=1)
    queue.put("j:a:1", order("a.qcow2"))
    status = final(queue, "j:a:1")
    assert (status.state, status.error_code) == (OrderState.FAILED, "internal")
    assert "ZeroDivisionError" in status.error
    assert any(record.exc_info for record in caplog.records)
    queue.put("j:b:1", order("b.qcow2"))
    assert final(queue, "j:b:1").state is OrderState.DONE


def test_no_more_at_once_than_allowed(make_queue: Callable[..., OrderQueue]) -> None:
    running, most = [0], [0]
    lock = threading.Lock()

    def execute(_: Work) -> CopyResult:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)  # so that they overlap if they may
        with lock:
            running[0] -= 1
        return RESULT

    queue = make_queue(execute, at_once=2)
    for number in range(6):
        queue.put(f"j:{number}:1", order(f"p{number}.qcow2"))
    for number in range(6):
        final(queue, f"j:{number}:1")
    assert most[0] == 2


def test_a_poll_under_way_keeps_the_lease(make_queue: Callable[..., OrderQueue]) -> None:
    queue = make_queue(until_stopped)
    queue.put("j:a:1", order(lease=1.5))
    assert queue.wait("j:a:1", after=10**6, timeout=2.5).state is OrderState.RUNNING
    began = time.monotonic()
    while not queue.orders()[0].state.terminal:
        assert time.monotonic() - began < DEADLINE
        time.sleep(0.02)
    assert queue.orders()[0].error_code == "lease-expired"
    assert time.monotonic() - began >= 1.0


def test_a_waiting_order_loses_its_lease_too(make_queue: Callable[..., OrderQueue]) -> None:
    queue = make_queue(until_stopped, at_once=1)
    queue.put("j:a:1", order("a.qcow2", lease=60))
    queue.put("j:b:1", order("b.qcow2", lease=0.2))
    while not queue.orders()[1].state.terminal:
        time.sleep(0.02)
    assert [status.state for status in queue.orders()] == [OrderState.RUNNING, OrderState.FAILED]


def test_stopping_interrupts_and_refuses(make_queue: Callable[..., OrderQueue]) -> None:
    queue = make_queue(until_stopped, at_once=1)
    queue.put("j:a:1", order("a.qcow2"))
    queue.put("j:b:1", order("b.qcow2"))
    assert queue.stop(timeout=DEADLINE)
    assert [status.state for status in queue.orders()] == [OrderState.INTERRUPTED] * 2
    with pytest.raises(MoverStopping):
        queue.put("j:c:1", order("c.qcow2"))
    assert queue.put("j:a:1", order("a.qcow2")).status.state is OrderState.INTERRUPTED
    assert not [thread for thread in threading.enumerate() if thread.name in ("leases", "order-j:a:1")]


def test_cancelling_waits_for_the_work_to_stop(make_queue: Callable[..., OrderQueue]) -> None:
    seen: list[str] = []
    begun, gate = threading.Event(), threading.Event()

    def execute(work: Work) -> CopyResult:
        seen.append(work.id)
        begun.set()
        assert gate.wait(DEADLINE)
        work.check()
        return RESULT

    queue = make_queue(execute, at_once=1)
    queue.put("j:a:1", order("a.qcow2"))
    queue.put("j:b:1", order("b.qcow2"))
    assert begun.wait(DEADLINE)
    assert queue.cancel("j:b:1").state is OrderState.CANCELLED
    assert queue.cancel("j:a:1", timeout=0.1).state is OrderState.RUNNING  # it has not stopped yet
    gate.set()
    assert queue.cancel("j:a:1").state is OrderState.CANCELLED
    assert seen == ["j:a:1"]


# one piece of work


def test_progress_is_reported_once_a_second() -> None:
    clock, seen = Clock(100.0), []
    work = Work("j:a:1", order(), report=lambda _, progress: seen.append(progress.done), clock=clock)
    for done in range(40):
        work.progress(Progress(done=done))
        clock.now += 0.125
    assert seen == [0, 8, 16, 24, 32]


def test_the_first_reason_to_stop_counts() -> None:
    work = Work("j:a:1", order(), report=lambda *_: None)
    called: list[str] = []
    work.check()
    with work.on_stop(lambda: called.append("hook")):
        work.stop(LeaseExpired(lease="1"))
        work.stop(OrderCancelled(what="It"))
    assert called == ["hook"]
    with pytest.raises(LeaseExpired):
        work.check()
    with pytest.raises(LeaseExpired), work.on_stop(lambda: called.append("late")):
        raise AssertionError("a stopped work does not begin anything")


def test_a_lease() -> None:
    clock = Clock(100.0)
    work = Work("j:a:1", order(lease=10), report=lambda *_: None, clock=clock)
    clock.now += 9
    assert work.lease_left() == 1
    with work.contact():
        clock.now += 30
        assert work.lease_left() == 10
    clock.now += 4
    assert work.lease_left() == 6
    clock.now += 6
    assert work.lease_left() <= 0
