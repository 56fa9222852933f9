# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about what is planned: the policy of a workload, pause and resume, and what retention would do."""

from __future__ import annotations

from fastapi import APIRouter, Response

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.points import tell_away
from overkeep.api.policies import find_policy
from overkeep.api.policy_documents import GivenPolicyIn, PlannedOut, SchedulerOut, VmMarksOut, planned_out
from overkeep.api.repeatable import Repeatable
from overkeep.api.versions import TheTag, content_tag, require_tag
from overkeep.api.workloads import find_workload, require_backup, sees_workload
from overkeep.controller.desks.policies import Planned
from overkeep.controller.records import Workload
from overkeep.controller.rights import Caller
from overkeep.controller.service import Controller

router = APIRouter(prefix="/api/v1", tags=["scheduler"], route_class=Repeatable)


@router.get("/scheduler")
def show_scheduler(controller: TheController, caller: TheCaller) -> SchedulerOut:
    """What is planned for the workloads that the caller may see."""
    return _scheduler(controller, caller)


@router.post("/scheduler/pause")
def pause_scheduler(controller: TheController, caller: TheCaller) -> SchedulerOut:
    """Plan no runs at all; those that run go on. For administrators."""
    caller.require_admin("pause the scheduler of")
    controller.policies.pause_all(caller=caller.name)
    return _scheduler(controller, caller)


@router.post("/scheduler/resume")
def resume_scheduler(controller: TheController, caller: TheCaller) -> SchedulerOut:
    """Plan runs again; those left out meanwhile are not made up for. For administrators."""
    caller.require_admin("resume the scheduler of")
    controller.policies.resume_all(caller=caller.name)
    return _scheduler(controller, caller)


@router.get("/workloads/{workload}/schedule")
def show_schedule(workload: str, response: Response, controller: TheController, caller: TheCaller) -> PlannedOut:
    """The policy of a workload, and its next run."""
    planned = controller.policies.planned(find_workload(workload, controller, caller))
    response.headers["ETag"] = _tag(planned)
    return planned_out(planned)


@router.put("/workloads/{workload}/policy")
def set_policy(
    workload: str,
    asked: GivenPolicyIn,
    response: Response,
    controller: TheController,
    caller: TheCaller,
    version: TheTag,
) -> PlannedOut:
    """Give a workload a policy that the caller may see, or none; its runs count from now on.

    `If-Match` may name the schedule that is changed.
    """
    found = _mine(workload, controller, caller, act="plan backups of")
    require_tag(version, _tag(controller.policies.planned(found)), kind="schedule of workload", name=found.name)
    policy = find_policy(asked.policy, controller, caller) if asked.policy is not None else None
    planned = controller.policies.give(found, policy, caller=caller.name)
    response.headers["ETag"] = _tag(planned)
    return planned_out(planned)


@router.post("/workloads/{workload}/pause")
def pause_workload(workload: str, controller: TheController, caller: TheCaller) -> PlannedOut:
    """Plan no runs of a workload."""
    found = _mine(workload, controller, caller, act="pause backups of")
    return planned_out(controller.policies.pause(found, caller=caller.name))


@router.post("/workloads/{workload}/resume")
def resume_workload(workload: str, controller: TheController, caller: TheCaller) -> PlannedOut:
    """Plan its runs again; those left out meanwhile are not made up for."""
    found = _mine(workload, controller, caller, act="resume backups of")
    return planned_out(controller.policies.resume(found, caller=caller.name))


@router.get("/workloads/{workload}/retention")
def preview_retention(
    workload: str, response: Response, controller: TheController, caller: TheCaller, policy: str | None = None
) -> list[VmMarksOut]:
    """What the retention of the workload's policy, or of another one, would keep and remove now; removes nothing.

    It looks at the points as they were last seen, as lists do: the header `Overkeep-Away` names targets on which may be
    others. What a job removes is decided from the targets themselves.
    """
    found = find_workload(workload, controller, caller)
    other = find_policy(policy, controller, caller).policy.retention if policy is not None else None
    tell_away(response, controller)
    marked = controller.policies.marks(found, other)
    return [VmMarksOut.model_validate(vm) for vm in marked if caller.may_see([vm.vm_id])]


def _tag(planned: Planned) -> str:
    return content_tag(planned.workload_id, planned.policy, planned.paused)


def _mine(workload: str, controller: Controller, caller: Caller, *, act: str) -> Workload:
    found = find_workload(workload, controller, caller)
    require_backup(found.members, caller, act=act)
    return found


def _scheduler(controller: Controller, caller: Caller) -> SchedulerOut:
    mine = [item for item in controller.workloads() if sees_workload(item, caller)]
    planned = tuple(planned_out(controller.policies.planned(item)) for item in mine)
    return SchedulerOut(paused=controller.policies.paused, workloads=planned)
