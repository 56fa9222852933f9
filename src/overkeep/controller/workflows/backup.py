# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of a workload: it is opened, its VMs are backed up as their turns come, and then it is summed up.

Between its two workflows nothing of it runs: the dispatcher begins the VMs, and closes the run when all have ended.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from overkeep.controller.activities.gathering import why_not_together
from overkeep.controller.activities.membership import settled
from overkeep.controller.activities.steps import State, failed, outcome
from overkeep.controller.durable import Durable
from overkeep.controller.needs import backup_needs
from overkeep.controller.ports import Ports
from overkeep.controller.records import Failure, Job, JobState, VmProgress, Workload
from overkeep.controller.store.consistency import consistency_document
from overkeep.controller.store.gatherings import Stage as GatheringStage
from overkeep.controller.store.policies import policy_document, terms_document
from overkeep.errors import OverkeepError
from overkeep.model import admission
from overkeep.model.admission import Priority, in_words, rank
from overkeep.model.consistency import Wanted
from overkeep.model.inventory import Place
from overkeep.model.policy import Policy, Terms

NAME = "backup"
CLOSE = "close-backup"

_log = logging.getLogger(__name__)


def closing_id(job_id: str) -> str:
    """Id of the workflow that sums a run up."""
    return f"{job_id}:close"


def body(ports: Ports, job_id: str) -> State:
    """Let the VMs of a run wait for their turns; when that cannot be, the run ends."""
    opened: State = Durable.step("open", lambda: outcome(lambda: _open(ports, job_id), job_id=job_id))
    if not failed(opened):
        return opened
    closed: State = Durable.step("close", lambda: _close(ports, job_id, opened))
    return closed


def closing_body(ports: Ports, job_id: str) -> State:
    """Sum a run up whose VMs have all ended."""
    closed: State = Durable.step("close", lambda: _close(ports, job_id, {}))
    return closed


def _open(ports: Ports, job_id: str) -> State:
    jobs = ports.store.jobs
    jobs.start(job_id)
    job = jobs.get(job_id)
    target = ports.targets.of(job.request)
    target.ready()
    workload = ports.store.workloads.get(job.workload_id)
    if workload.rules.include and not _is_retry(job):
        workload = settled(ports, workload)
        jobs.settle(job, workload.members)
        job = jobs.get(job_id)
    members = {member.vm_id: member.vm_name for member in workload.members} | _members(job.vms)
    policy = _policy(ports, workload.id)
    kept = {} if policy is None else policy_document(policy)
    target.repository.put_workload(workload.id, name=workload.name, members=members, policy=kept)
    terms = terms_document(Terms() if policy is None else policy.terms)
    places = _places(ports, job)
    more = _more(ports, job, workload, places, target=target.name)
    asked = {
        "workload_id": workload.id,
        "target": target.name,
        "full": bool(job.request.get("full")),
        "terms": terms,
        "without": list(workload.rules.disks),
        "consistency": consistency_document(workload.conduct.consistency),
        "more": list(more),
    }
    ports.store.turns.agree(job_id, asked)  # before a VM waits: its turn may come at once
    needs = {vm_id: backup_needs(target.name, place, more=more) for vm_id, place in places.items()}
    ports.store.admission.wait(job_id, needs, ranks=_ranks(job, workload))
    return {}


def _live(job: Job) -> list[str]:
    return [vm.vm_id for vm in job.vms if not vm.state.over]


def _places(ports: Ports, job: Job) -> dict[str, Place | None]:
    """Where the VMs are that are backed up, as far as it is known; each looks again when its turn has come."""
    vm_ids = _live(job)
    found: Mapping[str, Place] = {}
    try:
        found = ports.engine.places(vm_ids)
    except OverkeepError as error:
        _log.warning("job %s: where its VMs are is not known yet: %s", job.id, error)
    return {vm_id: found.get(vm_id) for vm_id in vm_ids}


