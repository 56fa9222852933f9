# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents about jobs and how far they are."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from overkeep.api.documents import Document, FailureOut
from overkeep.controller.records import Job, JobKind, JobState


class DiskProgressOut(Document):
    """How far one disk of a job is; sizes in bytes."""

    disk_id: str
    name: str
    mode: str
    reason: str
    state: str
    done: int
    total: int
    moved: int


class SpentOut(Document):
    """Where the seconds of the backup of a VM went, from its turn to its end.

    `engine`: waits for the Manager's own phases. `copying`: the copies of its disks, which run side by side. `other`:
    all else until the VM was released. `after`: verification, retention and merges after that.
    """

    engine: float
    copying: float
    other: float
    after: float


class VmProgressOut(Document):
    """How far one VM of a job is; `waiting` says for what it waits while it does, `spent` is there after its backup."""

    vm_id: str
    vm_name: str
    state: JobState
    phase: str
    point_id: str
    failure: FailureOut
    disks: tuple[DiskProgressOut, ...]
    spent: SpentOut | None = None
    waiting: str = ""


class JobOut(Document):
    """A job."""

    id: str
    kind: JobKind
    state: JobState
    workload_id: str
    subject: str
    caller: str
    request: dict[str, Any]
    created: dt.datetime
    started: dt.datetime | None
    ended: dt.datetime | None
    failure: FailureOut
    result: dict[str, Any]
    cancel_requested: bool
    vms: tuple[VmProgressOut, ...]


def job_out(job: Job, why: Callable[[str], str] = lambda _vm_id: "") -> JobOut:
    """The document of a job; `why` says for what a VM waits."""
    out = JobOut.model_validate(job)
    if job.state.over:
        return out
    told = tuple(vm.model_copy(update={"waiting": text}) if (text := why(vm.vm_id)) else vm for vm in out.vms)
    return out.model_copy(update={"vms": told})
