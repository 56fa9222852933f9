# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as a caller sees them: with what their VMs wait for, and no name of a VM that he may not see."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from overkeep.api.job_documents import JobOut, job_out
from overkeep.controller.records import Job
from overkeep.controller.rights import Caller
from overkeep.controller.service import Controller
from overkeep.controller.store.listed_jobs import ListedJob, Told


def as_seen(jobs: Sequence[Job], controller: Controller, caller: Caller) -> list[JobOut]:
    """The documents of jobs that a caller may see."""
    reasons = controller.waits([job.id for job in jobs if not job.state.over])

    def document(job: Job) -> JobOut:
        return job_out(job, lambda vm_id: reasons.why(job.id, vm_id, lambda seen: caller.may_see((seen,))))

    return [document(job) for job in jobs]


def listed_as_seen(jobs: Sequence[ListedJob], controller: Controller, caller: Caller) -> list[Told]:
    """As `as_seen`, for many jobs: what they say is not made into documents that are checked."""
    reasons = controller.waits([job.id for job in jobs if not job.over])

    def document(job: ListedJob, told: Told) -> Told:
        if job.over:
            return _told_out(told)
        return _told_out(told, lambda vm_id: reasons.why(job.id, vm_id, lambda seen: caller.may_see((seen,))))

    return [document(*each) for each in zip(jobs, controller.ports.store.jobs.told(jobs), strict=True)]


def _told_out(told: Told, why: Callable[[str], str] | None = None) -> Told:
    """What a job in a list says, as it is in its document; `why` as of `job_out`, None for jobs that are over."""
    for name in ("created", "started", "ended"):
        if (time := told[name]) is not None:
            told[name] = dt.datetime.fromisoformat(time)
    for vm in told["vms"]:
        vm["waiting"] = why(vm["vm_id"]) if why else ""
    return told