def _ranks(job: Job, workload: Workload) -> dict[str, str]:
    """The place of each VM in line: in the order of the members, those that left the workload last."""
    order = {member.vm_id: position for position, member in enumerate(workload.members)}
    vm_ids = sorted(_live(job), key=lambda vm_id: order.get(vm_id, len(order)))
    priority = Priority.PLANNED if "planned" in job.request else Priority.ASKED
    return {vm_id: rank(priority, job.created, position) for position, vm_id in enumerate(vm_ids)}


def _more(
    ports: Ports, job: Job, workload: Workload, places: Mapping[str, Place | None], *, target: str
) -> tuple[str, ...]:
    """What the VMs need for the sake of the run: slots of the workload, and to begin together."""
    limited = () if workload.conduct.parallel is None else (admission.workload(workload.id),)
    if workload.conduct.consistency.wanted is not Wanted.GROUP:
        return limited
    needs = {vm_id: backup_needs(target, place, more=limited) for vm_id, place in places.items()}
    return (*limited, admission.group(job.id)) if _gather(ports, job, workload, needs) else limited


def _gather(ports: Ports, job: Job, workload: Workload, needs: Mapping[str, Sequence[str]]) -> bool:
    """Let the VMs of a group begin in one moment; whether they can: they need slots at the same time."""
    limits = ports.store.admission.limits()
    loads = Counter(need for needed in needs.values() for need in needed)
    low = next((need for need, count in loads.items() if limits.most(need) < count), "")
    words = f"The limit of {in_words(low)} is lower than the {loads[low]} VMs of the group need." if low else ""
    members = {member.vm_id: member.vm_name for member in workload.members}
    ports.store.gatherings.open(job.id, needs, why=why_not_together(members, set(needs), words))
    return ports.store.gatherings.get(job.id).stage is not GatheringStage.OVER


def _is_retry(job: Job) -> bool:
    """Whether it does again what an earlier one did not do, and nothing else."""
    return "retries" in job.request or int(job.request.get("tries", 1)) > 1


def _policy(ports: Ports, workload_id: str) -> Policy | None:
    given = ports.store.assignments.of(workload_id)
    return None if given is None else ports.store.policies.get(given.policy_id).policy


def _members(vms: Sequence[VmProgress]) -> dict[str, str]:
    return {vm.vm_id: vm.vm_name for vm in vms}


def _close(ports: Ports, job_id: str, opened: State) -> State:
    jobs = ports.store.jobs
    job = jobs.get(job_id)
    for vm in job.vms:
        if not vm.state.over:
            code = opened.get("code") or OverkeepError.code
            text = opened.get("error") or OverkeepError(reason="the job ended without a word").message
            jobs.set_vm(job_id, vm.vm_id, state=JobState.FAILED, phase="", error_code=code, error=text, busy=False)
    vms = jobs.get(job_id).vms
    state, failure = verdict(vms)
    points = {vm.vm_id: vm.point_id for vm in vms if vm.point_id}
    jobs.end(job_id, state, failure=failure, result={"points": points})
    return {"state": state}


def verdict(vms: Sequence[VmProgress]) -> tuple[JobState, Failure]:
    """The state of a job from those of its VMs, the worst first, and one sentence about all that did not succeed."""
    bad = [vm for vm in vms if vm.state is not JobState.SUCCEEDED]
    if not bad:
        return JobState.SUCCEEDED, Failure()
    order = (JobState.NEEDS_ATTENTION, JobState.FAILED, JobState.CANCELLED)
    state = next(state for state in order if any(vm.state is state for vm in bad))
    first = next(vm for vm in bad if vm.state is state)
    if len(vms) == 1 or (state is JobState.CANCELLED and len(bad) == len(vms)):
        return state, first.failure
    good = ", ".join(vm.vm_name for vm in vms if vm.state is JobState.SUCCEEDED)
    if good and state is JobState.FAILED:
        state = JobState.PARTIAL
    told = " ".join(f"{vm.vm_name}: {vm.failure.text}" for vm in bad)
    text = f"{len(bad)} of {len(vms)} VMs have no sound restore point of this run (succeeded: {good or 'none'}). {told}"
    return state, Failure(code=first.failure.code, text=text)
