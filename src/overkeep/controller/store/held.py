# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of what is open in the Manager: written before it is used, so that a crash leaves nothing unknown."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from overkeep.controller.records import Held, HeldKind, JobState
from overkeep.controller.store import schema as t
from overkeep.controller.store.database import reading, single
from overkeep.units import utc_now

_LIVE = (JobState.QUEUED, JobState.RUNNING)
_NOT_OPEN = (HeldKind.CHECKPOINT, HeldKind.POINT)
_NOTHING: Mapping[str, str] = MappingProxyType({})
_ALL = sa.select(t.held).order_by(t.held.c.opened, t.held.c.ref)
# Statements that each step makes are put together once: that costs more than to run them.
_OF_VM = _ALL.where(
    t.held.c.job_id == sa.bindparam("job"), t.held.c.vm_id == sa.bindparam("vm"), t.held.c.released.is_(None)
)
_OF_KIND = _OF_VM.where(t.held.c.kind == sa.bindparam("kind"))
_ADD = {  # a step may run twice at the same time
    "postgresql": postgresql.insert(t.held).on_conflict_do_nothing(),
    "sqlite": sqlite.insert(t.held).on_conflict_do_nothing(),
}
_RELEASE = (
    sa.update(t.held)
    .where(*(t.held.c[name] == sa.bindparam(f"the_{name}") for name in ("job_id", "kind", "ref")))
    .where(t.held.c.released.is_(None))
    .values(released=sa.bindparam("now"))
)


class Holdings:
    """The table of what jobs hold; adding and releasing may be repeated."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._writer = single(engine)
        self._add = _ADD[engine.dialect.name]

    def add(self, item: Held) -> None:
        """Record something that is about to be opened; one that is known stays as it is."""
        row = {
            "job_id": item.job_id,
            "kind": item.kind,
            "ref": item.ref,
            "vm_id": item.vm_id,
            "disk_id": item.disk_id,
            "host_id": item.host_id,
            "opened": utc_now().isoformat(timespec="seconds"),
            "released": None,
        }
        with self._writer.begin() as connection:
            connection.execute(self._add, row)

    def release(self, item: Held) -> None:
        """Record that it is closed, removed, or now belongs to what the job made."""
        key = {"the_job_id": item.job_id, "the_kind": item.kind, "the_ref": item.ref}
        with self._writer.begin() as connection:
            connection.execute(_RELEASE, {**key, "now": utc_now().isoformat(timespec="seconds")})

    def is_released(self, item: Held) -> bool:
        """Whether it was written down by its job and is closed by now."""
        released = sa.select(t.held.c.ref).where(*_key(item), t.held.c.released.is_not(None))
        with self._engine.connect() as connection:
            return connection.scalar(released) is not None

    def reopen(self, item: Held) -> None:
        """Record that something that was taken for closed is open."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.held).where(*_key(item)).values(released=None))

    def find(self, kind: HeldKind, ref: str) -> Held | None:
        """What was once written down under this id of the Manager, closed or not."""
        found = self._select(_ALL.where(t.held.c.kind == kind, t.held.c.ref == ref))
        return found[0] if found else None

    def of(self, job_id: str, vm_id: str, *, kind: HeldKind | None = None) -> tuple[Held, ...]:
        """What a job holds still for a VM, of all kinds or of one, in the order it was opened."""
        given = {"job": job_id, "vm": vm_id, **({"kind": kind} if kind else {})}
        return self._select(_OF_KIND if kind else _OF_VM, given)

    def orders(self, job_id: str, disk_id: str) -> tuple[Held, ...]:
        """All orders that a job gave for a disk, also those that have ended."""
        wanted = (t.held.c.kind == HeldKind.ORDER, t.held.c.job_id == job_id, t.held.c.disk_id == disk_id)
        return self._select(_ALL.where(*wanted))

    def checkpoints(self, vm_id: str) -> tuple[Held, ...]:
        """The checkpoints that jobs made for a VM and that were not removed yet."""
        wanted = (t.held.c.kind == HeldKind.CHECKPOINT, t.held.c.vm_id == vm_id, t.held.c.released.is_(None))
        return self._select(_ALL.where(*wanted))

    def frozen_until(self, time: str) -> tuple[Held, ...]:
        """Freezes that were to end before a time (ISO 8601, UTC, in milliseconds) and are not written down as ended."""
        return self._select(sa.select(t.held).where(t.HELD_FROZEN, t.held.c.ref < time))

    def orphans(self) -> tuple[Held, ...]:
        """What is open still although its job is over.

        Checkpoints stay on purpose and do not count, nor do points that were to end: a job tells them itself.
        """
        live = sa.select(t.job.c.id).where(t.job.c.state.in_(_LIVE))
        return self._select(
            _ALL.where(t.held.c.released.is_(None), t.held.c.kind.not_in(_NOT_OPEN), t.held.c.job_id.not_in(live))
        )

    def _select(self, query: sa.Select[tuple[str, ...]], given: Mapping[str, str] = _NOTHING) -> tuple[Held, ...]:
        with self._reader.connect() as connection:
            rows = connection.execute(query, dict(given)).all()
        return tuple(
            Held(
                job_id=row.job_id,
                kind=HeldKind(row.kind),
                ref=row.ref,
                vm_id=row.vm_id,
                disk_id=row.disk_id,
                host_id=row.host_id,
                released=row.released is not None,
            )
            for row in rows
        )


def _key(item: Held) -> tuple[sa.ColumnElement[bool], ...]:
    return (t.held.c.job_id == item.job_id, t.held.c.kind == item.kind, t.held.c.ref == item.ref)
