# SPDX-License-Identifier: GPL-3.0-or-later
"""The scheduler: once a minute it begins the runs that the policies of workloads plan, each of them once."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.records import Assignment, Job, JobKind, JobState, Member, StoredPolicy, Workload
from overkeep.controller.service import Controller
from overkeep.errors import Conflict, OverkeepError
from overkeep.logs import fields
from overkeep.model.policy import Policy
from overkeep.model.schedule import due
from overkeep.units import utc_now

CALLER = "scheduler"
_NAMESPACE = uuid.UUID("6d1a3a1e-0b0c-5e0e-8d5a-5a9d6c2f7b11")  # of the ids of planned jobs; must never change

_RETRIED = (JobState.FAILED, JobState.PARTIAL)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run of a workload that is due, and its job."""

    workload: Workload
    planned: dt.datetime
    job: Job


@contextmanager
def _told_of(workload: Workload) -> Iterator[None]:
    """Let no workload keep the others from their runs."""
    try:
        yield
    except OverkeepError as error:
        _log.warning("scheduler: workload %s: %s", workload.id, error)


class Scheduler:
    """Runs in a thread of its own; `clock` tells the time.

    The id of a job is made of workload, policy and planned minute: a tick that is repeated, after a crash or by another
    controller, finds the job there. The data base says how far each workload was looked at.
    """

    def __init__(self, controller: Controller, *, clock: Callable[[], dt.datetime] = utc_now) -> None:
        self._controller = controller
        self._store = controller.ports.store
        self._clock = clock
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present tick."""
        self._wake.set()
        self._thread.join()

    def tick(self) -> None:
        """Begin what is due now; what fails for one workload is logged, and due again in the next minute."""
        if self._store.assignments.all_paused:
            return
        workloads = {workload.id: workload for workload in self._store.workloads.all()}
        policies = {policy.id: policy for policy in self._store.policies.all()}
        runs: list[_Run] = []
        for assignment in self._store.assignments.all():
            workload, policy = workloads.get(assignment.workload_id), policies.get(assignment.policy_id)
            if assignment.paused or workload is None or policy is None:  # deleted since
                continue
            with _told_of(workload):
                runs += self._look_at(assignment, workload, policy)
        self._begin_all(runs)

    def _look_at(self, assignment: Assignment, workload: Workload, policy: StoredPolicy) -> list[_Run]:
        """The run of a workload that is due, if one is; what failed before is tried again when its time has come."""
        now = self._clock()
        mark = dt.datetime.fromisoformat(assignment.planned_up_to)
        if mark > now:  # the clock was set back: what is planned again finds its jobs there
            self._store.assignments.mark(workload.id, now)
            mark = now
        planned = due(policy.policy.schedules, mark, now)
        if planned is not None:
            job = self._job(workload, policy, planned=planned.isoformat(), tries=1)
            return [_Run(workload=workload, planned=planned, job=job)]
        if failed := self._to_be_retried(workload, policy.policy, now):
            self._retry(workload, policy, failed)
        return []

    def _begin_all(self, runs: Sequence[_Run]) -> None:
        """Write down at once what nothing speaks against; the rest is looked at one by one."""
        made = self._store.jobs.create_free([(run.job, run.workload.members) for run in runs]) if runs else frozenset()
        told = {}
        for run in runs:
            if run.job.id in made:
                _log.info("run begins %s", fields(workload=run.workload.name, job=run.job.id, planned=run.planned))
                self._tell_if_late(run)
                told[run.workload.id] = (run.planned, f"{run.planned:%Y-%m-%d %H:%M}Z: job {run.job.id}")
        self._store.assignments.mark_all(told)
        for run in runs:
            if run.job.id not in made:
                with _told_of(run.workload):
                    self._begin(run.workload, run.planned, run.job)

    def _begin(self, workload: Workload, planned: dt.datetime, job: Job) -> None:
        try:
            if self._give(job, workload.members):
                self._tell_if_late(_Run(workload=workload, planned=planned, job=job))
            told = f"{planned:%Y-%m-%d %H:%M}Z: job {job.id}"
        except Conflict as busy:
            told = f"{planned:%Y-%m-%d %H:%M}Z: left out, because {busy.fields['what']}"
            self._tell_left_out(busy, workload, planned)
        self._store.assignments.mark(workload.id, planned, told=told)

    def _tell_if_late(self, run: _Run) -> None:
        if (self._clock() - run.planned).total_seconds() >= 120:
            text = f"This run was planned for {run.planned:%Y-%m-%d %H:%M}Z and is made up for now"
            self._tell(Kind.JOB_LATE, text, run.job.id)

    def _tell_left_out(self, busy: Conflict, workload: Workload, planned: dt.datetime) -> None:
        text = f"The run of workload {workload.name!r} planned for {planned:%Y-%m-%d %H:%M}Z is left out: this job runs"
        self._tell(Kind.RUN_LEFT_OUT, text, busy.fields.get("job_id", ""), workload_id=workload.id)
        _log.warning("run left out %s", fields(workload=workload.name, reason=busy.fields["what"]))

    def _to_be_retried(self, workload: Workload, policy: Policy, now: dt.datetime) -> Job | None:
        """The last job of a workload, if it was planned, has failed, and the time for another try has come."""
        last = self._store.jobs.newest(workload.id, JobKind.BACKUP)
        if last is None or last.state not in _RETRIED or "planned" not in last.request or last.ended is None:
            return None
        when = policy.retry_at(dt.datetime.fromisoformat(last.ended), int(last.request["tries"]))
        is_open = any(schedule.allows(now) for schedule in policy.schedules)
        return last if when is not None and when <= now and is_open else None

    def _retry(self, workload: Workload, policy: StoredPolicy, failed: Job) -> None:
        """Back up once more the VMs that failed and are still in the workload."""
        bad = {vm.vm_id for vm in failed.vms if vm.state is not JobState.SUCCEEDED}
        members = tuple(member for member in workload.members if member.vm_id in bad)
        if not members:
            return
        tries = int(failed.request["tries"]) + 1
        job = self._job(workload, policy, planned=failed.request["planned"], tries=tries)
        try:
            if self._give(job, members):
                text = f"Try {tries} of at most {policy.policy.retries + 1}, because job {failed.id} failed"
                self._tell(Kind.JOB_RETRY, text, job.id)
        except Conflict as busy:
            _log.info("try put off %s", fields(workload=workload.name, reason=busy.fields["what"]))

    def _give(self, job: Job, members: Sequence[Member]) -> bool:
        """Write the job down, for the dispatcher to begin; False when it was written down before."""
        if not self._store.jobs.create_once(job, members):
            return False
        _log.info("run begins %s", fields(workload=job.subject, job=job.id, planned=job.request["planned"]))
        return True

    def _tell(self, kind: Kind, text: str, job_id: str, *, workload_id: str = "") -> None:
        about = About(job_id=job_id, workload_id=workload_id)
        self._store.events.add(Draft(kind=kind, text=text, about=about, caller=CALLER))

    def _job(self, workload: Workload, policy: StoredPolicy, *, planned: str, tries: int) -> Job:
        return Job(
            id=str(uuid.uuid5(_NAMESPACE, f"{workload.id}/{policy.id}/{planned}/{tries}")),
            kind=JobKind.BACKUP,
            state=JobState.QUEUED,
            workload_id=workload.id,
            subject=workload.name,
            caller=CALLER,
            request={"full": False, "planned": planned, "tries": tries, "target": workload.target},
            created=self._clock().isoformat(timespec="milliseconds"),
        )

    def _run(self) -> None:
        while not self._wake.is_set():
            try:
                self.tick()
            except Exception:  # noqa: BLE001 - the outermost loop of a thread: logged, and the next minute comes
                _log.exception("the scheduler's tick failed")
            self._wake.wait(60 - self._clock().timestamp() % 60)
