# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller: what may be asked of it, whoever asks. Rights are looked at by the API, which knows the caller."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from overkeep.controller.activities.expiry import require_unread
from overkeep.controller.activities.membership import choices, found
from overkeep.controller.desks.limits import LimitDesk
from overkeep.controller.desks.points import PointDesk
from overkeep.controller.desks.policies import PolicyDesk
from overkeep.controller.desks.targets import TargetDesk
from overkeep.controller.desks.waits import Waits, waits
from overkeep.controller.durable import Durable
from overkeep.controller.events import Event
from overkeep.controller.needs import removal_needs, restore_needs, verification_needs
from overkeep.controller.ports import Ports
from overkeep.controller.records import InLine, Job, JobKind, JobState, Member, Workload
from overkeep.controller.store.listed_workloads import ListedWorkload
from overkeep.controller.targets.configured import PlacedPoint
from overkeep.controller.workflows import backup, backup_vm, removal, restore, verification
from overkeep.controller.workflows.restore_plan import decide_targets
from overkeep.controller.workflows.verification import VerificationTerms
from overkeep.engine.errors import AmbiguousName, NoSuchVm
from overkeep.errors import BadRequest, Conflict, OverkeepError
from overkeep.model.admission import Priority
from overkeep.model.conduct import Conduct
from overkeep.model.inventory import Vm
from overkeep.model.restore import RestoreRequest, Targets
from overkeep.model.selection import Choice, Rules
from overkeep.mover.api import Load
from overkeep.units import utc_now

_NO_RULES = Rules()
_NO_CONDUCT = Conduct()


@dataclass(frozen=True, kw_only=True)
class MoverHealth:
    """Whether the mover of a host answers."""

    host: str
    host_status: str
    ok: bool
    version: str
    error: str
    load: Load | None = None


def make_durable(ports: Ports, durable: Durable) -> None:
    """Register the workflows; their bodies get everything through `ports`."""
    durable.workflow(backup.NAME, lambda job_id: backup.body(ports, job_id))
    durable.workflow(backup.CLOSE, lambda job_id: backup.closing_body(ports, job_id))
    durable.workflow(backup_vm.NAME, lambda job_id, vm_id, asked: backup_vm.body(ports, job_id, vm_id, asked))
    durable.workflow(restore.NAME, lambda job_id, request: restore.body(ports, job_id, request))
    durable.workflow(removal.NAME, lambda job_id, request: removal.body(ports, job_id, request))
    durable.workflow(verification.NAME, lambda job_id, request: verification.body(ports, job_id, request))


