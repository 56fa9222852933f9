# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about limits: how many VMs use a host, a storage domain, a target at once, and all together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.limit_documents import LimitIn, LimitOut, limit_out
from overkeep.api.paging import Listing, ThePaging
from overkeep.api.repeatable import Repeatable
from overkeep.api.versions import TheTag, content_tag, require_tag
from overkeep.controller.desks.waits import Usage, place
from overkeep.model.admission import SlotsWindow

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


@router.get("/{resource}")
def show_limit(resource: str, controller: TheController, caller: TheCaller, response: Response) -> LimitOut:
    """One limit, also of a resource that nobody set one for. For administrators."""
    caller.require_admin("see the limits of")
    return _answered(controller.limits.one(resource), response)


@router.put("/{resource}")
def set_limit(
    resource: str,
    asked: LimitIn,
    controller: TheController,
    caller: TheCaller,
    version: TheTag,
    response: Response,
) -> LimitOut:
    """Let so many VMs use a resource at once; nothing that runs is ended. For administrators.

    `If-Match` may name the limit that is changed.
    """
    caller.require_admin("set limits of")
    require_tag(version, _tag(controller.limits.one(resource)), kind="limit", name=resource)
    windows = [SlotsWindow(when=each.when, capacity=each.capacity) for each in asked.windows]
    changed = controller.limits.set(resource, asked.capacity, windows=windows, zone=asked.zone, caller=caller.name)
    return _answered(changed, response)


@router.post("/{resource}/pause")
def pause_resource(resource: str, controller: TheController, caller: TheCaller, response: Response) -> LimitOut:
    """Let nothing new use a resource; what runs goes on. For administrators."""
    caller.require_admin("pause resources of")
    return _answered(controller.limits.pause(resource, caller=caller.name), response)


@router.post("/{resource}/resume")
def resume_resource(resource: str, controller: TheController, caller: TheCaller, response: Response) -> LimitOut:
    """Let a resource be used again. For administrators."""
    caller.require_admin("resume resources of")
    return _answered(controller.limits.resume(resource, caller=caller.name), response)


def _answered(usage: Usage, response: Response) -> LimitOut:
    response.headers["ETag"] = _tag(usage)
    return limit_out(usage)


def _tag(usage: Usage) -> str:
    """Of what was set: how much of it is used changes all the time, and which window is open, by themselves."""
    windows = [(each.when, each.capacity) for each in usage.setting.windows]
    limit = usage.limit
    return content_tag(limit.resource, usage.usual, limit.paused, usage.by_default, windows, usage.setting.zone)
