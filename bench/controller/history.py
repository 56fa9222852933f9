# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore points, jobs and events of a large site that has worked for years, as rows."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.controller.bulk import Row
from bench.controller.site import Size
from overkeep.controller.events import Kind, level_of
from overkeep.controller.records import DiskProgress, Failure, Job, JobKind, JobState, Member, Stage
from overkeep.controller.store.points import point_row
from overkeep.controller.store.rows import disk_row, job_row, vm_row
from overkeep.model.inventory import DiskFormat
from overkeep.model.points import Changes, DiskImage, Mode, RestorePoint, point_id

FIRST = dt.datetime(2026, 1, 1, 22, tzinfo=dt.UTC)
TARGETS = ("nfs1", "nfs2")
_FULL_EVERY = 30  # points of a VM
_RUN_EVERY = 20  # jobs: those between are of one VM each, started by somebody or by a retry
_STEP = dt.timedelta(seconds=150)  # between two jobs: a million are of some five years


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A time, and a day later, as addresses have them; a job that began then, and a point that was made soon after."""

    time: str
    next_day: str
    created: str
    job_id: str
    point_id: str


@dataclass(frozen=True, kw_only=True)
class History:
    """What the rows are made of; `each` is how many points, jobs and events there are for each VM."""

    size: Size
    workloads: Sequence[str]
    each: int

    @property
    def rows(self) -> int:
        """Of points, of jobs, and of events."""
        return self.size.vms * self.each

    def middle(self) -> Moment:
        """What was when half of the rows were written."""
        number = self.rows // 2
        time = FIRST + number * _STEP
        return Moment(
            time=_url_time(time),
            next_day=_url_time(time + dt.timedelta(days=1)),
            created=time.isoformat(timespec="milliseconds"),
            job_id=job_id(number),
            point_id=_event_point(number - number % len(_KINDS) + _KINDS.index(Kind.POINT_MADE)),
        )

    def points(self) -> Iterator[Row]:
        """One point a VM and day, in the order of time."""
        for day in range(self.each):
            for number in range(self.size.vms):
                workload = number // self.size.vms_each
                created = FIRST + dt.timedelta(days=day, seconds=workload)
                row = point_row(target_of(workload), _point(number, self.workloads[workload], created, day))
                yield {**row, "pin": ""}

    def jobs(self) -> Iterator[Row]:
        """Runs of whole workloads and jobs of one VM, all ended."""
        made = job_row(_JOB)
        for number in range(self.rows):
            run = self._is_run(number)
            state, kind = _state(number, run=run), JobKind.BACKUP if run else _kind(number)
            time = FIRST + number * _STEP
            yield {
                **made,
                "id": job_id(number),
                "kind": kind,
                "state": state,
                "workload_id": self.workloads[number % self.size.workloads],
                "subject": f"workload{number % self.size.workloads}",
                "created": time.isoformat(timespec="milliseconds"),
                "error_code": "" if state is JobState.SUCCEEDED else "engine-busy",
                "error": "" if state is JobState.SUCCEEDED else "The Manager does something else with the VM.",
            }

    def job_vms(self) -> Iterator[Row]:
        """The VMs of all jobs."""
        for number, vm in self._vms():
            row = vm_row(job_id(number), Member(vm_id=f"vm-{vm}", vm_name=f"vm{vm}"), busy=False)
            state = _vm_state(_state(number, run=self._is_run(number)))
            yield {**row, "state": state, "stage": Stage.GIVEN, "needs": "", "rank": ""}

    def job_disks(self) -> Iterator[Row]:
        """The disks of all VMs of all jobs."""
        row = disk_row(_DISK)
        for number, vm in self._vms():
            yield {"job_id": job_id(number), "vm_id": f"vm-{vm}", "disk_id": _disk_id(vm), **row}

    def events(self) -> Iterator[Row]:
        """What was told of these jobs; of some nothing, so that there are as many events as jobs."""
        for number in range(self.rows):
            workload = number % self.size.workloads
            vm = workload * self.size.vms_each + number // self.size.workloads % self.size.vms_each
            kind = _KINDS[number % len(_KINDS)] if number % 1000 else Kind.TARGET_HIGH
            of_vm = kind.startswith(("vm.", "point."))
            of_target = kind.startswith(("target.", "point."))
            yield {
                "time": (FIRST + number * _STEP).isoformat(timespec="milliseconds"),
                "kind": kind,
                "level": level_of(kind),
                "text": f"Backup of VM 'vm{vm}': {kind} of this time",
                "job_id": "" if kind is Kind.TARGET_HIGH else job_id(number),
                "workload_id": "" if kind is Kind.TARGET_HIGH else self.workloads[workload],
                "vm_id": f"vm-{vm}" if of_vm else "",
                "vm_name": f"vm{vm}" if of_vm else "",
                "point_id": _event_point(number) if kind is Kind.POINT_MADE else "",
                "target": target_of(workload) if of_target else "",
                "host": f"host{vm % 50}" if kind is Kind.MOVER_LOST else "",
                "caller": f"person{number % 37}" if kind is Kind.JOB_QUEUED and number % 3 == 0 else "",
                "fields": json.dumps({"code": "", "job_kind": "backup"}),
                "key": None,
            }

    def _is_run(self, number: int) -> bool:
        """Whether a job is one of a whole workload."""
        return number // self.size.workloads % _RUN_EVERY == 0

    def _vms(self) -> Iterator[tuple[int, int]]:
        """The numbers of each job and of its VMs."""
        each = self.size.vms_each
        for number in range(self.rows):
            first = number % self.size.workloads * each
            if self._is_run(number):
                yield from ((number, first + other) for other in range(each))
            else:
                yield number, first + number // self.size.workloads % each


def target_of(workload: int) -> str:
    """The name of the target of a workload."""
    return TARGETS[workload % 10 == 0]


def job_id(number: int) -> str:
    """As random as the real ones."""
    return f"{number * 2654435761 & 0xFFFFFFFF:08x}-0000-4000-8000-{number:012}"


def _event_point(number: int) -> str:
    return f"20260101T220000Z-{number:08x}"


def _url_time(time: dt.datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _disk_id(vm: int) -> str:
    return f"6d0c1f3e-0000-4000-8000-{vm:012}"


def _kind(number: int) -> JobKind:
    return {7: JobKind.RESTORE, 11: JobKind.REMOVAL}.get(number % 50, JobKind.BACKUP)


def _state(number: int, *, run: bool) -> JobState:
    if number % 1009 == 1:
        return JobState.NEEDS_ATTENTION
    if number % 31 == 3:
        return JobState.PARTIAL if run else JobState.FAILED
    return JobState.CANCELLED if number % 127 == 5 else JobState.SUCCEEDED


def _vm_state(state: JobState) -> JobState:
    return JobState.FAILED if state is JobState.PARTIAL else state


_KINDS = (
    Kind.JOB_QUEUED,
    Kind.JOB_STARTED,
    Kind.VM_STARTED,
    *(Kind.VM_PHASE,) * 7,
    Kind.POINT_MADE,
    Kind.VM_SUCCEEDED,
    Kind.VM_STARTED,
    *(Kind.VM_PHASE,) * 7,
    Kind.VM_FAILED,
    Kind.JOB_PARTIAL,
    Kind.MOVER_LOST,
    Kind.JOB_SUCCEEDED,
)
_JOB = Job(
    id="",
    kind=JobKind.BACKUP,
    state=JobState.SUCCEEDED,
    workload_id="",
    subject="",
    caller="somebody",
    request={"full": False, "target": "nfs1", "planned": "2026-01-01T22:00:00+00:00"},
    created="",
    started="2026-01-01T22:00:00.000+00:00",
    ended="2026-01-01T22:10:00.000+00:00",
    failure=Failure(),
    result={"points": {"vm-1": "20260101T220000Z-00000000"}},
)
_DISK = DiskProgress(
    disk_id="",
    name="root",
    mode="incremental",
    reason="changes are tracked",
    state="done",
    done=1 << 30,
    total=1 << 30,
    moved=1 << 30,
)


def _point(number: int, workload_id: str, created: dt.datetime, day: int) -> RestorePoint:
    mode = Mode.FULL if (day + number) % _FULL_EVERY == 0 else Mode.INCREMENTAL
    made = point_id(created, workload_id)
    image = DiskImage(
        disk_id=_disk_id(number),
        name="root",
        file=f"{made}.qcow2",
        backing=None if mode is Mode.FULL else "20260101T220000Z-00000000.qcow2",
        mode=mode,
        reason="changes are tracked" if mode is Mode.INCREMENTAL else "it is the first backup",
        virtual_size=100 << 30,
        stored=1 << 30,
        covered=1 << 30,
        moved=1 << 30,
        format=DiskFormat.COW,
        interface="virtio_scsi",
        bootable=True,
        changes=Changes.TRACKED,
        since_full=1,
        tracks_changes=True,
        storage_domain_id=f"domain-{number % 20}",
        storage_domain=f"data{number % 20}",
    )
    return RestorePoint(
        id=made,
        workload_id=workload_id,
        vm_id=f"vm-{number}",
        vm_name=f"vm{number}",
        created=created,
        job_id=workload_id,
        mode=mode,
        checkpoint_id=f"checkpoint-{number}-{day}",
        images=(image,),
    )
