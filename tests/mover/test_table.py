# SPDX-License-Identifier: GPL-3.0-or-later
"""The mover's memory: what outlives a restart, and what is forgotten when."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from overkeep.errors import ConfigError, OverkeepError
from overkeep.mover.errors import FencedOff, LeaseExpired, OrderDiffers, OrderUnknown
from overkeep.mover.orders import Access, CopyOrder, CopyResult, Image, OrderState, Progress, sink_path
from overkeep.mover.table import KEEP, OrderTable

RESULT = CopyResult(virtual_size=4, covered=3, moved=2, stored=1, seconds=0.5)


def order(name: str = "p.qcow2", *, fence: int = 1) -> CopyOrder:
    sink = Image(target="nfs1", repository="r", folder="w/d", name=name)
    return CopyOrder(host="h", source=Access(ticket="t"), sink=sink, fence=fence)


class Desk:
    """A table that can be opened again, with a clock of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.now = path, 1e9
        self.table = self._open()

    def _open(self) -> OrderTable:
        return OrderTable(self.path, host="h", clock=lambda: self.now)

    def reopen(self) -> OrderTable:
        self.table.close()
        self.table = self._open()
        return self.table


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "state" / "orders.sqlite")


def test_each_change_raises_seq(desk: Desk) -> None:
    table = desk.table
    seqs = [
        table.accept("a:d:1", order()).status.seq,
        table.start("a:d:1").seq,
        table.advance("a:d:1", Progress(done=1, total=3, moved=1)).seq,
        table.finish("a:d:1", RESULT).seq,
    ]
    assert seqs == [1, 2, 3, 4]
    status = table.status("a:d:1")
    assert (status.state, status.result) == (OrderState.DONE, RESULT)
    assert status.progress == Progress(done=3, total=3, moved=2)


def test_a_final_state_stays(desk: Desk) -> None:
    table = desk.table
    table.accept("a:d:1", order())
    failed = table.fail("a:d:1", LeaseExpired(lease="3"))
    assert (failed.state, failed.error_code, failed.retry) == (OrderState.FAILED, "lease-expired", True)
    assert table.finish("a:d:1", RESULT) == failed
    assert table.advance("a:d:1", Progress(done=1)) == failed


def test_a_restart_interrupts_what_was_not_finished(desk: Desk) -> None:
    table = desk.table
    for name in ("a:d:1", "b:d:1", "c:d:1"):
        table.accept(name, order(f"{name[0]}.qcow2"))
    table.start("b:d:1")
    table.start("c:d:1")
    table.finish("c:d:1", RESULT)
    table = desk.reopen()
    assert table.interrupt_unfinished() == ("a:d:1", "b:d:1")
    assert [status.state for status in table.orders()] == [
        OrderState.INTERRUPTED,
        OrderState.INTERRUPTED,
        OrderState.DONE,
    ]
    assert table.status("a:d:1").error_code == "mover-restarted"
    assert table.order("b:d:1") == order("b.qcow2")


def test_same_id_and_body_is_the_same_order(desk: Desk) -> None:
    assert desk.table.accept("a:d:1", order()).new
    again = desk.reopen().accept("a:d:1", order())
    assert (again.new, again.status.state) == (False, OrderState.ACCEPTED)
    with pytest.raises(OrderDiffers):
        desk.table.accept("a:d:1", order("other.qcow2"))


def test_fences_outlive_a_restart(desk: Desk) -> None:
    desk.table.accept("a:d:1", order(fence=3))
    table = desk.reopen()
    with pytest.raises(FencedOff, match="fence 3 was seen"):
        table.accept("b:d:1", order(fence=2))
    assert table.accept("c:d:1", order(fence=3)).new
    assert table.accept("d:d:1", order("other.qcow2")).new
    assert not table.knows("b:d:1")


def test_the_fence_that_finished_is_known(desk: Desk) -> None:
    table = desk.table
    sink = sink_path(order())
    table.accept("a:d:1", order(fence=2))
    assert table.finished_fence(sink) == 0
    table.finish("a:d:1", RESULT)
    table.accept("b:d:1", order(fence=5))
    table.fail("b:d:1", LeaseExpired(lease="3"))
    assert desk.reopen().finished_fence(sink) == 2


def test_final_orders_are_kept_for_seven_days(desk: Desk) -> None:
    table = desk.table
    table.accept("done:d:1", order())
    table.finish("done:d:1", RESULT)
    table.accept("running:d:1", order("other.qcow2"))
    desk.now += KEEP - 1
    table.prune()
    assert len(table.orders()) == 2
    desk.now += 2
    table.prune()
    assert [status.id for status in table.orders()] == ["running:d:1"]
    with pytest.raises(OrderUnknown):
        table.status("done:d:1")
    assert table.finished_fence(sink_path(order())) == 0


def test_nonces_are_used_once_and_forgotten_when_they_expire(desk: Desk) -> None:
    assert desk.table.use("n", expires=desk.now + 60)
    assert not desk.reopen().use("n", expires=desk.now + 60)
    desk.now += 59
    desk.table.prune()
    assert not desk.table.use("n", expires=desk.now + 60)
    desk.now += 2
    desk.table.prune()
    assert desk.table.use("n", expires=desk.now + 60)


def test_a_table_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "orders.sqlite"
    path.write_bytes(b"not a data base " * 100)
    with pytest.raises(ConfigError, match="cannot be opened"):
        OrderTable(path, host="h")
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ConfigError, match="version 99"):
        OrderTable(path, host="h")


def test_an_error_rolls_back(desk: Desk) -> None:
    with pytest.raises(OverkeepError):
        desk.table.start("nobody")
    assert desk.table.accept("a:d:1", order()).new
