# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about the service itself: health, movers, and what was left open."""

from __future__ import annotations

from fastapi import APIRouter

from overkeep import __version__
from overkeep.api.asked import TheBackend, TheCaller, TheController
from overkeep.api.documents import HealthOut, LeftoverOut, MoverOut, leftover_out, mover_out

router = APIRouter(prefix="/api/v1", tags=["service"])


@router.get("/health")
def health() -> HealthOut:
    """The controller answers; needs no token."""
    return HealthOut(version=__version__, status="ok")


@router.get("/movers")
def list_movers(controller: TheController, caller: TheCaller) -> list[MoverOut]:
    """Whether the movers of all hosts answer; for administrators."""
    caller.require_admin("look at the movers of")
    return [mover_out(mover) for mover in controller.movers()]


@router.get("/leftovers")
def list_leftovers(backend: TheBackend, caller: TheCaller) -> list[LeftoverOut]:
    """What is open in the Manager without a living job; the janitor closes it. For administrators."""
    caller.require_admin("look at the leftovers of")
    return [leftover_out(leftover) for leftover in backend.janitor.leftovers()]
