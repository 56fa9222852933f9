# SPDX-License-Identifier: GPL-3.0-or-later
"""What events are: their kinds, what they are about, and what they say. They are made in `store.events` alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How much an event matters, least first."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def and_worse(self) -> tuple[Level, ...]:
        """This level and those that matter more."""
        levels = tuple(Level)
        return levels[levels.index(self) :]


class Kind(StrEnum):
    """The stable name of what happened, `subject.what`; what each means is in `MEANINGS`."""

    CONTROLLER_STARTED = "controller.started"
    CONTROLLER_STOPPED = "controller.stopped"
    JOB_QUEUED = "job.queued"
    JOB_STARTED = "job.started"
    JOB_CANCEL_ASKED = "job.cancel-asked"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_PARTIAL = "job.partial"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_NEEDS_ATTENTION = "job.needs-attention"
    JOB_LATE = "job.late"
    JOB_RETRY = "job.retry"
    JOB_WAITS = "job.waits"
    JOB_NOTE = "job.note"
    VM_STARTED = "vm.started"
    VM_PHASE = "vm.phase"
    VM_SUCCEEDED = "vm.succeeded"
    VM_FAILED = "vm.failed"
    VM_CANCELLED = "vm.cancelled"
    VM_NEEDS_ATTENTION = "vm.needs-attention"
    VM_RESTORED = "vm.restored"
    VM_RESTORED_OTHERWISE = "vm.restored-otherwise"
    VM_TRIED_OTHERWISE = "vm.tried-otherwise"
    VM_RELEASE_RETRIED = "vm.release-retried"
    DISK_LEFT_OUT = "disk.left-out"
    DISK_FULL = "disk.full"
    DISK_COPIED_AGAIN = "disk.copied-again"
    DISK_ACCESS_LOST = "disk.access-lost"
    GUEST_FROZEN = "guest.frozen"
    GUEST_THAWED = "guest.thawed"
    CONSISTENCY_LOWER = "consistency.lower"
    CHECKPOINT_STAYS = "checkpoint.stays"
    SNAPSHOT_STAYS = "snapshot.stays"
    SNAPSHOT_REMOVED = "snapshot.removed"
    POINT_MADE = "point.made"
    POINT_REMOVED = "point.removed"
    POINT_MERGED = "point.merged"
    POINT_STAYS = "point.stays"
    POINT_VERIFIED = "point.verified"
    POINT_UNVERIFIED = "point.unverified"
    POINT_UNSOUND = "point.unsound"
    POINT_PINNED = "point.pinned"
    POINT_UNPINNED = "point.unpinned"
    WORKLOAD_MADE = "workload.made"
    WORKLOAD_CHANGED = "workload.changed"
    WORKLOAD_MEMBERS = "workload.members"
    WORKLOAD_REMOVED = "workload.removed"
    WORKLOAD_POLICY = "workload.policy"
    WORKLOAD_PAUSED = "workload.paused"
    WORKLOAD_RESUMED = "workload.resumed"
    POLICY_MADE = "policy.made"
    POLICY_CHANGED = "policy.changed"
    POLICY_REMOVED = "policy.removed"
    SCHEDULER_PAUSED = "scheduler.paused"
    SCHEDULER_RESUMED = "scheduler.resumed"
    LIMIT_SET = "limit.set"
    LIMIT_PAUSED = "limit.paused"
    LIMIT_RESUMED = "limit.resumed"
    RUN_LEFT_OUT = "run.left-out"
    LEFTOVER_FOUND = "leftover.found"
    LEFTOVER_CLOSED = "leftover.closed"
    DRAFT_REMOVED = "draft.removed"
    TARGET_HIGH = "target.high"
    TARGET_FULL = "target.full"
    TARGET_ROOM = "target.room"
    TARGET_LISTED = "target.listed"
    TARGET_UNLISTED = "target.unlisted"
    MOVER_LOST = "mover.lost"
    MOVER_BACK = "mover.back"


MEANINGS: Mapping[Kind, str] = {
    Kind.CONTROLLER_STARTED: "The controller began to serve",
    Kind.CONTROLLER_STOPPED: "The controller was stopped; unfinished jobs go on at its next start",
    Kind.JOB_QUEUED: "A job was written down and waits for its turn",
    Kind.JOB_STARTED: "It began to work",
    Kind.JOB_CANCEL_ASKED: "Somebody asked for its end; it ends once everything is closed",
    Kind.JOB_SUCCEEDED: "All its VMs are done",
    Kind.JOB_PARTIAL: "Some of its VMs failed, others are done",
    Kind.JOB_FAILED: "None of its VMs succeeded",
    Kind.JOB_CANCELLED: "It was ended on request",
    Kind.JOB_NEEDS_ATTENTION: "It ended, and something is still open in the Manager",
    Kind.JOB_LATE: "A planned run begins later than planned",
    Kind.JOB_RETRY: "It tries again what a planned run did not do",
    Kind.JOB_WAITS: "VMs of it wait for slots of what they load; told once a job",
    Kind.JOB_NOTE: "From before events had kinds",
    Kind.VM_STARTED: "A job began to work on a VM",
    Kind.VM_PHASE: "The work on a VM went on to another phase",
    Kind.VM_SUCCEEDED: "The VM is backed up or restored, or what else the job does with it is done",
    Kind.VM_FAILED: "The work on a VM failed; the sentence says why",
    Kind.VM_CANCELLED: "The work on a VM was ended on request",
    Kind.VM_NEEDS_ATTENTION: "The work on a VM ended, and something of it is still open in the Manager",
    Kind.VM_RESTORED: "The Manager has the restored VM; `new_vm_id` is its id",
    Kind.VM_RESTORED_OTHERWISE: "Something of the restored VM is not as it was backed up",
    Kind.VM_TRIED_OTHERWISE: "A backup failed in a way that another kind of backup avoids, which is made now",
    Kind.VM_RELEASE_RETRIED: "The Manager does not close what a job opened; it is tried again for hours",
    Kind.DISK_LEFT_OUT: "A disk is not backed up; the sentence says why",
    Kind.DISK_FULL: "A disk is backed up in full, because nothing can be built on its last restore point",
    Kind.DISK_COPIED_AGAIN: "The copy of a disk failed and is tried again",
    Kind.DISK_ACCESS_LOST: "A host lost the ticket of a disk, and the Manager did not notice",
    Kind.GUEST_FROZEN: "A guest that was frozen for a backup cannot be thawed yet; it is tried every second",
    Kind.GUEST_THAWED: "A guest was frozen for longer than it may be, and was thawed by whoever saw it",
    Kind.CONSISTENCY_LOWER: "A restore point is less consistent than the workload wants; the sentence says why",
    Kind.CHECKPOINT_STAYS: "An old checkpoint could not be deleted in the Manager",
    Kind.SNAPSHOT_STAYS: "The snapshot of a hybrid backup could not be merged away; it is tried again every hour",
    Kind.SNAPSHOT_REMOVED: "The Manager had left the snapshot of a hybrid backup, which is merged away now",
    Kind.POINT_MADE: "A restore point was committed",
    Kind.POINT_REMOVED: "A restore point ended; `reason` says whether a policy or a person wanted it",
    Kind.POINT_MERGED: "Images of removed points were merged away; `freed` are the bytes",
    Kind.POINT_STAYS: "Points or images that were to go stay until the next backup",
    Kind.POINT_VERIFIED: "A restore point was checked and is sound; `share` of its data was read",
    Kind.POINT_UNVERIFIED: "A restore point could not be checked; nothing new is known of it",
    Kind.POINT_UNSOUND: "A restore point was checked and is not sound; the next backup builds upon nothing of it",
    Kind.POINT_PINNED: "A restore point stays, whatever its policy says",
    Kind.POINT_UNPINNED: "A restore point may go again",
    Kind.WORKLOAD_MADE: "A workload was made",
    Kind.WORKLOAD_CHANGED: "A workload was changed",
    Kind.WORKLOAD_MEMBERS: "The rules of a workload found other VMs than before",
    Kind.WORKLOAD_REMOVED: "A workload was forgotten; its points stay",
    Kind.WORKLOAD_POLICY: "A workload got a policy, or lost it",
    Kind.WORKLOAD_PAUSED: "No runs of a workload are planned",
    Kind.WORKLOAD_RESUMED: "Runs of a workload are planned again",
    Kind.POLICY_MADE: "A policy was made",
    Kind.POLICY_CHANGED: "A policy was changed",
    Kind.POLICY_REMOVED: "A policy was removed",
    Kind.SCHEDULER_PAUSED: "No runs are planned at all",
    Kind.SCHEDULER_RESUMED: "Runs are planned again",
    Kind.LIMIT_SET: "Another number of VMs may use a resource at once; `capacity` is empty for the default",
    Kind.LIMIT_PAUSED: "Nothing new uses a resource",
    Kind.LIMIT_RESUMED: "A resource is used again",
    Kind.RUN_LEFT_OUT: "A planned run was left out, because a job still works on a VM of it",
    Kind.LEFTOVER_FOUND: "Something of ours was open in the Manager without a living job",
    Kind.LEFTOVER_CLOSED: "What had been left open was closed",
    Kind.DRAFT_REMOVED: "An unfinished restore point was removed from the target",
    Kind.TARGET_HIGH: "A target is above its first mark; `size`, `used` and `free` are bytes",
    Kind.TARGET_FULL: "A target is above its second mark: no backup to it begins",
    Kind.TARGET_ROOM: "A target is below its marks again",
    Kind.TARGET_LISTED: "The points on a target were listed; told when that was asked for, or found a difference",
    Kind.TARGET_UNLISTED: "The points on a target could not be listed; they are shown as they were last seen",
    Kind.MOVER_LOST: "The mover of a host that is up does not answer",
    Kind.MOVER_BACK: "It answers again",
}

_LEVELS: Mapping[Kind, Level] = {
    **dict.fromkeys(
        (
            Kind.JOB_PARTIAL,
            Kind.JOB_CANCELLED,
            Kind.JOB_LATE,
            Kind.VM_CANCELLED,
            Kind.VM_RESTORED_OTHERWISE,
            Kind.VM_TRIED_OTHERWISE,
            Kind.VM_RELEASE_RETRIED,
            Kind.DISK_LEFT_OUT,
            Kind.DISK_FULL,
            Kind.DISK_COPIED_AGAIN,
            Kind.DISK_ACCESS_LOST,
            Kind.GUEST_THAWED,
            Kind.CONSISTENCY_LOWER,
            Kind.CHECKPOINT_STAYS,
            Kind.SNAPSHOT_STAYS,
            Kind.SNAPSHOT_REMOVED,
            Kind.POINT_STAYS,
            Kind.POINT_UNVERIFIED,
            Kind.RUN_LEFT_OUT,
            Kind.LEFTOVER_FOUND,
            Kind.LEFTOVER_CLOSED,
            Kind.DRAFT_REMOVED,
            Kind.TARGET_HIGH,
            Kind.TARGET_UNLISTED,
            Kind.MOVER_LOST,
        ),
        Level.WARNING,
    ),
    **dict.fromkeys(
        (
            Kind.JOB_FAILED,
            Kind.JOB_NEEDS_ATTENTION,
            Kind.VM_FAILED,
            Kind.VM_NEEDS_ATTENTION,
            Kind.GUEST_FROZEN,
            Kind.POINT_UNSOUND,
            Kind.TARGET_FULL,
        ),
        Level.ERROR,
    ),
}


@dataclass(frozen=True, kw_only=True)
class About:
    """What an event is about, by ids; empty where that does not apply. `host` and `target` are names."""

    job_id: str = ""
    workload_id: str = ""
    vm_id: str = ""
    vm_name: str = ""
    point_id: str = ""
    target: str = ""
    host: str = ""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An event to be written. Without a level it has that of its kind.

    What a job's row tells (its workload and its caller, the name of the VM) need not be given. Of two drafts with the
    same `key` only the first becomes an event: steps of jobs may be repeated. `fields` are JSON.
    """

    kind: Kind
    text: str
    about: About = field(default_factory=About)
    level: Level | None = None
    caller: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""

    @property
    def weight(self) -> Level:
        """The level that the event gets."""
        return self.level or level_of(self.kind)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened; `seq` rises with each, `time` in ISO 8601, UTC."""

    seq: int
    time: str
    kind: str
    level: Level
    text: str
    about: About
    caller: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events are wanted; what is empty does not matter.

    `kind` is a kind or the first words of several (`job` for `job.queued`, `job.started` …), `vm` an id or a name,
    `since` and `until` times in ISO 8601, UTC; `until` itself no longer counts. Only events of the VMs `vm_ids`, and of
    jobs and workloads with one of them, are wanted.
    """

    kind: str = ""
    level: Level = Level.INFO
    job_id: str = ""
    workload_id: str = ""
    vm: str = ""
    point_id: str = ""
    target: str = ""
    host: str = ""
    caller: str = ""
    since: str = ""
    until: str = ""
    vm_ids: frozenset[str] | None = None


def level_of(kind: Kind) -> Level:
    """The level that events of a kind have unless they say otherwise."""
    return _LEVELS.get(kind, Level.INFO)
