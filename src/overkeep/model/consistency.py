# SPDX-License-Identifier: GPL-3.0-or-later
"""How consistent a restore point is: what is wanted of it, what was reached, and what to do about a difference."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FROZEN_AT_MOST = 30
"""Seconds for which guests are held still at most, unless a workload says otherwise.

The Manager makes a scratch disk for each disk and looks at its own work every few seconds, so that less would often
not do; and it is the time after which a guest's drivers, and most clients of what runs there, give an answer up.
"""

LONGEST_FREEZE = 120
"""Seconds that may be asked for: after so long a kernel calls a task that waits for its disk hung."""


class Wanted(StrEnum):
    """What is wanted, least first.

    `crash`: as after a power cut. `file-system`: the guest has written all it had, and holds still in the moment of the
    backup. `group`: so have all VMs of the workload, in one moment.
    """

    CRASH = "crash"
    FILE_SYSTEM = "file-system"
    GROUP = "group"


class Reached(StrEnum):
    """What was reached. `offline`: the VM did not run, so that nothing was written to its disks."""

    CRASH = "crash"
    FILE_SYSTEM = "file-system"
    GROUP = "group"
    OFFLINE = "offline"

    def suffices(self, wanted: Wanted) -> bool:
        """Whether it is what was wanted, or more."""
        return self is Reached.OFFLINE or list(Wanted).index(Wanted(self)) >= list(Wanted).index(wanted)


class Otherwise(StrEnum):
    """What to do when what is wanted cannot be reached.

    `refuse`: make no restore point, the VM fails. `warn`: make a lesser one, with a warning. `accept`: as `warn`, but
    without one; the point says in both cases what it is.
    """

    REFUSE = "refuse"
    WARN = "warn"
    ACCEPT = "accept"


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """What a workload wants; guests of a group are held still for `frozen_at_most` seconds."""

    wanted: Wanted = Wanted.CRASH
    otherwise: Otherwise = Otherwise.WARN
    frozen_at_most: int = FROZEN_AT_MOST
