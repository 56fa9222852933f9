# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents about limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from overkeep.api.documents import Document
from overkeep.model.admission import MOST_SLOTS

if TYPE_CHECKING:  # the command line reads these documents too, and should not wait for the whole controller
    from overkeep.controller.waits import Usage


class LimitIn(Document):
    """How many VMs use a resource at once; without `capacity` the default holds again."""

    capacity: int | None = Field(default=None, ge=1, le=MOST_SLOTS)


class LimitOut(Document):
    """A resource, or by the name of its kind each of that kind; VMs that wait may wait for another resource."""

    resource: str
    capacity: int
    by_default: bool
    paused: bool
    used: int
    waiting: int


def limit_out(usage: Usage) -> LimitOut:
    """The document of a limit."""
    limit = usage.limit
    return LimitOut(
        resource=limit.resource,
        capacity=limit.capacity,
        by_default=usage.by_default,
        paused=limit.paused,
        used=usage.used,
        waiting=usage.waiting,
    )
