# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about workloads and the backups of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Response
from pydantic_core import to_json

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.documents import away_out
from overkeep.api.job_documents import JobOut, job_out
from overkeep.api.paging import Listing, ThePaging, written_out
from overkeep.api.repeatable import Repeatable
from overkeep.api.sight import Shown
from overkeep.api.versions import TheVersion, tag
from overkeep.api.workload_documents import (
    ChoiceOut,
    GivenTargetIn,
    MovedOut,
    SelectionIn,
    SnapshotIn,
    StayOut,
    WorkloadIn,
    WorkloadOut,
    choice_out,
    conduct_value,
    rules_value,
    workload_documents,
    workload_out,
)
from overkeep.controller.records import Member, Workload
from overkeep.controller.rights import BACKUP, Caller
from overkeep.controller.service import Controller
from overkeep.controller.store.listed_workloads import ListedWorkload
from overkeep.errors import NotFound
from overkeep.model.selection import Rules

_RULING = "let rules find VMs for"

router = APIRouter(prefix="/api/v1/workloads", tags=["workloads"], route_class=Repeatable)


@router.get("", response_model=list[WorkloadOut])
def list_workloads(controller: TheController, caller: TheCaller, asked: ThePaging) -> Response:
    """Workloads with at least one VM that the caller may back up, by name."""
    seen = Shown(caller)
    ids = None if seen.vm_ids is None else controller.ports.store.workloads.of_vms(seen.vm_ids).keys()

    def key(workload: ListedWorkload) -> tuple[str, str]:
        return workload.name, workload.id

    def sees(workload: ListedWorkload) -> bool:
        return seen.any_of(vm_id for vm_id, _, _ in workload.members)

    def read(after: list[Any] | None, count: int) -> Sequence[ListedWorkload]:
        return controller.workload_page(None if after is None else (str(after[0]), str(after[1])), count, ids=ids)

    listing = Listing(read=read, key=key, sees=sees)
    return written_out(asked.response, to_json(workload_documents(listing.page(asked))))


@router.post("", status_code=201)
def create_workload(asked: WorkloadIn, response: Response, controller: TheController, caller: TheCaller) -> WorkloadOut:
    """Make a workload of VMs that the caller may back up; with rules, if he administers the Manager."""
    rules = _rules(asked, caller)
    members = controller.members(asked.vms, rules=rules, known=caller.knows)
    require_backup(members, caller, act="make a workload of")
    ids = [member.vm_id for member in members]
    made = controller.create_workload(
        asked.name,
        ids,
        target=asked.target,
        description=asked.description,
        rules=rules,
        conduct=conduct_value(asked),
        caller=caller.name,
    )
    response.headers["Location"] = f"/api/v1/workloads/{made.id}"
    return _answer(response, made)


@router.post("/preview")
def preview(asked: SelectionIn, controller: TheController, caller: TheCaller) -> list[ChoiceOut]:
    """Which VMs a workload would have now, and which its rules leave out; nothing is made."""
    rules = _rules(asked, caller)
    members = controller.members(asked.vms, rules=rules, known=caller.knows)
    return [choice_out(choice) for choice in controller.choices([member.vm_id for member in members], rules)]


@router.get("/{workload}")
def show_workload(workload: str, response: Response, controller: TheController, caller: TheCaller) -> WorkloadOut:
    """One workload, by name or id."""
    return _answer(response, find_workload(workload, controller, caller))


@router.put("/{workload}")
def change_workload(
    workload: str,
    asked: WorkloadIn,
    response: Response,
    controller: TheController,
    caller: TheCaller,
    version: TheVersion,
) -> WorkloadOut:
    """Write name, description, VMs, rules, `parallel` and `consistency` anew, and the target if it is given.

    `If-Match` names what is changed.
    """
    found = find_workload(workload, controller, caller)
    if found.rules.include:
        caller.require_admin(_RULING)
    rules = _rules(asked, caller)
    members = controller.members(asked.vms, rules=rules, known=caller.knows)
    require_backup((*found.members, *members), caller, act="change the workload of")
    changed = replace(found, name=asked.name, description=asked.description, rules=rules, members=members)
    changed = replace(changed, conduct=conduct_value(asked))
    if asked.target is not None:
        changed = replace(changed, target=controller.ports.targets.get(asked.target).name)
    if version is not None:  # the store refuses to change it when it is another one by now
        changed = replace(changed, version=version)
    return _answer(response, controller.update_workload(changed, caller=caller.name))


@router.put("/{workload}/target")
def set_target(
    workload: str, asked: GivenTargetIn, response: Response, controller: TheController, caller: TheCaller
) -> MovedOut:
    """Back a workload up to another target from its next job on, which makes full backups.

    Its points stay where they are, can be restored from there, and count for its retention.
    """
    found = find_workload(workload, controller, caller)
    require_backup(found.members, caller, act="choose the target of")
    moved = controller.set_target(found, asked.target, caller=caller.name)
    left = controller.points.left_on(moved)
    return MovedOut(
        workload=_answer(response, moved),
        stay=tuple(StayOut(target=target, points=count) for target, count in sorted(left.counts.items())),
        away=tuple(away_out(away) for away in left.away),
    )


@router.delete("/{workload}", status_code=204)
def delete_workload(workload: str, controller: TheController, caller: TheCaller) -> None:
    """Forget a workload; its restore points stay on the target."""
    found = find_workload(workload, controller, caller)
    require_backup(found.members, caller, act="delete the workload of")
    controller.delete_workload(found, caller=caller.name)


@router.post("/{workload}/snapshots", status_code=202)
def back_up(
    workload: str, asked: SnapshotIn, response: Response, controller: TheController, caller: TheCaller
) -> JobOut:
    """Start a backup of all VMs of a workload."""
    found = find_workload(workload, controller, caller)
    require_backup(found.members, caller, act="back up")
    job = controller.start_backup(found, caller=caller.name, full=asked.full)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return job_out(job)


def _rules(asked: SelectionIn, caller: Caller) -> Rules:
    """The rules that are asked for.

    They find VMs later, when nobody is there whose rights could be looked at: only an administrator may ask for that.
    """
    rules = rules_value(asked.rules)
    if rules.include:
        caller.require_admin(_RULING)
    return rules


def _answer(response: Response, workload: Workload) -> WorkloadOut:
    tag(response, workload.version)
    return workload_out(workload)


def find_workload(name: str, controller: Controller, caller: Caller) -> Workload:
    """The workload, which does not exist for a caller who may not see it."""
    found = controller.workload(name)
    if not sees_workload(found, caller):
        raise NotFound(kind="workload", name=name, how="overkeep workload list")
    return found


def sees_workload(workload: Workload, caller: Caller) -> bool:
    """Whether the caller may see a workload."""
    return caller.may_see(member.vm_id for member in workload.members)


def require_backup(members: tuple[Member, ...], caller: Caller, *, act: str) -> None:
    """Raise `Forbidden` unless the caller may back up all of the VMs."""
    for member in members:
        caller.require(BACKUP, member.vm_id, act=act, vm_name=member.vm_name)
