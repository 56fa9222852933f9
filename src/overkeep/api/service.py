# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about the service itself: health, movers, and what was left open."""

from __future__ import annotations

from fastapi import APIRouter

from overkeep import __version__
from overkeep.api.asked import TheBackend, TheCaller, TheController
from overkeep.api.documents import FindingOut, HealthOut, LeftoverOut, MoverOut, leftover_out, mover_out
from overkeep.api.paging import Listing, ThePaging, listed
from overkeep.controller.background.janitor import Leftover
from overkeep.controller.service import MoverHealth

router = APIRouter(prefix="/api/v1", tags=["service"])


@router.get("/health")
def health() -> HealthOut:
    """The controller answers; needs no token."""
    return HealthOut(version=__version__, status="ok")


@router.get("/movers")
def list_movers(controller: TheController, caller: TheCaller, asked: ThePaging) -> list[MoverOut]:
    """Whether the movers of all hosts answer, by host; for administrators."""
    caller.require_admin("look at the movers of")

    def key(mover: MoverHealth) -> tuple[str]:
        return (mover.host,)

    listing = Listing(read=listed(controller.movers(), key), key=key, sees=lambda _mover: True)
    return [mover_out(mover) for mover in listing.page(asked)]


@router.get("/leftovers")
def list_leftovers(backend: TheBackend, caller: TheCaller, asked: ThePaging) -> list[LeftoverOut]:
    """What is open in the Manager without a living job; the janitor closes it. For administrators."""
    caller.require_admin("look at the leftovers of")

    def key(leftover: Leftover) -> tuple[str, str, str]:
        return leftover.job_id, leftover.kind, leftover.ref

    listing = Listing(read=listed(backend.janitor.leftovers(), key), key=key, sees=lambda _leftover: True)
    return [leftover_out(leftover) for leftover in listing.page(asked)]


@router.get("/check")
def check(backend: TheBackend, caller: TheCaller) -> list[FindingOut]:
    """Look at the controller, the Manager, the targets and all movers, half a minute at most; for administrators."""
    caller.require_admin("check the installation of")
    return [FindingOut.model_validate(finding) for finding in backend.inspect()]