class Controller:
    """Workloads, their backups, restores, and the jobs that do them."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self._store = ports.store
        self.policies = PolicyDesk(ports)
        self.limits = LimitDesk(ports)
        self.points = PointDesk(ports)
        self.targets = TargetDesk(ports)

    # workloads

    def create_workload(
        self,
        name: str,
        vms: Sequence[str],
        *,
        target: str | None = None,
        description: str = "",
        rules: Rules = _NO_RULES,
        conduct: Conduct = _NO_CONDUCT,
        caller: str = "",
    ) -> Workload:
        """Make a workload of VMs given by name or id, and of those that rules find.

        It is backed up to a target or to the first one.
        """
        targets = self.ports.targets
        chosen = targets.default if target is None else targets.get(target)
        members = found(self.ports, rules, self.members(vms, rules=rules))
        return self._store.workloads.create(
            name,
            members,
            target=chosen.name,
            description=description,
            rules=rules,
            conduct=conduct,
            caller=caller,
        )

    def choices(self, vms: Sequence[str], rules: Rules) -> tuple[Choice, ...]:
        """Which VMs a workload of these VMs and rules would have now, and which its rules leave out."""
        named = self.members(vms, rules=rules)
        return choices(self.ports, rules, {member.vm_id for member in named})

    def members(
        self,
        vms: Sequence[str],
        *,
        rules: Rules = _NO_RULES,
        known: Callable[[str], bool] = lambda _vm_id: True,
    ) -> tuple[Member, ...]:
        """Look VMs up in the Manager, by name or id; there may be none only when there are rules that find some.

        Those that are not `known` to who asks do not exist for him.
        """
        if not vms and not rules.include:
            raise BadRequest(what="A workload needs a VM or a rule", todo="name one with --vm or --include")
        named = [self._find_vm(vm, known) for vm in vms]
        return tuple({vm.id: Member(vm_id=vm.id, vm_name=vm.name) for vm in named}.values())

    def update_workload(self, workload: Workload, *, caller: str = "") -> Workload:
        """Write a workload that exists, with what its rules find now."""
        named = tuple(member for member in workload.members if not member.by_rule)
        members = found(self.ports, workload.rules, named)
        self._store.workloads.update(replace(workload, members=members), caller=caller)
        self._store.admission.news.set()  # VMs of it may wait for one another no longer
        return self._store.workloads.get(workload.id)

    def set_target(self, workload: Workload, target: str, *, caller: str = "") -> Workload:
        """Let a workload be backed up to another target from its next job on; its points stay where they are."""
        moved = replace(workload, target=self.ports.targets.get(target).name)
        return self.update_workload(moved, caller=caller)

    def delete_workload(self, workload: Workload, *, caller: str = "") -> None:
        """Forget a workload; its restore points stay on the target. Not while a job works on it."""
        if busy := self._store.jobs.live_of(workload.id):
            raise Conflict(what=f"Job {busy} works on workload {workload.name!r}", todo="wait until it has ended")
        self._store.workloads.delete(workload, caller=caller)

    def workload(self, name_or_id: str) -> Workload:
        """One workload; raises `NotFound`."""
        return self._store.workloads.get(name_or_id)

    def workloads(self) -> tuple[Workload, ...]:
        """All workloads."""
        return self._store.workloads.all()

    def workload_page(
        self, after: tuple[str, str] | None, limit: int, *, ids: Collection[str] | None = None
    ) -> tuple[ListedWorkload, ...]:
        """The first workloads by name and id, or those after one; `ids`: only these."""
        return self._store.workloads.page(after, limit=limit, ids=ids)

    # jobs

    def start_backup(self, workload: Workload, *, caller: str, full: bool) -> Job:
        """Queue a backup of all VMs of a workload; raises `Conflict` naming the job that works on one of them."""
        job = _job(JobKind.BACKUP, workload.name, caller=caller, request={"full": full, "target": workload.target})
        job = replace(job, workload_id=workload.id)
        self._store.jobs.create(job, workload.members, exclusive=True)
        return self._store.jobs.get(job.id)

    def retry_backup(self, job: Job, *, caller: str) -> Job:
        """Queue a backup of those VMs of an ended one that did not succeed and are still in the workload."""
        if job.kind is not JobKind.BACKUP or not job.state.over:
            why = "is no backup" if job.kind is not JobKind.BACKUP else f"has not ended ({job.state})"
            raise Conflict(what=f"Job {job.id} {why}", todo="name a backup that has ended")
        bad = {vm.vm_id for vm in job.vms if vm.state is not JobState.SUCCEEDED}
        workload = self.workload(job.workload_id)
        members = tuple(member for member in workload.members if member.vm_id in bad)
        if not members:
            what = f"Nothing is left of job {job.id} to be tried again: its VMs succeeded or left the workload"
            raise Conflict(what=what, todo="back the workload up anew if that is wanted")
        request = {"full": bool(job.request.get("full")), "retries": job.id, "target": workload.target}
        again = _job(JobKind.BACKUP, workload.name, caller=caller, request=request)
        again = replace(again, workload_id=workload.id)
        self._store.jobs.create(again, members, exclusive=True)
        return self._store.jobs.get(again.id)

    def restore_targets(self, placed: PlacedPoint, request: RestoreRequest) -> Targets:
        """Where a restore would make something; raises what speaks against the restore already now."""
        return decide_targets(self.ports, placed, request)

    def start_restore(self, placed: PlacedPoint, request: RestoreRequest, *, targets: Targets, caller: str) -> Job:
        """Queue a restore of one VM under a new name, to `targets` and nowhere else."""
        point = placed.point
        kept = restore.request_json(request, placed, targets=targets)
        job = _job(JobKind.RESTORE, request.name, caller=caller, request=kept)
        job = replace(job, workload_id=point.workload_id)
        line = InLine(needs=restore_needs(placed.target.name, targets), priority=Priority.RESTORE)
        member = Member(vm_id=point.vm_id, vm_name=request.name)
        self._store.jobs.create(job, (member,), exclusive=False, line=line)
        return self._store.jobs.get(job.id)

    def start_removal(self, placed: PlacedPoint, *, caller: str) -> Job:
        """Queue the removal of one point; raises what speaks against it already now, and `Conflict` naming a job."""
        point = placed.point
        placed.target.repository.require_unpinned(point)
        require_unread(self.ports, point.workload_id, point.vm_id, vm_name=point.vm_name)
        job = _job(JobKind.REMOVAL, point.id, caller=caller, request=removal.request_json(placed))
        job = replace(job, workload_id=point.workload_id)
        line = InLine(needs=removal_needs(placed.target.name), priority=Priority.ASKED)
        member = Member(vm_id=point.vm_id, vm_name=point.vm_name)
        self._store.jobs.create(job, (member,), exclusive=True, line=line)
        return self._store.jobs.get(job.id)

    def start_verification(
        self, workload: Workload, member: Member, terms: VerificationTerms, *, target: str | None, caller: str
    ) -> Job:
        """Queue a check of the points that a workload has of a VM on a target, those checked longest ago first.

        Raises `Conflict` naming the job that works on the VM: what is checked must not be merged meanwhile.
        """
        chosen = self.ports.targets.get(target or workload.target)
        kept = verification.request_json(terms, workload_id=workload.id, vm_id=member.vm_id, target=chosen.name)
        job = _job(JobKind.VERIFICATION, member.vm_name, caller=caller, request=kept)
        job = replace(job, workload_id=workload.id)
        line = InLine(needs=verification_needs(chosen.name), priority=Priority.PLANNED)
        self._store.jobs.create(job, (member,), exclusive=True, line=line)
        return self._store.jobs.get(job.id)

    def cancel(self, job: Job, *, caller: str = "") -> Job:
        """Ask a job to end; it ends once it has released what it holds."""
        if job.state.over:
            raise Conflict(what=f"Job {job.id} has ended already ({job.state})", todo="there is nothing to cancel")
        self._store.jobs.request_cancel(job.id, caller=caller)
        return self._store.jobs.get(job.id)

    def job(self, job_id: str) -> Job:
        """One job; raises `NotFound`."""
        return self._store.jobs.get(job_id)

    def events(self, job_id: str, *, after: int, seconds: float) -> tuple[Event, ...]:
        """Events of a job after a number; waits up to `seconds` for one unless the job is over."""

        def done() -> bool:
            return self.ports.stopping.is_set() or self.job(job_id).state.over

        return self._store.events.wait(job_id, after=after, seconds=seconds, done=done)

    def waits(self, job_ids: Sequence[str]) -> Waits:
        """Why the waiting VMs of jobs that are not over wait."""
        return waits(self._store, job_ids)

    # movers

    def movers(self) -> tuple[MoverHealth, ...]:
        """Whether the movers of all hosts answer."""
        return tuple(self._health(host.id, host.name, host.status) for host in self.ports.engine.hosts())

    def _find_vm(self, name_or_id: str, known: Callable[[str], bool]) -> Vm:
        try:
            vm = self.ports.engine.find_vm(name_or_id)
        except AmbiguousName as error:
            ids = [vm_id for vm_id in error.vm_ids if known(vm_id)]
            if len(ids) > 1:
                raise AmbiguousName(count=len(ids), name=name_or_id, ids=", ".join(ids)) from error
            if not ids:
                raise NoSuchVm(name=name_or_id) from error
            return self.ports.engine.find_vm(ids[0])
        if not known(vm.id):
            raise NoSuchVm(name=name_or_id)
        return vm

    def _health(self, host_id: str, name: str, status: str) -> MoverHealth:
        try:
            answer = self.ports.movers.at(host_id).health()
        except OverkeepError as error:
            return MoverHealth(host=name, host_status=status, ok=False, version="", error=error.message)
        return MoverHealth(host=name, host_status=status, ok=True, version=answer.version, error="", load=answer.load)


def _job(kind: JobKind, subject: str, *, caller: str, request: dict[str, Any]) -> Job:
    return Job(
        id=str(uuid.uuid4()),
        kind=kind,
        state=JobState.QUEUED,
        workload_id="",
        subject=subject,
        caller=caller,
        request=request,
        created=utc_now().isoformat(timespec="milliseconds"),
    )
