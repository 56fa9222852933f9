# SPDX-License-Identifier: GPL-3.0-or-later
"""How the VMs of a workload are backed up together in one run."""

from __future__ import annotations

from dataclasses import dataclass, field

from overkeep.model.consistency import Consistency


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """What holds for each run of a workload.

    `parallel` is how many of its VMs are backed up at once, None for as many as the limits let; with 1 they are backed
    up one after the other, in the order of the members.
    """

    parallel: int | None = None
    consistency: Consistency = field(default_factory=Consistency)
