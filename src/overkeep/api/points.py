# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about restore points and restores."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.documents import (
    JobOut,
    PinIn,
    PointOut,
    PointsOut,
    RestoreIn,
    away_out,
    job_out,
    point_out,
)
from overkeep.controller.points import Wanted
from overkeep.controller.rights import BACKUP, CREATE_VM, Caller
from overkeep.controller.service import Controller
from overkeep.controller.targets import PlacedPoint
from overkeep.model.restore import RestoreRequest

router = APIRouter(prefix="/v1", tags=["points"])


def _wanted(vm: str | None = None, target: str | None = None) -> Wanted:
    return Wanted(vm=vm, target=target)


TheWanted = Annotated[Wanted, Depends(_wanted)]


@router.get("/points")
def list_points(
    controller: TheController,
    caller: TheCaller,
    workload: str | None = None,
    vm: str | None = None,
    target: str | None = None,
) -> PointsOut:
    """Restore points, oldest first, of VMs that the caller may back up; `workload` and `vm` by name or id.

    Those of all targets, or of `target`. A target that cannot be read now is named in `away`.
    """
    workload_id = controller.workload(workload).id if workload else None
    found = controller.points.all(workload_id=workload_id, wanted=Wanted(vm=vm, target=target))
    seen = [placed for placed in found.points if caller.may_see([placed.point.vm_id])]
    points = tuple(point_out(placed, controller.points.pin(placed)) for placed in seen)
    return PointsOut(points=points, away=tuple(away_out(away) for away in found.away))


@router.get("/points/{point}")
def show_point(point: str, controller: TheController, caller: TheCaller, wanted: TheWanted) -> PointOut:
    """One restore point; `vm` says which when one run made points of several VMs, `target` when it was copied."""
    found = _find(point, wanted, controller, caller)
    return point_out(found, controller.points.pin(found))


@router.delete("/points/{point}", status_code=202)
def delete_point(
    point: str, response: Response, controller: TheController, caller: TheCaller, wanted: TheWanted
) -> JobOut:
    """Start the removal of a point, wherever it is in its chain: the points that stay read as before at every instant.

    The caller needs `backup_disk` on the VM. A pinned point is refused.
    """
    found = _find(point, wanted, controller, caller)
    caller.require(BACKUP, found.point.vm_id, act="delete points of", vm_name=found.point.vm_name)
    job = controller.start_removal(found, caller=caller.name)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_out(job)


@router.put("/points/{point}/pin")
def pin_point(point: str, asked: PinIn, controller: TheController, caller: TheCaller, wanted: TheWanted) -> PointOut:
    """Let a point stay, whatever a retention says, until it is unpinned; the caller needs `backup_disk` on the VM.

    A pin that is there is written anew by whoever may remove it.
    """
    found = _of_caller(point, wanted, controller, caller, act="pin points of")
    return point_out(found, controller.points.put_pin(found, asked.reason, caller=caller.name))


@router.delete("/points/{point}/pin", status_code=204)
def unpin_point(point: str, controller: TheController, caller: TheCaller, wanted: TheWanted) -> None:
    """Let a point go as its retention says; for who pinned it and for administrators."""
    controller.points.remove_pin(_of_caller(point, wanted, controller, caller, act="unpin points of"))


@router.post("/restores", status_code=202, tags=["restores"])
def restore(asked: RestoreIn, response: Response, controller: TheController, caller: TheCaller) -> JobOut:
    """Start the restore of a VM under a new name.

    The caller needs `create_vm` on the VM and on the cluster that is restored into, and `create_disk` on each storage
    domain.
    """
    placed = _find(asked.point, Wanted(vm=asked.vm, target=asked.target), controller, caller)
    point = placed.point
    caller.require(CREATE_VM, point.vm_id, act="restore", vm_name=point.vm_name)
    request = RestoreRequest(
        point_id=point.id,
        name=asked.name,
        cluster=asked.cluster,
        storage_domain=asked.storage_domain,
        keep_macs=asked.keep_macs,
        start=asked.start,
        disks=asked.disks,
    )
    targets = controller.restore_targets(placed, request)
    caller.require_targets(targets, vm_name=point.vm_name)
    job = controller.start_restore(placed, request, targets=targets, caller=caller.name)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_out(job)


def _of_caller(point_id: str, wanted: Wanted, controller: Controller, caller: Caller, *, act: str) -> PlacedPoint:
    """The point, if the caller may back its VM up and nobody else has pinned it."""
    found = _find(point_id, wanted, controller, caller)
    caller.require(BACKUP, found.point.vm_id, act=act, vm_name=found.point.vm_name)
    pin = controller.points.pin(found)
    if pin is not None and pin.by != caller.name:
        caller.require_admin(f"take the pin of {pin.by or 'somebody'} off restore point {point_id} of")
    return found


def _find(point_id: str, wanted: Wanted, controller: Controller, caller: Caller) -> PlacedPoint:
    """The point, among those of VMs that the caller may see."""
    return controller.points.find(point_id, wanted=wanted, known=lambda vm_id: caller.may_see([vm_id]))
