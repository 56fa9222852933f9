# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked about policies: they are made, given to workloads, and looked ahead with."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from overkeep.controller.activities.expiry import being_restored, reasons
from overkeep.controller.ports import Ports
from overkeep.controller.records import Assignment, StoredPolicy, Workload
from overkeep.controller.store.points import SeenCandidate
from overkeep.errors import Conflict
from overkeep.model.policy import Policy
from overkeep.model.retention import Foresight, Mark, Retention, decide, foresee
from overkeep.model.schedule import next_run
from overkeep.units import utc_now


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What is planned for a workload; all but its name is empty when it has no policy."""

    workload_id: str
    workload: str
    policy: str = ""
    paused: bool = False
    next_run: dt.datetime | None = None
    told: str = ""


@dataclass(frozen=True, kw_only=True)
class VmMarks:
    """What a retention decides about the points of a VM."""

    vm_id: str
    vm_name: str
    marks: tuple[Mark, ...]


class PolicyDesk:
    """Policies and what follows from them. `clock` tells the time."""

    def __init__(self, ports: Ports, *, clock: Callable[[], dt.datetime] = utc_now) -> None:
        self._ports = ports
        self._store = ports.store
        self._clock = clock

    def create(self, policy: Policy, *, caller: str = "") -> StoredPolicy:
        """Make a policy."""
        return self._store.policies.create(policy, caller=caller)

    def update(self, known: StoredPolicy, policy: Policy, *, caller: str = "") -> StoredPolicy:
        """Change a policy; with other schedules, runs count from now on."""
        changed = self._store.policies.update(known, policy, caller=caller)
        if policy.schedules != known.policy.schedules:
            self._store.assignments.plan_anew(known.id, now=self._clock())
        return changed

    def delete(self, policy: StoredPolicy, *, caller: str = "") -> None:
        """Remove a policy that no workload has."""
        self._store.policies.delete(policy, caller=caller)

    def get(self, name_or_id: str) -> StoredPolicy:
        """One policy; raises `NotFound`."""
        return self._store.policies.get(name_or_id)

    def all(self) -> tuple[StoredPolicy, ...]:
        """All policies."""
        return self._store.policies.all()

    def users(self) -> dict[str, str]:
        """The policies of workloads, by the ids of both."""
        return {item.workload_id: item.policy_id for item in self._store.assignments.all()}

    # workloads

    def give(self, workload: Workload, policy: StoredPolicy | None, *, caller: str = "") -> Planned:
        """Give a workload a policy, or none."""
        given = policy.id if policy else None
        self._store.assignments.set_policy(workload.id, given, now=self._clock(), caller=caller)
        return self.planned(workload)

    def pause(self, workload: Workload, *, caller: str = "") -> Planned:
        """Plan no runs of a workload until `resume`."""
        self._assignment(workload)
        self._store.assignments.pause(workload.id, caller=caller)
        return self.planned(workload)

    def resume(self, workload: Workload, *, caller: str = "") -> Planned:
        """Plan its runs again; those that were left out meanwhile are not made up for."""
        self._assignment(workload)
        self._store.assignments.resume(workload.id, now=self._clock(), caller=caller)
        return self.planned(workload)

    def planned(self, workload: Workload) -> Planned:
        """What is planned for a workload."""
        found = self._store.assignments.of(workload.id)
        if found is None:
            return Planned(workload_id=workload.id, workload=workload.name)
        policy = self._store.policies.get(found.policy_id).policy
        idle = found.paused or self.paused
        return Planned(
            workload_id=workload.id,
            workload=workload.name,
            policy=policy.name,
            paused=found.paused,
            next_run=None if idle else next_run(policy.schedules, self._clock()),
            told=found.told,
        )

    def _assignment(self, workload: Workload) -> Assignment:
        found = self._store.assignments.of(workload.id)
        if found is None:
            todo = "give it one with `overkeep workload set-policy`"
            raise Conflict(what=f"Workload {workload.name!r} has no policy", todo=todo)
        return found

    # the scheduler

    @property
    def paused(self) -> bool:
        """Whether no runs are planned at all."""
        return self._store.assignments.all_paused

    def pause_all(self, *, caller: str = "") -> None:
        """Plan no runs of any workload until `resume_all`."""
        self._store.assignments.pause_all(caller=caller)

    def resume_all(self, *, caller: str = "") -> None:
        """Plan runs again."""
        self._store.assignments.resume_all(now=self._clock(), caller=caller)

    # looking ahead

    def foresee(self, policy: Policy, *, days: int) -> Foresight:
        """What `days` of a policy's runs keep, from now."""
        return foresee(policy.schedules, policy.retention, start=self._clock(), days=days)

    def marks(self, workload: Workload, retention: Retention | None = None) -> tuple[VmMarks, ...]:
        """What a retention, or that of the workload's policy, would keep and remove now, by VM.

        Of the points as they were last seen; what is removed in the end is decided from the targets themselves.
        """
        if retention is None:
            retention = self._store.policies.get(self._assignment(workload).policy_id).policy.retention
        restores, now = being_restored(self._ports), self._clock()
        vms: defaultdict[str, list[SeenCandidate]] = defaultdict(list)
        had = {target.name for target in self._ports.targets.had_by(workload.id)}
        for one in self._store.points.candidates(workload.id):
            if one.target in had:
                vms[one.vm_id].append(one)
        decided = []
        for vm_id, seen in vms.items():
            # a point that lies on several targets, because a tree was copied, counts once
            candidates = {one.candidate.id: one.candidate for one in seen}
            pins = {one.candidate.id: one.pin for one in seen if one.pin}
            held = reasons(restores, {(workload.id, vm_id)}, pins)
            marks = decide(candidates.values(), retention, now=now, held=held)
            decided.append(VmMarks(vm_id=vm_id, vm_name=seen[-1].vm_name, marks=marks))
        return tuple(sorted(decided, key=lambda vm: vm.vm_name))
