# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs in the data base: their states, and what each VM and disk is at. Each change of a state is an event as well."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa

from overkeep.controller.events import Draft
from overkeep.controller.records import DiskProgress, Failure, InLine, Job, JobFilter, JobKind, JobState, Member, Stage
from overkeep.controller.store import listed_jobs, telling
from overkeep.controller.store import schema as t
from overkeep.controller.store.admission import WAITING, needs_text
from overkeep.controller.store.among import is_among, texts, texts_named, unindexed
from overkeep.controller.store.busy import busy_elsewhere, busy_with, left_alone
from overkeep.controller.store.database import alone, listing, reading, single
from overkeep.controller.store.events import Events
from overkeep.controller.store.job_pages import at_once, page
from overkeep.controller.store.job_statements import AS_TOLD, CANCEL_REQUESTED, FREE, PUT_DISK, SET_PHASE, written
from overkeep.controller.store.listed_jobs import ListedJob, Told
from overkeep.controller.store.rows import disk_row, job_row, job_value, vm_row, vms_of, vms_of_all
from overkeep.errors import NotFound, OverkeepError
from overkeep.model.admission import rank
from overkeep.model.points import RestorePoint
from overkeep.units import utc_now

_CHUNK = 500  # values in one IN
_NAMED = 1000  # VMs at work of which something is remembered
_RACES = 3  # with other controllers, after which the error of the data base counts

_VM_IDS = sa.select(t.job_vm.c.job_id, t.job_vm.c.vm_id).where(is_among(t.job_vm.c.job_id, texts_named("jobs")))

_Made = TypeVar("_Made")
_log = logging.getLogger(__name__)


