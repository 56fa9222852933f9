# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of the REST API, and how the controller's values become them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from overkeep.controller.events import Event, Level
from overkeep.controller.records import Job, JobKind, JobState, Workload
from overkeep.model.admission import MOST_SLOTS
from overkeep.model.conduct import Conduct
from overkeep.model.consistency import FROZEN_AT_MOST, LONGEST_FREEZE, Consistency, Otherwise, Reached, Wanted
from overkeep.model.findings import Verdict
from overkeep.model.inventory import DiskFormat
from overkeep.model.points import Changes, Mode, RestorePoint
from overkeep.model.selection import Choice, Rules, rule

if TYPE_CHECKING:  # the command line reads these documents too, and should not wait for the whole controller
    from overkeep.controller.janitor import Leftover
    from overkeep.controller.service import MoverHealth
    from overkeep.controller.store.points import Marks
    from overkeep.controller.targets import Away
    from overkeep.controller.waits import Usage

Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f]+$")]


class Document(BaseModel):
    """What all documents have in common: nothing but what is declared, and nothing is changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


RuleText = Annotated[str, BeforeValidator(str), Field(min_length=1, max_length=300)]
DiskPattern = Annotated[str, Field(min_length=1, max_length=300)]


class RulesDoc(Document):
    """What finds VMs before each run, beside those that are named, and what leaves out some of those found.

    A rule is `name=web-*`, `tag=prod`, `cluster=Default` or `property.backup=gold`. `disks` are disks that are not
    backed up, as `scratch*` or `db:scratch*`. Rules are for administrators.
    """

    include: tuple[RuleText, ...] = Field(default=(), max_length=100)
    exclude: tuple[RuleText, ...] = Field(default=(), max_length=100)
    disks: tuple[DiskPattern, ...] = Field(default=(), max_length=100)


class SelectionIn(Document):
    """VMs by name or id, and rules that find more; one of both is needed."""

    vms: tuple[Name, ...] = ()
    rules: RulesDoc = RulesDoc()


class ConsistencyDoc(Document):
    """How consistent the points of a workload are to be, and what to do when that cannot be reached.

    `crash`: as after a power cut. `file-system`: each guest is frozen by its agent for the moment of the backup.
    `group`: all are frozen, then all backups begin, and all are thawed, after `frozen_at_most` seconds at the latest.
    `refuse` makes no point then; `warn` and `accept` make a lesser one, with a warning or without.
    """

    wanted: Wanted = Wanted.CRASH
    otherwise: Otherwise = Otherwise.WARN
    frozen_at_most: int = Field(default=FROZEN_AT_MOST, ge=1, le=LONGEST_FREEZE)


class WorkloadIn(SelectionIn):
    """A workload to be made or changed.

    `parallel` is how many of its VMs are backed up at once, null for as many as the limits let; with 1 they are backed
    up one after the other, in the order of `vms`.

    Without `target` a new one is backed up to the first target, and one that is changed keeps its own.
    """

    name: Name
    description: str = Field(default="", max_length=4000)
    target: Name | None = None
    parallel: int | None = Field(default=None, ge=1, le=MOST_SLOTS)
    consistency: ConsistencyDoc = ConsistencyDoc()


class ChoiceOut(Document):
    """A VM that a workload would have, or that its rules leave out; `why` is the rule, or `named`."""

    vm_id: str
    vm_name: str
    cluster: str
    taken: bool
    why: str


class MemberOut(Document):
    """A VM of a workload; `by_rule` when its rules found it."""

    vm_id: str
    vm_name: str
    by_rule: bool


class WorkloadOut(Document):
    """VMs that are backed up together; `version` rises with each change."""

    id: str
    name: str
    description: str
    created: dt.datetime
    target: str
    members: tuple[MemberOut, ...]
    rules: RulesDoc
    parallel: int | None
    consistency: ConsistencyDoc
    version: int


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
    """How far one VM of a job is; `waiting` says for what it waits while it does."""

    vm_id: str
    vm_name: str
    state: JobState
    phase: str
    point_id: str
    failure: FailureOut
    disks: tuple[DiskProgressOut, ...]
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


class EventOut(Document):
    """Something that happened: one sentence, what it is about (empty where that does not apply), and more in `fields`.

    `seq` rises with each event; `kind` is stable.
    """

    seq: int
    time: dt.datetime
    kind: str
    level: Level
    text: str
    job_id: str
    workload_id: str
    vm_id: str
    vm_name: str
    point_id: str
    target: str
    host: str
    caller: str
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


class VerificationOut(Document):
    """How the last check of a point went; `share` of its data was read, 0 to 1, and `findings` are sentences."""

    checked_at: dt.datetime
    share: float
    sound: bool
    findings: tuple[str, ...]


class PointOut(Document):
    """One VM at one time, on a target; `pin` when it must stay whatever a retention says.

    `listed`: when all of the target was last read, null for never. `away`: it cannot be read now; the point is shown as
    it was last seen. `verification` is null for a point that was never checked. `consistency` is what
    was reached, and null when the point does not tell.
    """

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
    consistency: Reached | None = None
    consistency_wanted: Wanted | None = None
    pin: PinOut | None = None
    listed: dt.datetime | None = None
    away: bool = False
    verification: VerificationOut | None = None


class LimitIn(Document):
    """How many VMs use a resource at once; without `capacity` the default holds again."""

    capacity: int | None = Field(default=None, ge=1, le=MOST_SLOTS)


class LimitOut(Document):
    """A resource, or by the name of its kind each of that kind; VMs that wait may wait for another resource."""

    resource: str
    capacity: int
    by_default: bool
    paused: bool
    used: int
    waiting: int


class LoadOut(Document):
    """How many orders of a mover run and wait, and how many may run at once."""

    at_once: int
    running: int
    waiting: int


class MoverOut(Document):
    """Whether the mover of a host answers, and what it has to do; an older one does not say."""

    host: str
    host_status: str
    ok: bool
    version: str
    error: str
    load: LoadOut | None = None


class FindingOut(Document):
    """How one part of the installation is: one sentence, which says what to do when it is not well."""

    area: str
    subject: str
    verdict: Verdict
    text: str


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


class FaultOut(Document):
    """What is wrong with one part of a request: in its `body`, `query`, `path` or `header`."""

    place: str
    name: str
    detail: str


class ProblemOut(BaseModel):
    """A problem document (RFC 9457); `code` is stable, `retry` says whether the same call may succeed later.

    Readers ignore members that they do not know.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    retry: bool
    params: dict[str, str] = {}
    errors: tuple[FaultOut, ...] = ()


