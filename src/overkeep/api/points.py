# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about restore points and restores."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.documents import JobOut, PinIn, PointOut, RestoreIn, job_out, point_out
from overkeep.api.paging import Listing, Since, ThePaging, Until, in_time, listed
from overkeep.api.repeatable import Repeatable
from overkeep.api.versions import TheTag, content_tag, require_tag
from overkeep.controller.rights import BACKUP, CREATE_VM, Caller
from overkeep.controller.service import Controller
from overkeep.model.points import Mode, Pin, RestorePoint
from overkeep.model.restore import RestoreRequest

router = APIRouter(prefix="/api/v1", tags=["points"], route_class=Repeatable)


@router.get("/points")
def list_points(
    controller: TheController,
    caller: TheCaller,
    asked: ThePaging,
    workload: Annotated[str | None, Query(max_length=255, description="Name or id")] = None,
    vm: Annotated[str | None, Query(max_length=255, description="Name or id")] = None,
    mode: Mode | None = None,
    since: Since = None,
    until: Until = None,
) -> list[PointOut]:
    """Restore points, oldest first, of VMs that the caller may back up."""
    workload_id = controller.workload(workload).id if workload else None

    def sees(point: RestorePoint) -> bool:
        wanted = mode in (None, point.mode) and in_time(point.created, since, until)
        return wanted and caller.may_see([point.vm_id])

    found = controller.points(workload_id=workload_id, vm=vm)
    listing = Listing(read=listed(found, _key), key=_key, sees=sees)
    return [point_out(point, controller.pin(point)) for point in listing.page(asked)]


@router.get("/points/{point}")
def show_point(
    point: str, response: Response, controller: TheController, caller: TheCaller, vm: str | None = None
) -> PointOut:
    """One restore point; `vm` says which when one run made points of several VMs."""
    found = _find(point, vm, controller, caller)
    pin = controller.pin(found)
    response.headers["ETag"] = _tag(found, pin)
    return point_out(found, pin)


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
    point: str,
    asked: PinIn,
    response: Response,
    controller: TheController,
    caller: TheCaller,
    version: TheTag,
    vm: str | None = None,
) -> PointOut:
    """Let a point stay, whatever a retention says, until it is unpinned; the caller needs `backup_disk` on the VM.

    A pin that is there is written anew by whoever may remove it. `If-Match` may name the point that is changed.
    """
    found = _of_caller(point, vm, controller, caller, act="pin points of")
    require_tag(version, _tag(found, controller.pin(found)), kind="restore point", name=found.id)
    pin = controller.put_pin(found, asked.reason, caller=caller.name)
    response.headers["ETag"] = _tag(found, pin)
    return point_out(found, pin)


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


def _key(point: RestorePoint) -> tuple[str, str, str]:
    return point.created.isoformat(), point.vm_name, point.vm_id


def _tag(point: RestorePoint, pin: Pin | None) -> str:
    """Of a point only its pin changes."""
    return content_tag(point.id, point.vm_id, None if pin is None else (pin.reason, pin.by, pin.pinned_at))


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
