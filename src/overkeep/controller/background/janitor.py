# SPDX-License-Identifier: GPL-3.0-or-later
"""Closes what dead jobs left behind: in the Manager, on the target, and among the jobs themselves."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from overkeep.config import EventsConfig
from overkeep.controller.activities.exposure import BACKUP_OVER
from overkeep.controller.activities.release import release_backup, release_restore, watch_release
from overkeep.controller.activities.snapshots import remove_snapshots
from overkeep.controller.background.dispatcher import SHORT_QUEUE, give, workflow_id
from overkeep.controller.durable import OVER, Durable, Stopping
from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import Failure, Held, HeldKind, Job, JobKind, JobState
from overkeep.controller.service import Controller
from overkeep.controller.targets.target import Target
from overkeep.controller.workflows import backup
from overkeep.engine.api import BackupSession
from overkeep.errors import NotFound, OverkeepError
from overkeep.repository.repository import Draft as PointDraft
from overkeep.units import utc_now

EVERY = 300.0  # seconds between two rounds
GRACE = dt.timedelta(minutes=15)  # before a draft without a living job is taken for garbage
MERGE_AGAIN = 3600.0  # seconds before a snapshot that the Manager could not merge is tried again
FORGET = dt.timedelta(days=30)  # after that the engine's own record of an ended workflow goes; the job row stays

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something of ours that is open and belongs to no living job."""

    kind: str
    ref: str
    job_id: str
    vm_id: str
    disk_id: str


