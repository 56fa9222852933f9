# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of the REST API, and how the controller's values become them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from overkeep.controller.records import Job, JobEvent, JobKind, JobState, Workload
from overkeep.model.inventory import DiskFormat
from overkeep.model.points import Changes, Mode, Pin

if TYPE_CHECKING:  # the command line reads these documents too, and should not wait for the whole controller
    from overkeep.controller.janitor import Leftover
    from overkeep.controller.service import MoverHealth
    from overkeep.controller.targets import Away, PlacedPoint

Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f]+$")]


class Document(BaseModel):
    """What all documents have in common: nothing but what is declared, and nothing is changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


class WorkloadIn(Document):
    """A workload to be made or changed; VMs by name or id.

    Without `target` a new one is backed up to the first target, and one that is changed keeps its own.
    """

    name: Name
    description: str = Field(default="", max_length=4000)
    vms: tuple[Name, ...] = Field(min_length=1)
    target: Name | None = None


class MemberOut(Document):
    """A VM of a workload."""

    vm_id: str
    vm_name: str


class WorkloadOut(Document):
    """VMs that are backed up together."""

    id: str
    name: str
    description: str
    created: dt.datetime
    target: str
    members: tuple[MemberOut, ...]


class GivenTargetIn(Document):
    """The target that a workload is to be backed up to from now on."""

    target: Name


class AwayOut(Document):
    """A target that cannot be read now: what lies on it is missing in the answer."""

    target: str
    code: str
    error: str


class StayOut(Document):
    """How many points of a workload stay on a target that it had before."""

    target: str
    points: int


class MovedOut(Document):
    """A workload with its new target, and what stays on those that it had before."""

    workload: WorkloadOut
    stay: tuple[StayOut, ...]
    away: tuple[AwayOut, ...]


class TargetOut(Document):
    """A backup target; `repository` is the id of what belongs there, empty before its first use.

    `found` is the id of the repository that is there now, empty when there is none, null when that cannot be seen.
    `error` says why it cannot be used now; `code` is its stable name. Both are empty when it can be used. `source` and
    `mountpoint` are those of the controller.
    """

    name: str
    kind: str
    default: bool
    repository: str
    found: str | None
    ok: bool
    code: str
    error: str
    source: str
    mountpoint: str


class AcceptIn(Document):
    """What an administrator has seen behind a target: the id of a repository, or nothing for none."""

    found: str


class SnapshotIn(Document):
    """A backup of a workload; `full` asks for all data although an incremental would do."""

    full: bool = False


class RestoreIn(Document):
    """A VM to be restored under a new name; `vm` says which when the point's id is that of several VMs.

    `target` says from which one when the point lies on several.
    """

    point: str
    vm: Name | None = None
    target: Name | None = None
    name: Name
    cluster: Name | None = None
    storage_domain: Name | None = None
    keep_macs: bool = False
    start: bool = False
    disks: tuple[Name, ...] | None = None


class PinIn(Document):
    """Why a point must stay."""

    reason: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")]


class FailureOut(Document):
    """Why something failed; both empty when nothing did."""

    code: str
    text: str


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


class VmProgressOut(Document):
    """How far one VM of a job is."""

    vm_id: str
    vm_name: str
    state: JobState
    phase: str
    point_id: str
    failure: FailureOut
    disks: tuple[DiskProgressOut, ...]


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


class JobEventOut(Document):
    """Something that happened in a job; give `seq` as `after` to get what comes next."""

    seq: int
    job_id: str
    time: dt.datetime
    level: str
    text: str
    fields: dict[str, Any]


class DiskImageOut(Document):
    """One disk of a restore point; sizes in bytes."""

    disk_id: str
    name: str
    file: str
    backing: str | None
    mode: Mode
    reason: str
    changes: Changes | None
    virtual_size: int
    stored: int
    covered: int
    moved: int
    format: DiskFormat
    interface: str
    bootable: bool
    storage_domain: str


class PinOut(Document):
    """Why a point must stay, who wants it, and since when."""

    reason: str
    by: str
    pinned_at: dt.datetime


class PointOut(Document):
    """One VM at one time, on a target; `pin` when it must stay whatever a retention says."""

    id: str
    target: str
    workload_id: str
    vm_id: str
    vm_name: str
    created: dt.datetime
    job_id: str
    mode: Mode
    checkpoint_id: str | None
    images: tuple[DiskImageOut, ...]
    pin: PinOut | None = None


class PointsOut(Document):
    """Restore points, oldest first, and the targets that could not be read: on them may be more."""

    points: tuple[PointOut, ...]
    away: tuple[AwayOut, ...]


class MoverOut(Document):
    """Whether the mover of a host answers."""

    host: str
    host_status: str
    ok: bool
    version: str
    error: str


class LeftoverOut(Document):
    """Something of ours that is open in the Manager without a living job."""

    kind: str
    ref: str
    job_id: str
    vm_id: str
    disk_id: str


class HealthOut(Document):
    """The controller answers."""

    version: str
    status: str


class ProblemOut(BaseModel):
    """A problem document (RFC 9457); `code` is stable, `retry` says whether the same call may succeed later."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retry: bool
    params: dict[str, str] = {}


def workload_out(workload: Workload) -> WorkloadOut:
    """The document of a workload."""
    return WorkloadOut.model_validate(workload)


def job_out(job: Job) -> JobOut:
    """The document of a job."""
    return JobOut.model_validate(job)


def event_out(event: JobEvent) -> JobEventOut:
    """The document of an event."""
    return JobEventOut.model_validate(event)


def point_out(placed: PlacedPoint, pin: Pin | None = None) -> PointOut:
    """The document of a restore point."""
    point = vars(placed.point) | {"target": placed.target.name, "pin": pin}
    return PointOut.model_validate(point)


def away_out(away: Away) -> AwayOut:
    """The document of a target that could not be read."""
    return AwayOut(target=away.target, code=away.error.code, error=away.error.message)


def mover_out(mover: MoverHealth) -> MoverOut:
    """The document of a mover."""
    return MoverOut.model_validate(mover)


def leftover_out(leftover: Leftover) -> LeftoverOut:
    """The document of a leftover."""
    return LeftoverOut.model_validate(leftover)
