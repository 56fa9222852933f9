# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore points on the targets as they were last seen: for lists and previews, which need not ask the targets."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects import postgresql, sqlite

from overkeep.controller.store import schema as t
from overkeep.controller.store.database import listing, reading
from overkeep.model.points import Mode, Pin, RestorePoint
from overkeep.model.retention import Candidate
from overkeep.repository.verification import Verification

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_BIGGEST = 2**63
_CHUNK = 500  # rows of one statement
_FEW = 200  # VMs whose points are put in order faster than all points are looked through for them
_POINT = TypeAdapter(RestorePoint)
_PIN = TypeAdapter(Pin)
_VERIFICATION = TypeAdapter(Verification)

Place = tuple[str, str, str]
"""Workload, VM and id of a point on a target."""


@dataclass(frozen=True, kw_only=True)
class PointFilter:
    """Which points are wanted; what is None does not matter. `vm` is a name or an id; `until` no longer counts.

    Only points of the VMs `vm_ids` are wanted, and only those on `targets`.
    """

    workload_id: str | None = None
    vm: str | None = None
    target: str | None = None
    mode: Mode | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    vm_ids: frozenset[str] | None = None
    targets: Collection[str] | None = None


# Not frozen, as the point is read once it is asked for: of many rows that are looked at, few are shown.
@dataclass(kw_only=True)
class SeenPoint:
    """A point as it was last seen on a target."""

    key: tuple[int, int]
    target: str
    vm_id: str
    document: str
    pinned: str
    checked: str

    @cached_property
    def point(self) -> RestorePoint:
        """The point."""
        return _POINT.validate_json(self.document)

    @property
    def pin(self) -> Pin | None:
        """Why it must stay; None when it need not."""
        return pin_value(self.pinned)

    @property
    def verification(self) -> Verification | None:
        """How its last check went; None when it was never checked, as far as it was seen."""
        return _VERIFICATION.validate_json(self.checked) if self.checked else None


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What stands beside the manifest of a point: why it must stay, and how its last check went."""

    pin: Pin | None
    verification: Verification | None


@dataclass(frozen=True, kw_only=True)
class SeenCandidate:
    """A point as far as retention looks at it."""

    target: str
    vm_id: str
    vm_name: str
    candidate: Candidate
    pin: Pin | None


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a row says, as texts: to find out whether it is still so."""

    document: str
    pinned: str