class Janitor:
    """Runs at the start and then periodically, in a thread of its own."""

    def __init__(
        self,
        controller: Controller,
        durable: Durable,
        *,
        every: float = EVERY,
        kept: EventsConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._controller = controller
        self._ports: Ports = controller.ports
        self._durable = durable
        self._every = every
        self._clock = clock
        self._kept = kept or EventsConfig()
        self._not_before: dict[tuple[str, str], float] = {}  # jobs and VMs whose snapshots are left alone until then
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)

    def start(self) -> None:
        """Begin the rounds."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present act; `Ports.stopping` must be set before."""
        self._wake.set()
        self._thread.join()

    def round(self) -> None:
        """Do everything once; a part that fails is logged and done again in the next round."""
        parts: tuple[Callable[[], None], ...] = (self.settle_jobs, self.close_leftovers, self.sweep_drafts, self.forget)
        for part in parts:
            try:
                part()
            except OverkeepError as error:
                _log.warning("janitor: %s", error)

    def settle_jobs(self) -> None:
        """End what the job engine has given up, give it again what it does not know, and free slots of the dead.

        Rows are written before a workflow ends, so they are read once more after the engine's records.
        """
        turns = {workflow_id(turn): turn for turn in self._ports.store.turns.working()}
        opening = self._ports.store.turns.opening()
        statuses = self._durable.statuses([*turns, *opening])
        for job_id in set(opening).intersection(self._ports.store.turns.opening()):
            if job_id not in statuses:
                self._durable.submit(backup.NAME, job_id, job_id, queue=SHORT_QUEUE)
            elif statuses[job_id] in OVER:
                self._break_off(job_id)
        for known_as, turn in turns.items():
            if known_as not in statuses:
                give(self._durable, turn)
            elif statuses[known_as] in OVER:
                self._break_off(turn.job_id, turn.vm_id)
        self._ports.store.admission.sweep()

    def _break_off(self, job_id: str, vm_id: str | None = None) -> None:
        """End a job, or one VM of a backup, whose workflow ended without writing so."""
        jobs = self._ports.store.jobs
        job = jobs.get(job_id)
        failure = Failure(code=OverkeepError.code, text=OverkeepError(reason="the job broke off").message)
        for vm in job.vms:
            if vm_id in (None, vm.vm_id) and not vm.state.over:
                told = {"error_code": failure.code, "error": failure.text}
                jobs.set_vm(job_id, vm.vm_id, state=JobState.FAILED, phase="", busy=False, **told)
        jobs.start(job_id)
        if job.kind is not JobKind.BACKUP:  # a backup is closed by the dispatcher once all of its VMs have ended
            jobs.end(job_id, JobState.FAILED, failure=failure, result={})

    def leftovers(self) -> tuple[Leftover, ...]:
        """What `close_leftovers` would close now."""
        held = [*self._ports.store.held.orphans(), *self._late_backups()]
        return tuple(Leftover(kind=h.kind, ref=h.ref, job_id=h.job_id, vm_id=h.vm_id, disk_id=h.disk_id) for h in held)

    def close_leftovers(self) -> None:
        """Close and remove what ended jobs left open in the Manager."""
        for late in self._late_backups():
            self._take_on(late)
        orphans = [item for item in self._ports.store.held.orphans() if not self._rests(item)]
        for item in orphans:
            text = f"The {item.kind} {item.ref} of VM {item.vm_id} is open in the Manager without a living job"
            key = f"{Kind.LEFTOVER_FOUND}/{item.job_id}/{item.kind}/{item.ref}"
            self._tell(Kind.LEFTOVER_FOUND, text, About(job_id=item.job_id, vm_id=item.vm_id), key=key)
        owners = {(item.job_id, item.vm_id) for item in orphans}
        for job_id, vm_id in sorted(owners):
            self._close(job_id, vm_id)

    def _rests(self, item: Held) -> bool:
        """Whether it is a snapshot that could not be merged a short while ago: each try is work for a host."""
        until = self._not_before.get((item.job_id, item.vm_id), 0.0)
        return item.kind is HeldKind.SNAPSHOT and self._clock() < until

    def sweep_drafts(self) -> None:
        """Abandon drafts of jobs that do not live."""
        for target in self._ports.targets:
            try:
                self._sweep(target)
            except OverkeepError as error:
                _log.warning("janitor: %s", error)

    def forget(self) -> None:
        """Drop the engine's records of old workflows, old events, and answers that are no longer repeated."""
        self._durable.gc(FORGET)
        self._ports.store.answers.forget()
        self._ports.store.gatherings.forget((utc_now() - FORGET).isoformat())
        before = utc_now() - dt.timedelta(days=self._kept.days)
        self._ports.store.events.forget(before=before, keep=self._kept.most)

    def _sweep(self, target: Target) -> None:
        def drafts() -> tuple[PointDraft, ...]:
            target.ready()
            return target.repository.drafts()

        for draft in self._ports.targets.in_time(target, drafts):
            if self._lives(draft.job_id) or utc_now() - draft.created < GRACE:
                continue
            draft.abandon()
            text = f"The unfinished restore point {draft.point_id} was removed from target {target.name}"
            about = About(job_id=draft.job_id, point_id=draft.point_id, target=target.name)
            self._tell(Kind.DRAFT_REMOVED, text, about)

    def _close(self, job_id: str, vm_id: str) -> None:
        exposure = watch_release(self._ports, job_id, vm_id)
        try:
            job = self._job(job_id)
            if job is not None and job.kind is JobKind.RESTORE:
                release_restore(exposure)
            else:
                release_backup(exposure, success=self._committed(job_id, vm_id))
                self._not_before[job_id, vm_id] = self._clock() + MERGE_AGAIN
                remove_snapshots(exposure)
        except OverkeepError as error:
            _log.warning("janitor: job %s still holds something of VM %s: %s", job_id, vm_id, error)
            return
        self._not_before.pop((job_id, vm_id), None)
        text = f"What the job had left open for VM {vm_id} in the Manager was closed"
        self._tell(Kind.LEFTOVER_CLOSED, text, About(job_id=job_id, vm_id=vm_id))

    def _committed(self, job_id: str, vm_id: str) -> bool:
        """Whether the job made a point of the VM: its checkpoint is the base of the next incremental."""
        job = self._job(job_id)
        if job is not None:
            return any(vm.vm_id == vm_id and vm.point_id for vm in job.vms)
        found = self._ports.targets.survey(lambda target: target.repository.points(vm_id=vm_id))
        return any(point.job_id == job_id for _, points in found.require_all() for point in points)

    def _late_backups(self) -> list[Held]:
        """Backups of ours that are open although their job is over, and that are not written down as open.

        Such a one came to be after its job had looked and found nothing to close, or the data base that it was written
        down in is lost: then its mark tells that it is ours.
        """
        sessions = ((vm_id, session) for vm_id in sorted(self._vms()) for session in self._sessions(vm_id))
        return [late for vm_id, session in sessions if (late := self._late(vm_id, session))]

    def _late(self, vm_id: str, session: BackupSession) -> Held | None:
        known = self._ports.store.held.find(HeldKind.BACKUP, session.id)
        if known is not None and not known.released:
            return None  # its job looks after it, or it is an orphan
        job_id = known.job_id if known is not None else self._marked_job(session)
        if job_id is None or self._lives(job_id):
            return None
        return Held(job_id=job_id, kind=HeldKind.BACKUP, ref=session.id, vm_id=vm_id)

    def _take_on(self, late: Held) -> None:
        """Write a late backup down as open, with the accesses that there may be to its disks."""
        held = self._ports.store.held
        disks = self._ports.engine.backup(late.vm_id, late.ref).modes
        accesses = (replace(late, kind=HeldKind.ACCESS, ref=disk_id, disk_id=disk_id) for disk_id in disks)
        for item in (late, *accesses):
            held.add(item)
            held.reopen(item)

    def _vms(self) -> set[str]:
        """The VMs that we back up or did: those of the data base, and those that the target tells of."""
        found = {member.vm_id for workload in self._ports.store.workloads.all() for member in workload.members}
        kept = self._ports.targets.survey(lambda target: target.repository.workloads())
        for away in kept.away:
            _log.warning("janitor: VMs that only target %s tells of are not looked at: %s", away.target, away.error)
        return found | {member.id for _, workloads in kept.answers for one in workloads for member in one.members}

    def _marked_job(self, session: BackupSession) -> str | None:
        try:
            return self._ports.marked_job(session.description)
        except OverkeepError as error:  # without the target nobody knows whose repository the mark names
            _log.warning("janitor: backup %s may be ours: %s", session.id, error)
            return None

    def _sessions(self, vm_id: str) -> list[BackupSession]:
        try:
            sessions = self._ports.engine.backups(vm_id)
        except OverkeepError as error:
            if error.status == 404:  # the VM is gone, and its backups with it
                return []
            raise
        return [session for session in sessions if session.phase not in BACKUP_OVER]

    def _job(self, job_id: str) -> Job | None:
        try:
            return self._ports.store.jobs.get(job_id)
        except NotFound:
            return None

    def _lives(self, job_id: str) -> bool:
        job = self._job(job_id)
        return job is not None and not job.state.over

    def _tell(self, kind: Kind, text: str, about: About, *, key: str = "") -> None:
        _log.warning("janitor: job %s: %s", about.job_id, text)
        self._ports.store.events.add(Draft(kind=kind, text=text, about=about, key=key))

    def _run(self) -> None:
        while not self._wake.is_set():
            try:
                self.round()
            except Stopping:
                return
            except Exception:  # noqa: BLE001 - the outermost loop of a thread: logged, and the next round comes
                _log.exception("the janitor's round failed")
            self._wake.wait(self._every)
