# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents about limits."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from overkeep.api.documents import Document
from overkeep.model.admission import MOST_SLOTS

if TYPE_CHECKING:  # the command line reads these documents too, and should not wait for the whole controller
    from overkeep.controller.desks.waits import Usage


class LimitWindowDoc(Document):
    """Another limit in a window of the week, as `mon-fri 08:00-18:00`; with 0 nothing begins in it."""

    when: Annotated[str, Field(min_length=1, max_length=200)]
    capacity: int = Field(ge=0, le=MOST_SLOTS)


class LimitIn(Document):
    """How many VMs use a resource at once; without `capacity` the default holds again.

    In `windows`, by the clocks of `zone` (of the IANA data base), other numbers hold; the first that is open counts.
    """

    capacity: int | None = Field(default=None, ge=1, le=MOST_SLOTS)
    windows: tuple[LimitWindowDoc, ...] = Field(default=(), max_length=50)
    zone: Annotated[str, Field(min_length=1, max_length=200)] = "UTC"


class LimitOut(Document):
    """A resource, or by the name of its kind each of that kind; VMs that wait may wait for another resource.

    `capacity` is what holds now, `usual` what holds outside of all windows, `windows` and `zone` what was set for this
    resource itself. `until`: when a window opens or closes next, after which `then` holds; null when none does within a
    week.
    """

    resource: str
    capacity: int
    by_default: bool
    paused: bool
    used: int
    waiting: int
    usual: int
    windows: tuple[LimitWindowDoc, ...]
    zone: str
    until: dt.datetime | None
    then: int | None


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
        usual=usage.usual,
        windows=tuple(LimitWindowDoc.model_validate(each) for each in usage.setting.windows),
        zone=usage.change.zone if usage.change else usage.setting.zone,
        until=usage.change.at if usage.change else None,
        then=usage.change.capacity if usage.change else None,
    )