class PointRows:
    """The table of restore points. It decides nothing: the manifests on the targets are the truth."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        insert = self._insert(t.point)
        new = {name: insert.excluded[name] for name in ("created", "vm_name", "mode", "document")}
        self._put = insert.on_conflict_do_update(index_elements=_PLACE, set_=new)

    # lists

    def page(self, wanted: PointFilter, *, after: tuple[int, int] | None, limit: int) -> tuple[SeenPoint, ...]:
        """The points that are wanted, oldest first: the first ones, or those after the one with a key."""
        if after is not None and any(abs(number) >= _BIGGEST for number in after):
            raise ValueError(after)
        # the numbers first: of many that are put in order only few documents are read
        keys = []
        for way in _ways(wanted):
            free = _unused if self._engine.dialect.name == "sqlite" else _as_it_is
            where = [*way.found, *_conditions(wanted, but=way.given, free=free)]
            if after is not None:
                where.append(sa.tuple_(_C.created, _C.seq) > sa.tuple_(*map(sa.literal, after)))
            keys.append(sa.select(_C.seq).where(*where).order_by(_C.created, _C.seq).limit(limit))
        first = keys[0] if len(keys) == 1 else sa.union_all(*(sa.select(each.subquery()) for each in keys))
        query = sa.select(*_SEEN).where(_C.seq.in_(sa.select(first.subquery().c.seq)))
        with listing(self._reader) as connection:
            rows = connection.execute(query.order_by(_C.created, _C.seq).limit(limit)).all()
        return tuple(
            SeenPoint(
                key=(r.created, r.seq),
                target=r.target,
                vm_id=r.vm_id,
                document=r.document,
                pinned=r.pin,
                checked=r.verification,
            )
            for r in rows
        )

    def candidates(self, workload_id: str) -> tuple[SeenCandidate, ...]:
        """All points of a workload for a preview of its retention, oldest first."""
        columns = (_C.target, _C.vm_id, _C.vm_name, _C.id, _C.created, _C.pin)
        query = sa.select(*columns).where(_C.workload_id == workload_id).order_by(_C.created, _C.seq)
        with self._reader.connect() as connection:
            rows = connection.execute(query).all()
        return tuple(
            SeenCandidate(
                target=row.target,
                vm_id=row.vm_id,
                vm_name=row.vm_name,
                candidate=Candidate(id=row.id, created=_EPOCH + row.created * _MICROSECOND),
                pin=pin_value(row.pin),
            )
            for row in rows
        )

    def counts(self, workload_id: str) -> Mapping[str, int]:
        """How many points a workload has, by target."""
        query = sa.select(_C.target, sa.func.count()).where(_C.workload_id == workload_id).group_by(_C.target)
        with self._reader.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def places(self, point_id: str) -> frozenset[tuple[str, str]]:
        """The workloads and VMs of which points with an id were seen, on whatever target."""
        query = sa.select(_C.workload_id, _C.vm_id).where(_C.id == point_id)
        with self._reader.connect() as connection:
            return frozenset((row.workload_id, row.vm_id) for row in connection.execute(query))

    # what becomes of points

    def put(self, target: str, point: RestorePoint) -> None:
        """Keep a point that was published on a target; a pin that it has stays."""
        with self._engine.begin() as connection:
            self.put_in(connection, target, point)

    def put_in(self, connection: sa.Connection, target: str, point: RestorePoint) -> None:
        """As `put`, within a transaction."""
        connection.execute(self._put, {**point_row(target, point), "pin": ""})

    def remove(self, target: str, point: RestorePoint | Place) -> None:
        """Drop a point that has ended."""
        place = place_of(point) if isinstance(point, RestorePoint) else point
        with self._engine.begin() as connection:
            connection.execute(sa.delete(t.point).where(*_at(target, place)))

    def set_pin(self, target: str, point: RestorePoint, pin: Pin | None) -> None:
        """Keep a pin, or that there is none any more."""
        with self._engine.begin() as connection:
            where = _at(target, place_of(point))
            connection.execute(sa.update(t.point).where(*where).values(pin=pin_text(pin)))

    def set_verification(self, target: str, point: RestorePoint, verification: Verification | None) -> None:
        """Keep how the last check of a point went."""
        text = "" if verification is None else _VERIFICATION.dump_json(verification).decode()
        with self._engine.begin() as connection:
            differs = (*_at(target, place_of(point)), _C.verification != text)
            connection.execute(sa.update(t.point).where(*differs).values(verification=text))

    def remove_target(self, target: str) -> None:
        """Drop all points of a target behind which another repository was accepted."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(t.point).where(_C.target == target))

    # listings of targets

    def workloads(self, target: str) -> frozenset[str]:
        """The workloads of which points were seen on a target."""
        with self._reader.connect() as connection:
            return frozenset(connection.scalars(sa.select(_C.workload_id).where(_C.target == target).distinct()))

    def places_on(self, target: str, workload_id: str) -> frozenset[Place]:
        """Where points of a workload were seen on a target."""
        query = sa.select(_C.vm_id, _C.id).where(_C.target == target, _C.workload_id == workload_id)
        with self._reader.connect() as connection:
            return frozenset((workload_id, row.vm_id, row.id) for row in connection.execute(query))

    def known(self, target: str, workload_id: str) -> Mapping[Place, Known]:
        """What is known of the points of a workload on a target."""
        columns = (_C.vm_id, _C.id, _C.document, _C.pin)
        query = sa.select(*columns).where(_C.target == target, _C.workload_id == workload_id)
        with self._reader.connect() as connection:
            return {
                (workload_id, row.vm_id, row.id): Known(document=row.document, pinned=row.pin)
                for row in connection.execute(query)
            }

    def add(self, target: str, found: Sequence[tuple[RestorePoint, Pin | None]]) -> None:
        """Keep points that a listing found; those that have a row by now are left as they are."""
        rows = [{**point_row(target, point), "pin": pin_text(pin)} for point, pin in found]
        with self._engine.begin() as connection:
            for start in range(0, len(rows), _CHUNK):
                insert = self._insert(t.point).on_conflict_do_nothing(index_elements=_PLACE)
                connection.execute(insert, rows[start : start + _CHUNK])

    def correct(self, target: str, point: RestorePoint, *, before: Known, now: Known) -> None:
        """Write what a listing found in place of what was known before it; not when that was changed meanwhile."""
        values = {name: point_row(target, point)[name] for name in ("created", "vm_name", "mode", "document")}
        was = (_C.document == before.document, _C.pin == before.pinned)
        with self._engine.begin() as connection:
            where = (*_at(target, place_of(point)), *was)
            connection.execute(sa.update(t.point).where(*where).values(**values, pin=now.pinned))