class Jobs:
    """The tables of jobs. The job row is the truth for users; the job engine is how it gets there."""

    def __init__(self, engine: sa.Engine, events: Events, *, freed: Callable[[], None] = lambda: None) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._writer = single(engine)
        self._put_disk = PUT_DISK[engine.dialect.name]
        self._named = lru_cache(_NAMED)(self._read_named)
        self._events = events
        self._freed = freed  # called when there is something new to do, or slots were given back

    def create(self, job: Job, members: Sequence[Member], *, exclusive: bool, line: InLine | None = None) -> None:
        """Add a queued job; `exclusive` refuses with `Conflict` when another job works on one of the VMs.

        With `line` its VMs wait for their turns at once, otherwise it has to be opened first.
        """
        self._write(lambda connection: self._insert(connection, job, members, exclusive=exclusive, line=line))
        self._events.tell()
        self._freed()

    def create_once(self, job: Job, members: Sequence[Member]) -> bool:
        """Add a queued job for itself alone on its VMs; False when there is a job of this id."""

        def insert(connection: sa.Connection) -> bool:
            if connection.scalar(sa.select(t.job.c.id).where(t.job.c.id == job.id)):
                return False
            self._insert(connection, job, members, exclusive=True)
            return True

        made = self._write(insert)
        if made:
            self._events.tell()
            self._freed()
        return made

    def create_free(self, planned: Sequence[tuple[Job, Sequence[Member]]]) -> frozenset[str]:
        """Add those queued jobs, each for itself alone on its VMs, that nothing speaks against; return their ids.

        One transaction for all: a minute in which hundreds are due must not take hundreds.
        """
        try:
            with self._engine.begin() as connection:
                fit = _fitting(connection, planned)
                if fit:
                    self._insert_all(connection, fit)
        except sa.exc.IntegrityError:  # another controller was quicker; they are looked at one by one
            return frozenset()
        self._events.tell()
        self._freed()
        return frozenset(job.id for job, _ in fit)

    def get(self, job_id: str) -> Job:
        """One job with its VMs and disks; raise `NotFound`."""
        with self._reader.connect() as connection:
            row = connection.execute(sa.select(t.job).where(t.job.c.id == job_id)).first()
            if row is None:
                raise NotFound(kind="job", name=job_id, how="overkeep job list")
            return job_value(row, vms_of(connection, job_id))

    def all(self, *, limit: int = 100, live: bool = False) -> tuple[Job, ...]:
        """The newest jobs first, with their VMs; `live` limits them to those that are not over."""
        query = sa.select(t.job).order_by(t.job.c.created.desc()).limit(limit)
        if live:
            query = query.where(t.job_lives)
        return self._with_vms(query)

    def live(self, kind: JobKind) -> tuple[Job, ...]:
        """All jobs of a kind that are not over, without their VMs: there may be many."""
        query = sa.select(t.job).where(t.job_lives, t.job.c.kind == kind).order_by(t.job.c.created)
        with self._reader.connect() as connection:
            return tuple(job_value(row, ()) for row in connection.execute(query))

    def live_of(self, workload_id: str) -> str | None:
        """The id of a job that works on a workload."""
        query = sa.select(t.job.c.id).where(t.job_lives, t.job.c.workload_id == workload_id).limit(1)
        with self._reader.connect() as connection:
            return connection.scalar(query)

    def page(
        self, wanted: JobFilter, *, before: tuple[str, str] | None = None, limit: int = 100
    ) -> tuple[ListedJob, ...]:
        """The newest jobs that are wanted first; those before the one of this time and id."""
        query = page(wanted, before=before, limit=limit, dialect=self._engine.dialect.name)
        with listing(self._reader) as connection:
            return listed_jobs.heads(self._reader, connection, query)

    def at_once(self, wanted: JobFilter) -> int:
        """How many jobs of a list are best read at once, whose VMs may fill a page before its jobs do."""
        return at_once(wanted, dialect=self._engine.dialect.name)

    def told(self, jobs: Sequence[ListedJob]) -> list[Told]:
        """What jobs of a page say, with their VMs and disks."""
        with self._reader.connect() as connection:
            return listed_jobs.told(connection, jobs)

    def vm_ids(self, job_ids: Sequence[str], *, among: Collection[str] | None = None) -> dict[str, list[str]]:
        """The VMs of jobs, by job; of one that is not there, none. `among`: only these."""
        found: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
        query = _VM_IDS
        if among is not None:
            query = query.where(is_among(unindexed(t.job_vm.c.vm_id), texts(sorted(among))))
        with listing(self._reader) as connection:
            for job_id, vm_id in connection.execute(query, {"jobs": list(job_ids)}) if job_ids else ():
                found[job_id].append(vm_id)
        return found

    def newest(self, workload_id: str, kind: JobKind) -> Job | None:
        """The newest job of a kind that works on a workload."""
        mine = (t.job.c.workload_id == workload_id, t.job.c.kind == kind)
        with self._reader.connect() as connection:
            row = connection.execute(sa.select(t.job).where(*mine).order_by(t.job.c.created.desc()).limit(1)).first()
            return None if row is None else job_value(row, vms_of(connection, row.id))

    def settle(self, job: Job, members: Sequence[Member]) -> None:
        """Let a run that is being opened have exactly these VMs; those that it has stay as they are."""
        wanted = {member.vm_id for member in members}
        present = {vm.vm_id for vm in job.vms}
        gone = [vm_id for vm_id in present if vm_id not in wanted]
        joined = [member for member in members if member.vm_id not in present]

        def settle(connection: sa.Connection) -> None:
            mine = (t.job_vm.c.job_id == job.id, t.job_vm.c.stage == Stage.UNOPENED)
            connection.execute(sa.delete(t.job_vm).where(*mine, t.job_vm.c.vm_id.in_(gone)))
            for position, member in enumerate(joined, len(present)):
                row = {**vm_row(job.id, member, busy=True), **_in_line(job, None, position)}
                busy = busy_with(connection, member)
                connection.execute(sa.insert(t.job_vm).values(row | left_alone(member, busy)))

        self._write(settle)

    def start(self, job_id: str) -> None:
        """Mark a queued job as running; one that runs already stays as it is."""
        with self._engine.begin() as connection:
            values = {"state": JobState.RUNNING, "started": _now()}
            if _changed(connection, job_id, values, t.job.c.state == JobState.QUEUED):
                self._events.insert(connection, telling.started(_head(connection, job_id)))
        self._events.tell()

    def end(self, job_id: str, state: JobState, *, failure: Failure, result: Mapping[str, Any]) -> None:
        """Mark a running job as over, and free its VMs and their slots."""
        values = {
            "state": state,
            "ended": _now(),
            "error_code": failure.code,
            "error": failure.text,
            "result": json.dumps(dict(result)),
        }
        with self._engine.begin() as connection:
            ended = _changed(connection, job_id, values, t.job.c.state == JobState.RUNNING)
            mine = sa.update(t.job_vm).where(t.job_vm.c.job_id == job_id)
            connection.execute(mine.values(busy=False, stage=Stage.GIVEN))
            connection.execute(sa.delete(t.slot).where(t.slot.c.job_id == job_id))
            if ended:
                done = job_value(_head(connection, job_id), vms_of(connection, job_id))
                self._events.insert(connection, telling.ended(done))
        self._events.tell()
        self._freed()

    def request_cancel(self, job_id: str, *, caller: str = "") -> None:
        """Ask a job to end; its steps look every second."""
        with self._engine.begin() as connection:
            if _changed(connection, job_id, {"cancel_requested": True}, t.job.c.cancel_requested.is_(False)):
                self._events.insert(connection, telling.cancel_asked(_head(connection, job_id), caller=caller))
        self._events.tell()
        self._freed()

    def cancel_requested(self, job_id: str) -> bool:
        """Whether somebody asked the job to end."""
        with self._reader.connect() as connection:
            return bool(connection.scalar(CANCEL_REQUESTED, {"job": job_id}))

    def vm_state(self, job_id: str, vm_id: str) -> JobState:
        """The state of a VM in a job."""
        with self._reader.connect() as connection:
            return JobState(connection.execute(AS_TOLD, {"job": job_id, "vm": vm_id}).one().state)

    def set_vm(self, job_id: str, vm_id: str, **values: Any) -> None:
        """Write columns of the row of a VM in a job (`state`, `phase`, `point_id`, `spent` …).

        One that is over stays so: a step that is run twice may still be at work when the other run has ended it.
        """
        over = "state" in values and JobState(values["state"]).over
        with self._engine.begin() as connection:
            self._events.insert(connection, *_set_vm(connection, job_id, vm_id, values))
        self._events.tell()
        if over:
            self._freed()

    def end_waiting(self, why: Callable[[str], OverkeepError], *, limit: int) -> int:
        """End VMs of backups that are to end and wait for their turns, `why` by job; return how many.

        Nothing of theirs has begun, so they may be ended at once: in the transaction that takes them out of their
        lines, as who finds them taken out and not ended gives them to the job engine.
        """
        asked = sa.select(t.job.c.id).where(t.job.c.cancel_requested, t.job.c.kind == JobKind.BACKUP, t.job_lives)
        query = sa.select(t.job_vm.c.job_id, t.job_vm.c.vm_id).where(WAITING, t.job_vm.c.job_id.in_(asked))
        told: list[Draft] = []
        with self._engine.begin() as connection:
            alone(connection, "admission")
            waiting = connection.execute(query.limit(limit)).all()
            for row in waiting:
                error = why(row.job_id)
                ended = {"state": JobState.CANCELLED, "phase": "", "busy": False}
                values = {**ended, "error_code": error.code, "error": error.message}
                told += _set_vm(connection, row.job_id, row.vm_id, values)
            self._events.insert(connection, *told)
        if waiting:
            self._events.tell()
            self._freed()
        return len(waiting)

    def set_phase(self, job_id: str, vm_id: str, phase: str) -> None:
        """Let the work on a VM, which goes on, go on to a phase; one that it is in already is not told again."""
        if job := self._named(job_id, vm_id):
            new = {"job": job_id, "vm": vm_id, "new_phase": phase}
            self._events.change(SET_PHASE, new, telling.phase(job, phase))

    def _read_named(self, job_id: str, vm_id: str) -> Any:
        """What is told of a VM in a job and never changes."""
        with self._reader.connect() as connection:
            return connection.execute(AS_TOLD, {"job": job_id, "vm": vm_id}).first()

    def note_point(self, connection: sa.Connection, point: RestorePoint) -> None:
        """Write the point of a VM into its job, within a transaction."""
        connection.execute(written(("point_id",)), {"job": point.job_id, "vm": point.vm_id, "new_point_id": point.id})

    def set_disk(self, job_id: str, vm_id: str, disk: DiskProgress) -> None:
        """Write how far a disk is."""
        row = {"job_id": job_id, "vm_id": vm_id, "disk_id": disk.disk_id, **disk_row(disk)}
        with self._writer.begin() as connection:
            connection.execute(self._put_disk, row)
        self._events.tell()

    def _with_vms(self, query: sa.Select[Any]) -> tuple[Job, ...]:
        with self._reader.connect() as connection:
            rows = connection.execute(query).all()
            vms = vms_of_all(connection, [row.id for row in rows])
        return tuple(job_value(row, vms[row.id]) for row in rows)

    def _write(self, act: Callable[[sa.Connection], _Made]) -> _Made:
        """Run `act` in a transaction; again when another controller was quicker, whose rows it then finds."""
        for _ in range(_RACES):
            try:
                with self._engine.begin() as connection:
                    return act(connection)
            except sa.exc.IntegrityError as error:
                _log.info("another controller was quicker: %s", error.orig)
        with self._engine.begin() as connection:
            return act(connection)

    def _insert_all(self, connection: sa.Connection, fit: Sequence[tuple[Job, Sequence[Member]]]) -> None:
        connection.execute(sa.insert(t.job), [job_row(job) for job, _ in fit])
        rows = [
            {**vm_row(job.id, member, busy=True), **_in_line(job, None, 0)}
            for job, members in fit
            for member in members
        ]
        if rows:
            connection.execute(sa.insert(t.job_vm), rows)
        self._events.insert(connection, *(telling.queued(job, vms=len(members)) for job, members in fit))

    def _insert(
        self,
        connection: sa.Connection,
        job: Job,
        members: Sequence[Member],
        *,
        exclusive: bool,
        line: InLine | None = None,
    ) -> None:
        elsewhere = busy_elsewhere(connection, job, members) if exclusive else {}
        connection.execute(sa.insert(t.job).values(job_row(job)))
        rows = [
            {**vm_row(job.id, member, busy=exclusive), **_in_line(job, line, position)}
            | left_alone(member, elsewhere.get(member.vm_id))
            for position, member in enumerate(members)
        ]
        if rows:
            connection.execute(sa.insert(t.job_vm), rows)
        self._events.insert(connection, telling.queued(job, vms=len(members)))
        self._events.insert(connection, *(telling.left_alone(job, row) for row in rows if row["error_code"]))


