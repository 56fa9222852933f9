# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of a workload: one backup a VM, side by side; a VM that fails does not fail the others."""

from __future__ import annotations

from collections.abc import Sequence

from overkeep.controller.durable import Durable
from overkeep.controller.ports import Ports
from overkeep.controller.records import Failure, JobState, VmProgress
from overkeep.controller.steps import State, Watch, failed, outcome
from overkeep.controller.store.policies import policy_document, terms_document
from overkeep.controller.workflows import backup_vm
from overkeep.errors import OverkeepError
from overkeep.model.policy import Policy, Terms

NAME = "backup"
VM_QUEUE = "vms"
_CHECK_EVERY = 0.25


def body(ports: Ports, durable: Durable, job_id: str) -> State:
    """Start a workflow for each VM, wait for all, and sum up."""
    opened = durable.step("open", lambda: outcome(lambda: _open(ports, job_id), job_id=job_id))
    if not failed(opened):
        children = [backup_vm.workflow_id(job_id, vm_id) for vm_id in opened["vms"]]
        for vm_id, child in zip(opened["vms"], children, strict=True):
            durable.submit(backup_vm.NAME, child, job_id, vm_id, opened["asked"], queue=VM_QUEUE)
        durable.step("wait", lambda: _wait(ports, durable, job_id, children))
    closed: State = durable.step("close", lambda: _close(ports, job_id, opened))
    return closed


def _open(ports: Ports, job_id: str) -> State:
    jobs = ports.store.jobs
    jobs.start(job_id)
    job = jobs.get(job_id)
    ports.ready_target()
    workload = ports.store.workloads.get(job.workload_id)
    members = {member.vm_id: member.vm_name for member in workload.members} | _members(job.vms)
    policy = _policy(ports, workload.id)
    kept = {} if policy is None else policy_document(policy)
    ports.repository.put_workload(workload.id, name=workload.name, members=members, policy=kept)
    terms = terms_document(Terms() if policy is None else policy.terms)
    asked = {"workload_id": workload.id, "full": bool(job.request.get("full")), "terms": terms}
    return {"vms": [vm.vm_id for vm in job.vms], "asked": asked}


def _policy(ports: Ports, workload_id: str) -> Policy | None:
    given = ports.store.assignments.of(workload_id)
    return None if given is None else ports.store.policies.get(given.policy_id).policy


def _members(vms: Sequence[VmProgress]) -> dict[str, str]:
    return {vm.vm_id: vm.vm_name for vm in vms}


def _wait(ports: Ports, durable: Durable, job_id: str, children: Sequence[str]) -> State:
    # A cancel is the children's business: each ends as soon as it has released what it holds.
    watch = Watch(ports=ports, job_id=job_id, heeds_cancel=False)
    while durable.open(children):
        watch.pause(_CHECK_EVERY)
    return {}


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
    text = f"{len(bad)} of {len(vms)} VMs were not backed up (succeeded: {good or 'none'}). {told}"
    return state, Failure(code=first.failure.code, text=text)
