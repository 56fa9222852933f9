# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about limits: how many VMs use a host, a storage domain, a target at once, and all together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.documents import LimitIn, LimitOut, limit_out
from overkeep.api.paging import Listing, ThePaging
from overkeep.api.repeatable import Repeatable
from overkeep.controller.waits import Usage, place

router = APIRouter(prefix="/api/v1/limits", tags=["limits"], route_class=Repeatable)


@router.get("")
def list_limits(controller: TheController, caller: TheCaller, asked: ThePaging) -> list[LimitOut]:
    """What is in force, how much of it is used, and how many VMs wait. For administrators."""
    caller.require_admin("see the limits of")
    found = controller.limits.all()

    def read(after: Sequence[Any] | None, count: int) -> Sequence[Usage]:
        return [usage for usage in found if after is None or place(usage.limit.resource) > tuple(after)][:count]

    listing = Listing(read=read, key=lambda usage: place(usage.limit.resource), sees=lambda _usage: True)
    return [limit_out(usage) for usage in listing.page(asked)]


@router.put("/{resource}")
def set_limit(resource: str, asked: LimitIn, controller: TheController, caller: TheCaller) -> LimitOut:
    """Let so many VMs use a resource at once; nothing that runs is ended. For administrators."""
    caller.require_admin("set limits of")
    return limit_out(controller.limits.set(resource, asked.capacity, caller=caller.name))


@router.post("/{resource}/pause")
def pause_resource(resource: str, controller: TheController, caller: TheCaller) -> LimitOut:
    """Let nothing new use a resource; what runs goes on. For administrators."""
    caller.require_admin("pause resources of")
    return limit_out(controller.limits.pause(resource, caller=caller.name))


@router.post("/{resource}/resume")
def resume_resource(resource: str, controller: TheController, caller: TheCaller) -> LimitOut:
    """Let a resource be used again. For administrators."""
    caller.require_admin("resume resources of")
    return limit_out(controller.limits.resume(resource, caller=caller.name))