def _set_vm(connection: sa.Connection, job_id: str, vm_id: str, values: Mapping[str, Any]) -> tuple[Draft, ...]:
    """Change the row of a VM; what there is to tell. Its slots go in the transaction that says that it is over."""
    key = {"job": job_id, "vm": vm_id}
    further: tuple[sa.TextClause, ...] = ()
    if "state" in values:
        if JobState(values["state"]).over:
            values = {**values, "stage": Stage.GIVEN}
            connection.execute(FREE, key)
        else:
            further = (t.job_vm_lives,)
    before = connection.execute(AS_TOLD, key).first()
    new: dict[str, Any] = {**key, **{f"new_{name}": value for name, value in values.items()}}
    if before is None or connection.execute(written(tuple(values), *further), new).rowcount == 0:
        return ()
    return tuple(telling.went_on(before, {**before._mapping, **values}))


def _fitting(
    connection: sa.Connection, planned: Sequence[tuple[Job, Sequence[Member]]]
) -> list[tuple[Job, Sequence[Member]]]:
    """Those jobs that are not known and whose VMs no other job works on, neither one that is there nor one of them."""
    busy = set(connection.scalars(sa.select(t.job_vm.c.vm_id).where(t.job_vm.c.busy)))
    ids = [job.id for job, _ in planned]
    known: set[str] = set()
    for start in range(0, len(ids), _CHUNK):
        known |= set(connection.scalars(sa.select(t.job.c.id).where(t.job.c.id.in_(ids[start : start + _CHUNK]))))
    fit = []
    for job, members in planned:
        mine = {member.vm_id for member in members}
        if job.id not in known and not mine & busy:
            fit.append((job, members))
            busy |= mine
    return fit


def _changed(connection: sa.Connection, job_id: str, values: Mapping[str, Any], only: sa.ColumnElement[bool]) -> bool:
    """Change the row of a job if it is as `only` says; whether it was."""
    changed = sa.update(t.job).where(t.job.c.id == job_id, only).values(dict(values))
    return connection.execute(changed).rowcount > 0


def _head(connection: sa.Connection, job_id: str) -> Any:
    """The row of a job, without its VMs."""
    return connection.execute(sa.select(t.job).where(t.job.c.id == job_id)).one()


def _in_line(job: Job, line: InLine | None, position: int) -> dict[str, str]:
    if line is None:
        return {"stage": Stage.UNOPENED, "needs": "", "rank": ""}
    place = rank(line.priority, job.created, position)
    return {"stage": Stage.WAITING, "needs": needs_text(line.needs), "rank": place}


def _now() -> str:
    return utc_now().isoformat(timespec="milliseconds")
