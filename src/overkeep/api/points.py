# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about restore points and restores."""

from __future__ import annotations

from fastapi import APIRouter, Response

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.documents import JobOut, PinIn, PointOut, RestoreIn, job_out, point_out
from overkeep.controller.rights import BACKUP, CREATE_VM, Caller
from overkeep.controller.service import Controller
from overkeep.model.points import RestorePoint
from overkeep.model.restore import RestoreRequest

router = APIRouter(prefix="/api/v1", tags=["points"])


@router.get("/points")
def list_points(
    controller: TheController, caller: TheCaller, workload: str | None = None, vm: str | None = None
) -> list[PointOut]:
    """Restore points, oldest first, of VMs that the caller may back up; `workload` and `vm` by name or id."""
    workload_id = controller.workload(workload).id if workload else None
    found = controller.points(workload_id=workload_id, vm=vm)
    return [point_out(point, controller.pin(point)) for point in found if caller.may_see([point.vm_id])]


@router.get("/points/{point}")
def show_point(point: str, controller: TheController, caller: TheCaller, vm: str | None = None) -> PointOut:
    """One restore point; `vm` says which when one run made points of several VMs."""
    found = _find(point, vm, controller, caller)
    return point_out(found, controller.pin(found))


@router.delete("/points/{point}", status_code=202)
def delete_point(
    point: str, response: Response, controller: TheController, caller: TheCaller, vm: str | None = None
) -> JobOut:
    """Start the removal of a point, wherever it is in its chain: the points that stay read as before at every instant.

    The caller needs `backup_disk` on the VM. A pinned point is refused.
    """
    found = _find(point, vm, controller, caller)
    caller.require(BACKUP, found.vm_id, act="delete points of", vm_name=found.vm_name)
    job = controller.start_removal(found, caller=caller.name)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return job_out(job)


@router.put("/points/{point}/pin")
def pin_point(
    point: str, asked: PinIn, controller: TheController, caller: TheCaller, vm: str | None = None
) -> PointOut:
    """Let a point stay, whatever a retention says, until it is unpinned; the caller needs `backup_disk` on the VM.

    A pin that is there is written anew by whoever may remove it.
    """
    found = _of_caller(point, vm, controller, caller, act="pin points of")
    return point_out(found, controller.put_pin(found, asked.reason, caller=caller.name))


@router.delete("/points/{point}/pin", status_code=204)
def unpin_point(point: str, controller: TheController, caller: TheCaller, vm: str | None = None) -> None:
    """Let a point go as its retention says; for who pinned it and for administrators."""
    found = _of_caller(point, vm, controller, caller, act="unpin points of")
    controller.remove_pin(found, caller=caller.name)


@router.post("/restores", status_code=202, tags=["restores"])
def restore(asked: RestoreIn, response: Response, controller: TheController, caller: TheCaller) -> JobOut:
    """Start the restore of a VM under a new name.

    The caller needs `create_vm` on the VM and on the cluster that is restored into, and `create_disk` on each storage
    domain.
    """
    point = _find(asked.point, asked.vm, controller, caller)
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
    targets = controller.restore_targets(point, request)
    caller.require_targets(targets, vm_name=point.vm_name)
    job = controller.start_restore(point, request, targets=targets, caller=caller.name)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return job_out(job)


def _of_caller(point_id: str, vm: str | None, controller: Controller, caller: Caller, *, act: str) -> RestorePoint:
    """The point, if the caller may back its VM up and nobody else has pinned it."""
    found = _find(point_id, vm, controller, caller)
    caller.require(BACKUP, found.vm_id, act=act, vm_name=found.vm_name)
    pin = controller.pin(found)
    if pin is not None and pin.by != caller.name:
        caller.require_admin(f"take the pin of {pin.by or 'somebody'} off restore point {found.id} of")
    return found


def _find(point_id: str, vm: str | None, controller: Controller, caller: Caller) -> RestorePoint:
    """The point, among those of VMs that the caller may see."""
    return controller.point(point_id, vm=vm, known=lambda vm_id: caller.may_see([vm_id]))
