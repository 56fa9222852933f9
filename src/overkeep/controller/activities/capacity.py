# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup needs room on its target: none begins above the second mark."""

from __future__ import annotations

from overkeep.controller.targets.target import Target
from overkeep.errors import OverkeepError
from overkeep.model.capacity import Fill, Space, fill
from overkeep.units import human_size


class TargetAboveMark(OverkeepError):
    """A target is so full that no backup to it begins."""

    code = "target-above-mark"
    template = (
        "No backup to target {target!r} begins: {used} of it are used and {free} are free, and its settings stop "
        "backups at {limit}; remove restore points, make it larger, or back up to another target."
    )
    retry = True
    status = 507


def require_room(target: Target) -> None:
    """Raise `TargetAboveMark` when a target is above its second mark; the errors of the target."""
    space = target.space()
    if fill(space, target.marks) is Fill.FULL:
        free = human_size(space.free)
        raise TargetAboveMark(target=target.name, used=percent(space), free=free, limit=limit(target))


def percent(space: Space) -> str:
    """How much of a target is used, as it is told."""
    return f"{space.percent:.1f} %"


def limit(target: Target) -> str:
    """From where on no backup to a target begins, as it is told."""
    marks = target.marks
    return f"{marks.full:g} % used" + (f" or less than {human_size(marks.reserve)} free" if marks.reserve else "")
