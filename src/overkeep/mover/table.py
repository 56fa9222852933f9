# SPDX-License-Identifier: GPL-3.0-or-later
"""The mover's own memory in SQLite: orders, the highest fence of each sink, and used nonces."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overkeep.errors import ConfigError, OverkeepError
from overkeep.mover.errors import FencedOff, MoverRestarted, OrderDiffers, OrderUnknown
from overkeep.mover.orders import (
    ORDER,
    RESULT,
    Access,
    CopyOrder,
    CopyResult,
    MergeResult,
    Order,
    OrderState,
    OrderStatus,
    Progress,
    Result,
    sink_path,
)

KEEP = 7 * 24 * 3600.0  # seconds that final orders and fences are kept

_VERSION = 1
_SCHEMA = """
CREATE TABLE orders (
    number INTEGER PRIMARY KEY,            -- order of arrival
    id TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL,
    sink TEXT NOT NULL,
    state TEXT NOT NULL,
    seq INTEGER NOT NULL,
    progress TEXT NOT NULL,
    result TEXT,
    error_code TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    retry INTEGER NOT NULL DEFAULT 0,
    changed REAL NOT NULL                  -- seconds since 1970
);
CREATE TABLE fences (
    sink TEXT PRIMARY KEY,
    seen INTEGER NOT NULL,                 -- highest fence of an order that was accepted
    finished INTEGER NOT NULL DEFAULT 0,   -- highest fence of an order that was done
    changed REAL NOT NULL
);
CREATE TABLE nonces (nonce TEXT PRIMARY KEY, expires REAL NOT NULL);
"""
_COLUMNS = "id, state, seq, progress, result, error_code, error, retry"


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What became of a `PUT`."""

    status: OrderStatus
    new: bool


