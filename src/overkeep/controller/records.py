# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of the controller's tables as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from overkeep.model.admission import Priority
from overkeep.model.conduct import Conduct
from overkeep.model.policy import Policy
from overkeep.model.probes import Probe
from overkeep.model.selection import Rules


class JobKind(StrEnum):
    """What a job does."""

    BACKUP = "backup"
    RESTORE = "restore"
    REMOVAL = "removal"
    VERIFICATION = "verification"


class JobState(StrEnum):
    """State of a job, and of each VM in it but for `partial`: some VMs succeeded and others did not.

    `needs_attention`: it ended, but something in the Manager stayed open.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NEEDS_ATTENTION = "needs_attention"

    @property
    def over(self) -> bool:
        """Whether the state is final."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Stage(StrEnum):
    """The way of a VM in a job to its turn."""

    UNOPENED = ""  # what it needs is not known yet
    WAITING = "waiting"
    ADMITTED = "admitted"  # it has its slots, and the job engine is about to be told
    GIVEN = "given"


class HeldKind(StrEnum):
    """What a job opened or made in the Manager and must close or remove when it does not succeed."""

    BACKUP = "backup"
    ACCESS = "access"  # to a disk, about to be opened: the Manager gives the id of the transfer only afterwards
    TRANSFER = "transfer"
    CHECKPOINT = "checkpoint"
    DISK = "disk"
    VM = "vm"
    VM_NAME = "vm-name"  # of a VM about to be made: the Manager gives its id afterwards
    ORDER = "order"
    POINT = "point"  # that is about to end, as TARGET/VM/ID: nothing in the Manager, but it must be told
    SNAPSHOT = "snapshot"  # of a backup, which merges it away at its end
    FREEZE = "freeze"  # of the guest's file systems; the id is until when it lasts at most (ISO 8601, UTC), and the VM


@dataclass(frozen=True, kw_only=True)
class Member:
    """A VM of a workload; `by_rule` when no one named it."""

    vm_id: str
    vm_name: str
    by_rule: bool = False


@dataclass(frozen=True, kw_only=True)
class Workload:
    """VMs that are backed up together to a target: those that were named, and those that its rules found last."""

    id: str
    name: str
    description: str
    created: str
    target: str
    members: tuple[Member, ...] = ()
    rules: Rules = field(default_factory=Rules)
    conduct: Conduct = field(default_factory=Conduct)
    version: int = 1


@dataclass(frozen=True, kw_only=True)
class StoredPolicy:
    """A policy with its id; `version` rises with each change."""

    id: str
    version: int
    policy: Policy


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The policy of a workload, and how far the scheduler has looked.

    Runs planned up to `planned_up_to` were begun or left out; `told` says what became of the last one. Times in
    ISO 8601, UTC.
    """

    workload_id: str
    policy_id: str
    paused: bool
    planned_up_to: str
    told: str = ""


@dataclass(frozen=True, kw_only=True)
class InLine:
    """What the work on a VM needs, and how urgent it is."""

    needs: tuple[str, ...]
    priority: Priority


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why something failed: the stable code and the sentence for the user."""

    code: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What trying a target out from a host showed, or why it failed; `host` is empty for the controller.

    `time` in ISO 8601, UTC.
    """

    target: str
    host: str
    time: str
    failure: Failure
    probe: Probe | None


@dataclass(frozen=True, kw_only=True)
class DiskProgress:
    """How far one disk of a job is; bytes as in `overkeep.mover.orders.Progress`."""

    disk_id: str
    name: str
    mode: str
    reason: str
    state: str
    done: int = 0
    total: int = 0
    moved: int = 0


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Where the seconds of the backup of a VM went, from its turn to its end.

    `engine`: waits for the Manager's own phases. `copying`: the copies of its disks, which run side by side, by the
    movers' clocks. `other`: all else until the VM was released. `after`: verification, retention and merges after that.
    """

    engine: float
    copying: float
    other: float
    after: float


@dataclass(frozen=True, kw_only=True)
class VmProgress:
    """How far one VM of a job is; `spent` once its backup has ended."""

    vm_id: str
    vm_name: str
    state: JobState
    phase: str
    point_id: str
    failure: Failure
    disks: tuple[DiskProgress, ...] = ()
    spent: Spent | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as its users see it; times in ISO 8601, UTC.

    `subject` is the name of the workload that is backed up or of the new VM, or the id of the point that is removed.
    """

    id: str
    kind: JobKind
    state: JobState
    workload_id: str
    subject: str
    caller: str
    request: Mapping[str, Any]
    created: str
    started: str | None = None
    ended: str | None = None
    failure: Failure = field(default_factory=Failure)
    result: Mapping[str, Any] = field(default_factory=dict)
    cancel_requested: bool = False
    vms: tuple[VmProgress, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs are wanted; what is empty does not matter.

    `vm` is an id or a name; `since` and `until` are times of their creation in ISO 8601, UTC, in milliseconds. Only
    jobs with one of the VMs `vm_ids` are wanted.
    """

    states: tuple[JobState, ...] = ()
    kinds: tuple[JobKind, ...] = ()
    workload_id: str = ""
    vm: str = ""
    since: str = ""
    until: str = ""
    vm_ids: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Held:
    """Something opened in the Manager; `ref` is its id there.

    An order to a mover is held as well: `ref` is its id and `host_id` says where it runs.
    """

    job_id: str
    kind: HeldKind
    ref: str
    vm_id: str = ""
    disk_id: str = ""
    host_id: str = ""
    released: bool = False
