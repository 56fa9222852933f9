# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where events are made, in the transaction of what they tell of, read and forgotten."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from overkeep.controller.events import About, Draft, Event, Filter, Level
from overkeep.controller.store import event_spans
from overkeep.controller.store import schema as t
from overkeep.controller.store.database import alone, as_alone, listing, reading, single
from overkeep.controller.store.event_pages import page
from overkeep.controller.store.listed_events import ListedEvent, listed
from overkeep.units import utc_now

PAGE = 500  # events that are read at once, where nothing else is asked for
_FORGET_BATCH = 5000
_NOTE_EVERY = 250  # events of this process, after which is looked whether a block of them is full
# Statements that each event makes are put together once: that costs more than to run them.
_INSERT = sa.insert(t.event)
_ACT = "events"
_TOLD = "told_"  # before the columns, as a change beside the event would write what is named as its own columns are


def _insert_alone(change: sa.CTE | None = None) -> sa.Insert:
    """One event, in the same way to the server as the lock: the row, and with it its number, is made under the lock.

    None when one of its key is there. With a `change`, which goes there as well, one for each row that is changed; it
    is changed before the lock is asked for, in the order of all transactions with events.
    """
    columns = [column for column in t.event.c if column is not t.event.c.seq]
    turn = sa.select(as_alone(_ACT))
    if change is not None:
        turn = turn.select_from(change)
    row = sa.select(*(sa.bindparam(_TOLD + column.name, type_=column.type) for column in columns))
    names = [column.name for column in columns]
    insert = postgresql.insert(t.event).from_select(names, row.select_from(turn.subquery("turn")))
    insert = insert.on_conflict_do_nothing(index_elements=["key"])
    return insert if change is None else insert.add_cte(change)


@cache
def _changed_alone(change: sa.Update) -> sa.Insert:
    return _insert_alone(change.returning(sa.literal_column("1")).cte("changed"))


_INSERT_ALONE = _insert_alone()
_OF_KEY = sa.select(t.event.c.seq).where(t.event.c.key == sa.bindparam("key"))
_JOB = sa.select(t.job.c.workload_id, t.job.c.caller).where(t.job.c.id == sa.bindparam("job"))
_VM_NAME = sa.select(t.job_vm.c.vm_name).where(
    t.job_vm.c.job_id == sa.bindparam("job"), t.job_vm.c.vm_id == sa.bindparam("vm")
)