class OrderTable:
    """Everything a mover must not forget. Safe to use from several threads; `close` it at the end.

    The file is written through to the disk on each change (`synchronous=FULL`): an order that was answered for, a
    fence and a used nonce outlive a power failure.
    """

    def __init__(self, path: Path, *, host: str, clock: Callable[[], float] = time.time) -> None:
        self._host = host
        self._clock = clock
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(path=path, reason=f"the table of orders cannot be opened: {error}") from error

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it has version {version}, this program knows version {_VERSION}")

    def close(self) -> None:
        """Close the file; may be called twice."""
        with self._lock:
            self._db.close()

    # orders

    def accept(self, order_id: str, order: Order) -> Accepted:
        """Keep a new order as `accepted`, or return the status of the same one; `OrderDiffers`, `FencedOff`."""
        body, sink = order.model_dump_json(), sink_path(order)
        with self._transaction() as db:
            row = db.execute("SELECT body FROM orders WHERE id = ?", (order_id,)).fetchone()
            if row is not None:
                if row[0] != body:
                    raise OrderDiffers(order=order_id)
                return Accepted(status=_status(db, order_id, self._host), new=False)
            if order.fenced:
                self._raise_fence(db, order_id, order)
            db.execute(
                "INSERT INTO orders (id, body, sink, state, seq, progress, changed) VALUES (?, ?, ?, ?, 1, ?, ?)",
                (order_id, body, sink, OrderState.ACCEPTED, Progress().model_dump_json(), self._clock()),
            )
            return Accepted(status=_status(db, order_id, self._host), new=True)

    def knows(self, order_id: str) -> bool:
        """Whether there is such an order."""
        with self._transaction() as db:
            return db.execute("SELECT 1 FROM orders WHERE id = ?", (order_id,)).fetchone() is not None

    def status(self, order_id: str) -> OrderStatus:
        """The status of an order; `OrderUnknown`."""
        with self._transaction() as db:
            return _status(db, order_id, self._host)

    def orders(self) -> tuple[OrderStatus, ...]:
        """All orders, oldest first."""
        with self._transaction() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM orders ORDER BY number").fetchall()  # noqa: S608 - constant
        return tuple(_from_row(row) for row in rows)

    def order(self, order_id: str) -> Order:
        """The order as it came; `OrderUnknown`."""
        with self._transaction() as db:
            row = db.execute("SELECT body FROM orders WHERE id = ?", (order_id,)).fetchone()
        if row is None:
            raise OrderUnknown(host=self._host, order=order_id)
        return ORDER.validate_json(row[0])

    # changes of state; each returns the new status

    def start(self, order_id: str) -> OrderStatus:
        """accepted → running."""
        return self._change(order_id, state=OrderState.RUNNING)

    def advance(self, order_id: str, progress: Progress) -> OrderStatus:
        """Keep how far the work is."""
        return self._change(order_id, progress=progress.model_dump_json())

    def finish(self, order_id: str, result: Result) -> OrderStatus:
        """running → done."""
        with self._transaction() as db:
            db.execute(
                "UPDATE fences SET finished = max(finished, json_extract(orders.body, '$.fence')) FROM orders "
                "WHERE orders.id = ? AND orders.sink = fences.sink",
                (order_id,),
            )
            last = _passed(result).model_dump_json()
            return self._set(db, order_id, state=OrderState.DONE, result=result.model_dump_json(), progress=last)

    def fail(self, order_id: str, error: OverkeepError, *, state: OrderState = OrderState.FAILED) -> OrderStatus:
        """accepted or running → failed or cancelled."""
        return self._change(order_id, state=state, error_code=error.code, error=str(error), retry=int(error.retry))

    def interrupt_unfinished(self) -> tuple[str, ...]:
        """accepted and running → interrupted, at start; returns the ids."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT id FROM orders WHERE state IN (?, ?) ORDER BY number", (OrderState.ACCEPTED, OrderState.RUNNING)
            ).fetchall()
        error = MoverRestarted(host=self._host)
        for (order_id,) in rows:
            self.fail(order_id, error, state=OrderState.INTERRUPTED)
        return tuple(order_id for (order_id,) in rows)

    def finished_fence(self, sink: str) -> int:
        """Fence of the order that last was done at `sink`, 0 when none was."""
        with self._transaction() as db:
            row = db.execute("SELECT finished FROM fences WHERE sink = ?", (sink,)).fetchone()
        return int(row[0]) if row else 0

    def prune(self) -> None:
        """Forget final orders and unused fences after `KEEP` seconds, and nonces that have expired."""
        now = self._clock()
        with self._transaction() as db:
            db.execute(
                "DELETE FROM orders WHERE changed < ? AND state NOT IN (?, ?)",
                (now - KEEP, OrderState.ACCEPTED, OrderState.RUNNING),
            )
            db.execute("DELETE FROM fences WHERE changed < ? AND sink NOT IN (SELECT sink FROM orders)", (now - KEEP,))
            db.execute("DELETE FROM nonces WHERE expires < ?", (now,))

    def use(self, nonce: str, *, expires: float) -> bool:
        """Remember a nonce (`signing.Nonces`)."""
        with self._transaction() as db:
            done = db.execute("INSERT OR IGNORE INTO nonces VALUES (?, ?)", (nonce, expires))
            return done.rowcount == 1

    def _raise_fence(self, db: sqlite3.Connection, order_id: str, order: Order) -> None:
        sink = sink_path(order)
        row = db.execute("SELECT seen FROM fences WHERE sink = ?", (sink,)).fetchone()
        if row and order.fence < row[0]:
            raise FencedOff(order=order_id, fence=order.fence, seen=row[0], sink=_shown(order))
        db.execute(
            "INSERT INTO fences (sink, seen, changed) VALUES (?, ?, ?) "
            "ON CONFLICT (sink) DO UPDATE SET seen = excluded.seen, changed = excluded.changed",
            (sink, order.fence, self._clock()),
        )

    def _change(self, order_id: str, **columns: str | int) -> OrderStatus:
        with self._transaction() as db:
            return self._set(db, order_id, **columns)

    def _set(self, db: sqlite3.Connection, order_id: str, **columns: str | int) -> OrderStatus:
        """Set columns of an order that is not final yet; a final one stays as it is."""
        settings = ", ".join(f"{name} = ?" for name in columns)
        db.execute(
            f"UPDATE orders SET {settings}, seq = seq + 1, changed = ? "  # noqa: S608 - names are ours
            "WHERE id = ? AND state IN (?, ?)",
            (*columns.values(), self._clock(), order_id, OrderState.ACCEPTED, OrderState.RUNNING),
        )
        return _status(db, order_id, self._host)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _shown(order: Order) -> str:
    restores = isinstance(order, CopyOrder) and isinstance(order.sink, Access)
    return "this disk" if restores else sink_path(order)


def _passed(result: Result) -> Progress:
    """How far an order was when it was done."""
    if isinstance(result, CopyResult):
        return Progress(done=result.covered, total=result.covered, moved=result.moved)
    if isinstance(result, MergeResult):
        return Progress(done=result.moved, total=result.moved, moved=result.moved)
    checked = sum(found.checked for found in result.images)
    return Progress(done=checked, total=checked, moved=checked)


def _status(db: sqlite3.Connection, order_id: str, host: str) -> OrderStatus:
    row = db.execute(f"SELECT {_COLUMNS} FROM orders WHERE id = ?", (order_id,)).fetchone()  # noqa: S608 - constant
    if row is None:
        raise OrderUnknown(host=host, order=order_id)
    return _from_row(row)


def _from_row(row: tuple[str, str, int, str, str | None, str, str, int]) -> OrderStatus:
    order_id, state, seq, progress, result, code, error, retry = row
    return OrderStatus(
        id=order_id,
        state=OrderState(state),
        seq=seq,
        progress=Progress.model_validate_json(progress),
        result=RESULT.validate_json(result) if result else None,
        error_code=code,
        error=error,
        retry=bool(retry),
    )
