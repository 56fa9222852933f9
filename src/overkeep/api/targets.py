# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about backup targets."""

from __future__ import annotations

from fastapi import APIRouter

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.paging import Listing, ThePaging, listed
from overkeep.api.repeatable import Repeatable
from overkeep.api.target_documents import AcceptIn, ProbeIn, ProbeOut, TargetOut
from overkeep.controller.desks.targets import TargetState
from overkeep.controller.records import ProbeResult
from overkeep.model.probes import Terms

router = APIRouter(prefix="/api/v1/targets", tags=["targets"], route_class=Repeatable)


@router.get("")
def list_targets(controller: TheController, _caller: TheCaller, asked: ThePaging) -> list[TargetOut]:
    """The targets that workloads can be backed up to, by name, and whether the controller can use them now."""

    def key(state: TargetState) -> tuple[str]:
        return (state.target.name,)

    found = sorted(controller.targets.all(), key=key)
    listing = Listing(read=listed(found, key), key=key, sees=lambda _state: True)
    return [target_out(state) for state in listing.page(asked)]


@router.get("/{target}")
def show_target(target: str, controller: TheController, _caller: TheCaller) -> TargetOut:
    """One target."""
    return target_out(controller.targets.one(target))


@router.post("/{target}/accept")
def accept_target(target: str, asked: AcceptIn, controller: TheController, caller: TheCaller) -> TargetOut:
    """Take what the target holds now for its repository, in place of the one it held before; for administrators.

    `found` must be what the target holds now: so nobody accepts another one than he has looked at.
    """
    caller.require_admin("accept another repository for")
    return target_out(controller.targets.accept(target, found=asked.found))


@router.post("/{target}/rescan", status_code=202)
def rescan_target(target: str, controller: TheController, caller: TheCaller) -> TargetOut:
    """Read the restore points on a target anew, every manifest and pin of them; for administrators.

    The answer does not wait for it: `listing` tells whether it goes on. A reading that fails changes no list.
    """
    caller.require_admin("rescan targets of")
    return target_out(controller.targets.rescan(target))


@router.post("/{target}/probe")
def probe_target(target: str, asked: ProbeIn, controller: TheController, caller: TheCaller) -> ProbeOut:
    """Write to a target from the controller or from a host, read it back, and measure both; for administrators.

    It takes three times `seconds` and 5 s at most. A target that fails is answered as well, with its error.
    """
    caller.require_admin("try out targets of")
    terms = Terms(size=asked.size, seconds=asked.seconds)
    return probe_out(controller.targets.probe(target, host=asked.host, terms=terms))


def probe_out(result: ProbeResult) -> ProbeOut:
    """The document of a probe."""
    found, failure = result.probe, result.failure
    told = ProbeOut(
        target=result.target,
        host=result.host,
        time=result.time,
        ok=not failure.code and found is not None and found.owned,
        code=failure.code,
        error=failure.text,
    )
    if found is None:
        return told
    return told.model_copy(
        update={
            "source": found.source,
            "repository": found.repository,
            "owner": f"{found.owner[0]}:{found.owner[1]}",
            "owned": found.owned,
            "direct": found.direct,
            "synced_ms": round(found.synced_ms, 2),
            "size": found.size,
            "write_speed": None if found.write_speed is None else round(found.write_speed),
            "read_speed": None if found.read_speed is None else round(found.read_speed),
        }
    )


def target_out(state: TargetState) -> TargetOut:
    """The document of a target."""
    settings, space = state.target.settings, state.space
    return TargetOut(
        name=settings.name,
        kind=settings.kind,
        default=state.default,
        repository=state.repository,
        found=state.found,
        ok=state.error is None,
        code=state.error.code if state.error else "",
        error=state.error.message if state.error else "",
        source=settings.source,
        mountpoint=str(settings.mountpoint),
        size=space.size if space else None,
        used=space.used if space else None,
        free=space.free if space else None,
        fill=state.fill,
        grows_a_day=None if state.grows is None else round(state.grows),
        days_until_full=None if state.days_left is None else round(state.days_left, 1),
        listed=state.listed.listed,
        listing=state.listed.going_on,
        listing_error=state.listed.error,
        probes=[probe_out(result) for result in state.probes],
    )