_C = t.point.c
_PLACE = ["target", "workload_id", "vm_id", "id"]
_SEEN = (_C.created, _C.seq, _C.target, _C.vm_id, _C.document, _C.pin, _C.verification)


def known(point: RestorePoint, pin: Pin | None) -> Known:
    """What the row of a point says."""
    return Known(document=_POINT.dump_json(point).decode(), pinned=pin_text(pin))


def place_of(point: RestorePoint) -> Place:
    """Where a point lies on its target."""
    return point.workload_id, point.vm_id, point.id


def point_row(target: str, point: RestorePoint) -> dict[str, Any]:
    """The columns of a point, without its pin."""
    return {
        "target": target,
        "workload_id": point.workload_id,
        "vm_id": point.vm_id,
        "id": point.id,
        "created": _microseconds(point.created),
        "vm_name": point.vm_name,
        "mode": point.mode,
        "document": _POINT.dump_json(point).decode(),
    }


def pin_text(pin: Pin | None) -> str:
    """The column of a pin."""
    return "" if pin is None else _PIN.dump_json(pin).decode()


def pin_value(text: str) -> Pin | None:
    """The pin of a column."""
    return _PIN.validate_python(json.loads(text)) if text else None


def _microseconds(time: dt.datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _at(target: str, place: Place) -> tuple[sa.ColumnElement[bool], ...]:
    workload_id, vm_id, point_id = place
    return _C.target == target, _C.workload_id == workload_id, _C.vm_id == vm_id, _C.id == point_id


@dataclass(frozen=True)
class _Way:
    """How points are found: by conditions that an index serves. They stand for the fields `given` of the filter."""

    found: tuple[sa.ColumnElement[bool], ...] = ()
    given: tuple[str, ...] = ()


def _ways(wanted: PointFilter) -> Iterator[_Way]:
    """By the condition that leaves the fewest rows; for a VM by its id and by its name, each by its own index."""
    if wanted.vm is not None:
        yield _Way((_C.vm_id == wanted.vm,))
        yield _Way((_C.vm_name == wanted.vm, _unused(_C.vm_id) != wanted.vm))
    elif wanted.workload_id is not None:
        yield _Way((_C.workload_id == wanted.workload_id,), ("workload_id",))
    elif wanted.vm_ids is not None and len(wanted.vm_ids) <= _FEW:
        yield _Way((_C.vm_id.in_(sorted(wanted.vm_ids)),), ("vm_ids",))
    else:
        both = {"target": _C.target == wanted.target, "mode": _C.mode == wanted.mode}
        given = tuple(name for name in both if getattr(wanted, name) is not None)
        yield _Way(tuple(both[name] for name in given), given)


_Column = sa.ColumnElement[Any]


def _as_it_is(column: sa.Column[Any]) -> _Column:
    return column


def _unused(column: sa.Column[Any]) -> _Column:
    """A column for which no index is used: SQLite has no figures about rows, and would take one that tells little."""
    return sa.func.coalesce(column, "")


def _conditions(
    wanted: PointFilter, *, but: Collection[str], free: Callable[[sa.Column[Any]], _Column]
) -> Iterator[sa.ColumnElement[bool]]:
    """What else is wanted; the order of the list is that of an index in any case."""
    for name, column in (("workload_id", _C.workload_id), ("target", _C.target), ("mode", _C.mode)):
        if name not in but and getattr(wanted, name) is not None:
            yield free(column) == getattr(wanted, name)
    if wanted.targets is not None:
        yield free(_C.target).in_(sorted(wanted.targets))
    if wanted.vm_ids is not None and "vm_ids" not in but:
        yield free(_C.vm_id).in_(sorted(wanted.vm_ids))
    if wanted.since is not None:
        yield _C.created >= _microseconds(wanted.since)
    if wanted.until is not None:
        yield _C.created < _microseconds(wanted.until)
