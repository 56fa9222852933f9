# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs in the data base: their states, what each VM and disk is at, and the stream of their events."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from overkeep.controller.records import DiskProgress, Failure, Job, JobEvent, JobKind, JobState, Member
from overkeep.controller.store import schema as t
from overkeep.controller.store.rows import disk_row, event_value, job_row, job_value, vm_row, vms_of
from overkeep.errors import Conflict, NotFound
from overkeep.units import utc_now

_LIVE = (JobState.QUEUED, JobState.RUNNING)


class Jobs:
    """The tables of jobs. The job row is the truth for users; the job engine is how it gets there."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._news = threading.Condition()

    def create(self, job: Job, members: Sequence[Member], *, exclusive: bool) -> None:
        """Add a queued job; `exclusive` refuses with `Conflict` when another job works on one of the VMs."""
        with self._engine.begin() as connection:
            _insert(connection, job, members, exclusive=exclusive)

    def create_once(self, job: Job, members: Sequence[Member]) -> bool:
        """Add a queued job for itself alone on its VMs; False when there is a job of this id."""
        try:
            with self._engine.begin() as connection:
                if connection.scalar(sa.select(t.job.c.id).where(t.job.c.id == job.id)):
                    return False
                _insert(connection, job, members, exclusive=True)
        except sa.exc.IntegrityError:  # another controller was quicker
            if self._is_known(job.id):
                return False
            raise
        return True

    def get(self, job_id: str) -> Job:
        """One job with its VMs and disks; raise `NotFound`."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(t.job).where(t.job.c.id == job_id)).first()
            if row is None:
                raise NotFound(kind="job", name=job_id, how="overkeep job list")
            return job_value(row, vms_of(connection, job_id))

    def all(self, *, limit: int = 100, live: bool = False) -> tuple[Job, ...]:
        """The newest jobs first, with their VMs; `live` limits them to those that are not over."""
        query = sa.select(t.job).order_by(t.job.c.created.desc()).limit(limit)
        if live:
            query = query.where(t.job.c.state.in_(_LIVE))
        with self._engine.connect() as connection:
            return tuple(job_value(row, vms_of(connection, row.id)) for row in connection.execute(query).all())

    def newest(self, workload_id: str, kind: JobKind) -> Job | None:
        """The newest job of a kind that works on a workload."""
        mine = (t.job.c.workload_id == workload_id, t.job.c.kind == kind)
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(t.job).where(*mine).order_by(t.job.c.created.desc()).limit(1)).first()
            return None if row is None else job_value(row, vms_of(connection, row.id))

    def start(self, job_id: str) -> None:
        """Mark a queued job as running; one that runs already stays as it is."""
        self._set(job_id, {"state": JobState.RUNNING, "started": _now()}, only=JobState.QUEUED)

    def end(self, job_id: str, state: JobState, *, failure: Failure, result: Mapping[str, Any]) -> None:
        """Mark a running job as over, and free its VMs."""
        values = {
            "state": state,
            "ended": _now(),
            "error_code": failure.code,
            "error": failure.text,
            "result": json.dumps(dict(result)),
        }
        self._set(job_id, values, only=JobState.RUNNING)
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.job_vm).where(t.job_vm.c.job_id == job_id).values(busy=False))

    def request_cancel(self, job_id: str) -> None:
        """Ask a job to end; its steps look every second."""
        self._set(job_id, {"cancel_requested": True})

    def cancel_requested(self, job_id: str) -> bool:
        """Whether somebody asked the job to end."""
        with self._engine.connect() as connection:
            return bool(connection.scalar(sa.select(t.job.c.cancel_requested).where(t.job.c.id == job_id)))

    def set_vm(self, job_id: str, vm_id: str, **values: Any) -> None:
        """Write columns of the row of a VM in a job (`state`, `phase`, `point_id`, `error_code`, `error`, `busy`)."""
        where = (t.job_vm.c.job_id == job_id, t.job_vm.c.vm_id == vm_id)
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.job_vm).where(*where).values(**values))
        self._tell()

    def set_disk(self, job_id: str, vm_id: str, disk: DiskProgress) -> None:
        """Write how far a disk is."""
        key = {"job_id": job_id, "vm_id": vm_id, "disk_id": disk.disk_id}
        values = disk_row(disk)
        where = [t.job_disk.c[name] == value for name, value in key.items()]
        with self._engine.begin() as connection:
            if connection.execute(sa.update(t.job_disk).where(*where).values(values)).rowcount == 0:
                connection.execute(sa.insert(t.job_disk).values({**key, **values}))
        self._tell()

    def add_event(self, job_id: str, level: str, text: str, **fields: Any) -> None:
        """Append to the events of a job."""
        row = {"job_id": job_id, "time": _now(), "level": level, "text": text, "fields": json.dumps(fields)}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(t.job_event).values(row))
        self._tell()

    def events(self, job_id: str, *, after: int = 0) -> tuple[JobEvent, ...]:
        """The events of a job with a higher number than `after`, in order."""
        query = sa.select(t.job_event).where(t.job_event.c.job_id == job_id, t.job_event.c.seq > after)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(t.job_event.c.seq)).all()
        return tuple(event_value(row) for row in rows)

    def wait_events(
        self, job_id: str, *, after: int, seconds: float, stopping: threading.Event
    ) -> tuple[JobEvent, ...]:
        """As `events`, but wait up to `seconds` for one to come; not for a job that is over, nor once `stopping`."""
        deadline = time.monotonic() + seconds
        while True:
            over = self.get(job_id).state.over
            found = self.events(job_id, after=after)
            left = deadline - time.monotonic()
            if found or over or left <= 0 or stopping.is_set():
                return found
            with self._news:
                self._news.wait(min(left, 1.0))  # another process may write as well

    def _is_known(self, job_id: str) -> bool:
        with self._engine.connect() as connection:
            return connection.scalar(sa.select(t.job.c.id).where(t.job.c.id == job_id)) is not None

    def _set(self, job_id: str, values: Mapping[str, Any], *, only: JobState | None = None) -> None:
        where = [t.job.c.id == job_id]
        if only:
            where.append(t.job.c.state == only)
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.job).where(*where).values(dict(values)))
        self._tell()

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()


def _insert(connection: sa.Connection, job: Job, members: Sequence[Member], *, exclusive: bool) -> None:
    if exclusive:
        _check_free(connection, members)
    connection.execute(sa.insert(t.job).values(job_row(job)))
    for member in members:
        connection.execute(sa.insert(t.job_vm).values(vm_row(job.id, member, busy=exclusive)))


def _check_free(connection: sa.Connection, members: Sequence[Member]) -> None:
    ids = [member.vm_id for member in members]
    query = sa.select(t.job_vm.c.vm_name, t.job_vm.c.job_id).where(t.job_vm.c.busy, t.job_vm.c.vm_id.in_(ids))
    busy = connection.execute(query).first()
    if busy:
        vm_name, job_id = busy
        raise Conflict(
            what=f"Job {job_id} works on VM {vm_name!r}",
            todo=f"wait until it has ended or cancel it with `overkeep job cancel {job_id}`",
            job_id=job_id,
        )


def _now() -> str:
    return utc_now().isoformat(timespec="milliseconds")