def rules_value(asked: RulesDoc) -> Rules:
    """The rules of a document; raises `BadRule`."""
    include, exclude = (tuple(map(rule, texts)) for texts in (asked.include, asked.exclude))
    return Rules(include=include, exclude=exclude, disks=asked.disks)


def choice_out(choice: Choice) -> ChoiceOut:
    """The document of a VM that is taken or left out."""
    vm = choice.vm
    return ChoiceOut(vm_id=vm.id, vm_name=vm.name, cluster=vm.cluster, taken=choice.taken, why=choice.why)


def workload_out(workload: Workload) -> WorkloadOut:
    """The document of a workload."""
    flat = {name: value for name, value in vars(workload).items() if name != "conduct"}
    return WorkloadOut.model_validate({**flat, **vars(workload.conduct)})


def conduct_value(asked: WorkloadIn) -> Conduct:
    """How the VMs of a workload are to be backed up together."""
    return Conduct(parallel=asked.parallel, consistency=Consistency(**asked.consistency.model_dump()))


def job_out(job: Job, why: Callable[[str], str] = lambda _vm_id: "") -> JobOut:
    """The document of a job; `why` says for what a VM waits."""
    out = JobOut.model_validate(job)
    told = tuple(vm.model_copy(update={"waiting": text}) if (text := why(vm.vm_id)) else vm for vm in out.vms)
    return out.model_copy(update={"vms": told})


def limit_out(usage: Usage) -> LimitOut:
    """The document of a limit."""
    limit = usage.limit
    return LimitOut(
        resource=limit.resource,
        capacity=limit.capacity,
        by_default=usage.by_default,
        paused=limit.paused,
        used=usage.used,
        waiting=usage.waiting,
    )


def event_out(event: Event) -> EventOut:
    """The document of an event."""
    return EventOut(**vars(event.about), **{name: value for name, value in vars(event).items() if name != "about"})


def point_out(
    point: RestorePoint,
    marks: Marks,
    *,
    target: str,
    listed: dt.datetime | None,
    away: bool,
) -> PointOut:
    """The document of a restore point on a target, with what stands beside its manifest."""
    about = {"target": target, "pin": marks.pin, "verification": marks.verification, "listed": listed, "away": away}
    return PointOut.model_validate(vars(point) | about)


def away_out(away: Away) -> AwayOut:
    """The document of a target that could not be read."""
    return AwayOut(target=away.target, code=away.error.code, error=away.error.message)


def mover_out(mover: MoverHealth) -> MoverOut:
    """The document of a mover."""
    return MoverOut.model_validate(mover)


def leftover_out(leftover: Leftover) -> LeftoverOut:
    """The document of a leftover."""
    return LeftoverOut.model_validate(leftover)
