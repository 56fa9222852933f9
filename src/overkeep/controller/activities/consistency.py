# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens when a restore point cannot be as consistent as its workload wants."""

from __future__ import annotations

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.events import About, Draft, Kind, Level
from overkeep.errors import OverkeepError
from overkeep.model.consistency import Consistency, Otherwise


class ConsistencyNotReached(OverkeepError):
    """A restore point would be less consistent than its workload allows."""

    code = "consistency-not-reached"
    template = (
        "No restore point is made that is less than {wanted} consistent: {why} "
        "Mend that, or let the workload take less with `overkeep workload change --unreached warn`."
    )
    status = 409


def settle_for_less(exposure: Exposure, consistency: Consistency, why: str) -> None:
    """Raise `ConsistencyNotReached` when the workload refuses a lesser point; else tell once that it will be one."""
    if consistency.otherwise is Otherwise.REFUSE:
        raise ConsistencyNotReached(wanted=consistency.wanted, why=why)
    text = f"The restore point is not {consistency.wanted} consistent, as the workload wants it: {why}"
    job_id, vm_id = exposure.watch.job_id, exposure.vm_id
    exposure.ports.store.events.add(
        Draft(
            kind=Kind.CONSISTENCY_LOWER,
            text=text,
            about=About(job_id=job_id, vm_id=vm_id),
            level=Level.WARNING if consistency.otherwise is Otherwise.WARN else Level.INFO,
            key=f"{Kind.CONSISTENCY_LOWER}/{job_id}/{vm_id}",
            fields={"wanted": consistency.wanted},
        )
    )
