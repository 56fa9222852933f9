# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents about policies, and how they become values and values become them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from overkeep.api.documents import Document, Name
from overkeep.controller.records import StoredPolicy
from overkeep.model.points import LONGEST_CHAIN, BackupKind
from overkeep.model.policy import ClusterSize, Compression, Copying, Policy
from overkeep.model.retention import Retention
from overkeep.model.schedule import Schedule

if TYPE_CHECKING:
    from overkeep.controller.desks.policies import Planned

Text = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, le=100_000)]


class ScheduleDoc(Document):
    """When to run, in a zone of the IANA data base.

    `when`: `every 4 hours`, `daily at 22:00`, `weekly on mon,thu at 22:00`, `monthly on 1,last at 22:00`, or five
    fields of cron. `start` and `end` are the first and the last day. `windows` and `blackouts`, as
    `mon-fri 08:00-18:00`: runs begin only inside of one, and never inside of the other.
    """

    when: Text
    zone: Text = "UTC"
    start: dt.date | None = None
    end: dt.date | None = None
    windows: tuple[Text, ...] = Field(default=(), max_length=50)
    blackouts: tuple[Text, ...] = Field(default=(), max_length=50)
    enabled: bool = True


class RetentionDoc(Document):
    """How many points stay, by rule; 0 is a rule that is not used, and without any rule every point stays."""

    last: Count = 0
    days: Count = 0
    hourly: Count = 0
    daily: Count = 0
    weekly: Count = 0
    monthly: Count = 0
    yearly: Count = 0
    zone: Text = "UTC"


class CopyingDoc(Document):
    """How disks are copied: bytes a second for each disk (0: no limit), bytes of an image's cluster, share read back.

    Another `cluster_size` than before holds for new images; those of one chain may differ in it.
    """

    bandwidth: int = Field(default=0, ge=0, le=2**53)
    compression: Compression = "none"
    level: int = Field(default=2, ge=1, le=19)
    cluster_size: ClusterSize = 65536
    read_back: float = Field(default=0.01, ge=0, le=1)


class PolicyIn(Document):
    """A policy to be made or changed.

    `backup_kind`: with `legacy` the Manager locks the VM until the backup ends, and nothing of it stays; with `hybrid`
    it reads a snapshot, which it merges away at the end, and the VM may be migrated, started and shut down meanwhile.
    `full_every`: a full backup after so many incrementals; null for never, 0 for always. `retry_wait` is in minutes and
    doubles with each try. `verify` is the share of the data of each new point, with all that it is built upon, that is
    read and compared once it is made: 0 for none, 1 for all.
    """

    name: Name
    description: str = Field(default="", max_length=4000)
    schedules: tuple[ScheduleDoc, ...] = Field(default=(), max_length=20)
    retention: RetentionDoc = RetentionDoc()
    backup_kind: BackupKind = BackupKind.LEGACY
    full_every: int | None = Field(default=None, ge=0, le=999)
    longest_chain: int = Field(default=LONGEST_CHAIN, ge=1, le=LONGEST_CHAIN)
    retries: int = Field(default=0, ge=0, le=10)
    retry_wait: int = Field(default=10, ge=1, le=1440)
    copying: CopyingDoc = CopyingDoc()
    verify: float = Field(default=0, ge=0, le=1)


class PolicyOut(PolicyIn):
    """A policy; `version` rises with each change."""

    id: str
    version: int


class MarkOut(Document):
    """What becomes of a restore point: it is kept for these reasons, or removed."""

    id: str
    created: dt.datetime
    kept: bool
    reasons: tuple[str, ...]


class VmMarksOut(Document):
    """What a retention decides about the points of a VM, newest first."""

    vm_id: str
    vm_name: str
    marks: tuple[MarkOut, ...]


class ForesightOut(Document):
    """What is there after `runs` runs, of which the last is at `until`; there are never more than `most_points`."""

    runs: int
    until: dt.datetime
    most_points: int
    marks: tuple[MarkOut, ...]


class GivenPolicyIn(Document):
    """The policy that a workload is to have, by name or id; null for none."""

    policy: Name | None


class PlannedOut(Document):
    """What is planned for a workload; `told` says what became of the last run that was planned."""

    workload_id: str
    workload: str
    policy: str
    paused: bool
    next_run: dt.datetime | None
    told: str


class SchedulerOut(Document):
    """Whether the scheduler is paused, and what it plans."""

    paused: bool
    workloads: tuple[PlannedOut, ...]


def policy_value(asked: PolicyIn) -> Policy:
    """The policy of a document; raises `BadSchedule`."""
    fields = asked.model_dump(include=set(PolicyIn.model_fields))
    fields["schedules"] = tuple(Schedule(**item) for item in fields["schedules"])
    fields["retention"] = Retention(**fields["retention"])
    fields["copying"] = Copying(**fields["copying"])
    return Policy(**fields)


def policy_out(stored: StoredPolicy) -> PolicyOut:
    """The document of a policy."""
    asked = PolicyIn.model_validate(stored.policy)
    return PolicyOut(**asked.model_dump(), id=stored.id, version=stored.version)


def planned_out(planned: Planned) -> PlannedOut:
    """The document of what is planned for a workload."""
    return PlannedOut.model_validate(planned)
