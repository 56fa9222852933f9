# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as a caller sees them: with what their VMs wait for, and no name of a VM that he may not see."""

from __future__ import annotations

from collections.abc import Sequence

from overkeep.api.job_documents import JobOut, job_out
from overkeep.controller.records import Job
from overkeep.controller.rights import Caller
from overkeep.controller.service import Controller


def as_seen(jobs: Sequence[Job], controller: Controller, caller: Caller) -> list[JobOut]:
    """The documents of jobs that a caller may see."""
    reasons = controller.waits(jobs)

    def document(job: Job) -> JobOut:
        return job_out(job, lambda vm_id: reasons.why(job.id, vm_id, lambda seen: caller.may_see((seen,))))

    return [document(job) for job in jobs]