class Events:
    """The table of events.

    `insert` is the last act of a transaction that changes something; `tell` is called once that is committed, and
    wakes who waits for news. On PostgreSQL transactions with events are committed one after the other: else a reader
    that follows the numbers would miss those of the slower of two.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._writer = single(engine)
        self._news = threading.Condition()
        self._changes = 0
        self._unnoted = 0

    # writing

    def add(self, *drafts: Draft) -> None:
        """Write events that tell of nothing else in the data base."""
        with self._engine.begin() as connection:
            self.insert(connection, *drafts)
        self.tell()

    def change(self, change: sa.Update, given: Mapping[str, Any], draft: Draft) -> None:
        """Change a row and tell of it, or neither when there is none to change; the draft leaves out nothing.

        On PostgreSQL that is one statement instead of four. What `given` names must not be a column of the row.
        """
        if self._engine.dialect.name == "postgresql":
            with self._writer.begin() as connection:
                connection.execute(_changed_alone(change), {**given, **_told(draft)})
        else:
            with self._engine.begin() as connection:
                if connection.execute(change, given).rowcount:
                    connection.execute(_INSERT, _row(draft))
        self._unnoted += 1
        self.tell()

    def insert(self, connection: sa.Connection, *drafts: Draft) -> None:
        """Write events within a transaction, as its last act."""
        if not drafts:
            return
        if len(drafts) == 1 and connection.dialect.name == "postgresql":
            connection.execute(_INSERT_ALONE, _told(_completed(connection, drafts[0])))
            self._note(connection, 1)
            return
        alone(connection, _ACT)
        rows, keys = [], set()
        for draft in drafts:
            if draft.key and (draft.key in keys or _is_there(connection, draft)):
                continue
            keys.add(draft.key)
            rows.append(_row(_completed(connection, draft)))
        if rows:
            connection.execute(_INSERT, rows)
            self._note(connection, len(rows))

    def tell(self) -> None:
        """Wake who waits for news: of events, or of how far a job is."""
        with self._news:
            self._changes += 1
            self._news.notify_all()

    # reading

    @property
    def changes(self) -> int:
        """Rises whenever this process wrote something; another process may write as well."""
        return self._changes

    def latest(self) -> int:
        """The number of the newest event; 0 when there is none."""
        with self._reader.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.max(t.event.c.seq))) or 0)

    def after(self, seq: int, wanted: Filter | None = None, *, limit: int = PAGE) -> tuple[Event, ...]:
        """The events with a higher number than `seq`, oldest first."""
        return self._page(wanted or Filter(), after=seq, newest=False, limit=limit)

    def before(self, seq: int | None, wanted: Filter | None = None, *, limit: int = PAGE) -> tuple[Event, ...]:
        """The events with a lower number than `seq`, or all, newest first."""
        return self._page(wanted or Filter(), after=seq, newest=True, limit=limit)

    def listed(self, seq: int | None, wanted: Filter, *, newest: bool, limit: int) -> list[ListedEvent]:
        """As `before` and `after`, for a list."""
        return listed(self._rows(wanted, after=seq, newest=newest, limit=limit))

    def of_job(self, job_id: str, *, after: int = 0) -> tuple[Event, ...]:
        """All events of a job after a number."""
        query = sa.select(t.event).where(t.event.c.job_id == job_id, t.event.c.seq > after)
        return self._read(query.order_by(t.event.c.seq))

    def wait(
        self,
        job_id: str,
        *,
        after: int,
        seconds: float,
        done: Callable[[], bool],
    ) -> tuple[Event, ...]:
        """As `of_job`, but wait up to `seconds` for one to come; not once `done` says that none will come."""
        deadline = time.monotonic() + seconds
        while True:
            over = done()
            found = self.of_job(job_id, after=after)
            left = deadline - time.monotonic()
            if found or over or left <= 0:
                return found
            with self._news:
                self._news.wait(min(left, 1.0))  # another process may write as well

    # forgetting

    def forget(self, *, before: dt.datetime, keep: int) -> int:
        """Remove events older than `before`, and the oldest of more than `keep`; return how many."""
        stamp = before.astimezone(dt.UTC).isoformat(timespec="milliseconds")
        with self._reader.connect() as connection:
            newest_old = _newest_before(connection, stamp)
            beyond = sa.select(t.event.c.seq).order_by(t.event.c.seq.desc()).offset(keep).limit(1)
            last = max(newest_old, connection.scalar(beyond) or 0)
        total = 0
        while removed := self._remove_up_to(last):
            total += removed
        if total:
            with self._engine.begin() as connection:
                event_spans.forget(connection, last)
        return total

    def _remove_up_to(self, last: int) -> int:
        """A batch at a time: writers are not to wait long."""
        batch = sa.select(t.event.c.seq).where(t.event.c.seq <= last).order_by(t.event.c.seq).limit(_FORGET_BATCH)
        with self._engine.begin() as connection:
            return connection.execute(sa.delete(t.event).where(t.event.c.seq.in_(batch))).rowcount

    def _note(self, connection: sa.Connection, written: int) -> None:
        """Now and then, and before the transaction lets others write: what the blocks of full numbers hold."""
        self._unnoted += written
        if self._unnoted >= _NOTE_EVERY:
            self._unnoted = 0
            event_spans.note(connection)

    def _page(self, wanted: Filter, *, after: int | None, newest: bool, limit: int) -> tuple[Event, ...]:
        return tuple(map(_value, self._rows(wanted, after=after, newest=newest, limit=limit)))

    def _rows(self, wanted: Filter, *, after: int | None, newest: bool, limit: int) -> list[sa.Row[Any]]:
        found: list[sa.Row[Any]] = []
        with listing(self._reader) as connection:
            everything = [event_spans.EVERYWHERE]
            timed = wanted.since or wanted.until
            ranges = event_spans.within(connection, wanted.since, wanted.until) if timed else everything
            for among in event_spans.after(ranges, after, newest=newest):
                query = page(wanted, among=among, newest=newest, limit=limit - len(found))
                found += connection.execute(query).all()
                if len(found) == limit:
                    break
        return found

    def _read(self, query: sa.Select[Any]) -> tuple[Event, ...]:
        with self._reader.connect() as connection:
            return tuple(_value(row) for row in connection.execute(query).all())


def _newest_before(connection: sa.Connection, stamp: str) -> int:
    """The highest number of an event before a time; 0 when there is none."""
    for among in event_spans.after(event_spans.within(connection, "", stamp), None, newest=True):
        query = page(Filter(until=stamp), among=among, newest=True, limit=1)
        if row := connection.execute(query).first():
            return int(row.seq)
    return 0


def _is_there(connection: sa.Connection, draft: Draft) -> bool:
    """Whether an event with the key of a draft was written before."""
    return connection.scalar(_OF_KEY, {"key": draft.key}) is not None


def _completed(connection: sa.Connection, draft: Draft) -> Draft:
    """The draft with what the rows of its job tell."""
    about = draft.about
    if not about.job_id or (about.workload_id and draft.caller and (about.vm_name or not about.vm_id)):
        return draft
    job = connection.execute(_JOB, {"job": about.job_id}).first()
    name = ""
    if about.vm_id and not about.vm_name:
        name = connection.scalar(_VM_NAME, {"job": about.job_id, "vm": about.vm_id}) or ""
    about = replace(
        about,
        workload_id=about.workload_id or (job.workload_id if job else ""),
        vm_name=about.vm_name or name,
    )
    return replace(draft, about=about, caller=draft.caller or (job.caller if job else ""))


def _row(draft: Draft) -> dict[str, Any]:
    about = draft.about
    return {
        "time": utc_now().isoformat(timespec="milliseconds"),
        "kind": draft.kind,
        "level": draft.weight,
        "text": draft.text,
        "job_id": about.job_id,
        "workload_id": about.workload_id,
        "vm_id": about.vm_id,
        "vm_name": about.vm_name,
        "point_id": about.point_id,
        "target": about.target,
        "host": about.host,
        "caller": draft.caller,
        "fields": json.dumps(dict(draft.fields)),
        "key": draft.key or None,
    }


def _told(draft: Draft) -> dict[str, Any]:
    return {_TOLD + name: value for name, value in _row(draft).items()}


def _value(row: Any) -> Event:
    return Event(
        seq=row.seq,
        time=row.time,
        kind=row.kind,
        level=Level(row.level),
        text=row.text,
        about=About(
            job_id=row.job_id,
            workload_id=row.workload_id,
            vm_id=row.vm_id,
            vm_name=row.vm_name,
            point_id=row.point_id,
            target=row.target,
            host=row.host,
        ),
        caller=row.caller,
        fields=json.loads(row.fields),
    )
