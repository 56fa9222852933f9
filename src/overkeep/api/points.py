# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about restore points and restores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import TypeAdapter

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.job_documents import JobOut, job_out
from overkeep.api.paging import Listing, Since, ThePaging, Until, listed_out
from overkeep.api.point_documents import PinIn, PointOut, RestoreIn, VerificationIn, point_out
from overkeep.api.repeatable import Repeatable
from overkeep.api.sight import few
from overkeep.api.versions import TheTag, content_tag, require_tag
from overkeep.controller.desks.points import Wanted
from overkeep.controller.rights import BACKUP, CREATE_VM, Caller
from overkeep.controller.service import Controller
from overkeep.controller.store.listings import Listed
from overkeep.controller.store.points import Marks, PointFilter, SeenPoint
from overkeep.controller.targets.configured import PlacedPoint
from overkeep.controller.workflows.verification import VerificationTerms
from overkeep.model.points import Mode, Pin
from overkeep.model.restore import RestoreRequest

router = APIRouter(prefix="/api/v1", tags=["points"], route_class=Repeatable)


def _wanted(
    vm: Annotated[str | None, Query(max_length=255, description="Name or id")] = None,
    target: Annotated[str | None, Query(max_length=255, description="Name")] = None,
) -> Wanted:
    return Wanted(vm=vm, target=target)


AWAY = "Overkeep-Away"
NEVER = Listed()
_PAGE = TypeAdapter(list[PointOut])
TheWanted = Annotated[Wanted, Depends(_wanted)]


@router.get("/points", response_model=list[PointOut])
def list_points(
    controller: TheController,
    caller: TheCaller,
    asked: ThePaging,
    wanted: TheWanted,
    workload: Annotated[str | None, Query(max_length=255, description="Name or id")] = None,
    mode: Mode | None = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    """Restore points of all targets as they were last seen, oldest first, of VMs that the caller may back up.

    The header `Overkeep-Away` names targets that cannot be read now, or were not yet read whole: on them may be other
    points than are listed.
    """
    shown = caller.shown()
    rows = PointFilter(
        workload_id=controller.workload(workload).id if workload else None,
        vm=wanted.vm,
        target=wanted.target,
        mode=mode,
        since=since,
        until=until,
        vm_ids=few(shown),
    )

    def read(after: list[Any] | None, count: int) -> Sequence[SeenPoint]:
        return controller.points.page(rows, after=_place(after), limit=count)

    def sees(seen: SeenPoint) -> bool:
        return shown is None or (seen.vm_id in shown and caller.may_see([seen.vm_id]))

    away = tell_away(asked.response, controller, target=wanted.target)
    listing = Listing(read=read, key=lambda seen: seen.key, sees=sees)
    page = listing.page(asked)
    listed = controller.points.listed()
    documents = [
        point_out(
            seen.point,
            Marks(pin=seen.pin, verification=seen.verification),
            target=seen.target,
            listed=listed.get(seen.target, NEVER).listed,
            away=seen.target in away,
        )
        for seen in page
    ]
    return listed_out(asked.response, _PAGE, documents)


@router.get("/points/{point}")
def show_point(
    point: str, response: Response, controller: TheController, caller: TheCaller, wanted: TheWanted
) -> PointOut:
    """One restore point; `vm` says which when one run made points of several VMs, `target` when it was copied."""
    found = _find(point, wanted, controller, caller)
    pin = controller.points.pin(found)
    out = _point_out(found, controller, pin)
    response.headers["ETag"] = _tag(out)
    return out


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
    wanted: TheWanted,
) -> PointOut:
    """Let a point stay, whatever a retention says, until it is unpinned; the caller needs `backup_disk` on the VM.

    A pin that is there is written anew by whoever may remove it. `If-Match` may name the point that is changed.
    """
    found = _of_caller(point, wanted, controller, caller, act="pin points of")
    before = _point_out(found, controller, controller.points.pin(found))
    require_tag(version, _tag(before), kind="restore point", name=found.point.id)
    pinned = _point_out(found, controller, controller.points.put_pin(found, asked.reason, caller=caller.name))
    response.headers["ETag"] = _tag(pinned)
    return pinned


@router.delete("/points/{point}/pin", status_code=204)
def unpin_point(point: str, controller: TheController, caller: TheCaller, wanted: TheWanted) -> None:
    """Let a point go as its retention says; for who pinned it and for administrators."""
    found = _of_caller(point, wanted, controller, caller, act="unpin points of")
    controller.points.remove_pin(found, caller=caller.name)


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
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return job_out(job)


@router.post("/verifications", status_code=202, tags=["verifications"])
def verify(asked: VerificationIn, response: Response, controller: TheController, caller: TheCaller) -> JobOut:
    """Start a check of the points of a VM, those checked longest ago first, within a time.

    The caller needs `backup_disk` on the VM. No other job works on the VM meanwhile: one that does is named (409).
    """
    workload = controller.workload(asked.workload)
    member = controller.points.member(workload, asked.vm, known=lambda vm_id: caller.may_see([vm_id]))
    caller.require(BACKUP, member.vm_id, act="verify points of", vm_name=member.vm_name)
    terms = VerificationTerms(share=asked.share, seconds=asked.seconds)
    job = controller.start_verification(workload, member, terms, target=asked.target, caller=caller.name)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return job_out(job)


def tell_away(response: Response, controller: Controller, *, target: str | None = None) -> frozenset[str]:
    """Name the targets that cannot be read now in a header, and return their names."""
    away = [one.target for one in controller.points.away(target=target)]
    if away:
        response.headers[AWAY] = ", ".join(away)
    return frozenset(away)


def _place(after: list[Any] | None) -> tuple[int, int] | None:
    if after is None:
        return None
    created, seq = after
    return int(created), int(seq)


def _point_out(placed: PlacedPoint, controller: Controller, pin: Pin | None) -> PointOut:
    listed = controller.points.listed().get(placed.target.name, NEVER).listed
    marks = Marks(pin=pin, verification=controller.points.verification(placed))
    return point_out(placed.point, marks, target=placed.target.name, listed=listed, away=False)


def _tag(point: PointOut) -> str:
    """Of a point only its pin and its last check change."""
    pin, checked = point.pin, point.verification
    return content_tag(
        point.id,
        point.vm_id,
        None if pin is None else (pin.reason, pin.by, pin.pinned_at),
        None if checked is None else checked.checked_at,
    )


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
