# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs of a run are backed up in one moment: all are frozen, all backups begin, all are thawed, within a budget of time.

Each VM comes with what its backup is to be, and waits. The one that finds all others there leads: it freezes all
guests, starts all backups, and thaws all guests as soon as all backups are ready, or the time is over. A VM's backup
holds what its disks held when it was frozen, for nothing was written since; and there was a moment in which all were
frozen: so all backups hold one moment. Each host thaws its guest itself once its backup has begun, which harms nothing:
by then that guest's backup holds what it must.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import TypeAdapter

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.activities.freezing import thaw_held
from overkeep.controller.activities.moment import Moment
from overkeep.controller.activities.release import watch_release
from overkeep.controller.ports import Ports
from overkeep.controller.store.gatherings import Gathering, Stage
from overkeep.engine.api import BackupRequest
from overkeep.errors import OverkeepError
from overkeep.model.consistency import Reached

_REQUEST = TypeAdapter(BackupRequest)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What came of it for one VM: what its backup is, None when it has not begun; `why` not all began in one moment."""

    reached: Reached | None
    why: str


def begin_together(exposure: Exposure, request: BackupRequest, *, seconds: float) -> Begun:
    """Wait for all VMs of the run and begin with them; guests are frozen for `seconds` at most. May be repeated.

    Raises `JobCancelled`.
    """
    store, job_id, vm_id = exposure.ports.store.gatherings, exposure.watch.job_id, exposure.vm_id
    store.arrive(job_id, vm_id, _REQUEST.dump_json(request).decode())
    while (seen := store.get(job_id)).stage is not Stage.OVER:
        exposure.watch.check()
        if seen.stage is Stage.GOING and (seen.leader == vm_id or _is_over(exposure, seen.leader)):
            _break_off(exposure.ports, job_id, seen)
        elif missing := _missing(exposure, seen):
            store.end(job_id, why=missing, outcomes={}, stage=Stage.GATHERING)
        elif store.lead(job_id, vm_id):
            _begin(exposure, store.get(job_id), seconds)
        else:
            exposure.watch.pause(exposure.ports.patience.poll)
    outcome = seen.outcomes.get(vm_id, "")
    return Begun(reached=Reached(outcome) if outcome else None, why=seen.why)


def _begin(exposure: Exposure, seen: Gathering, seconds: float) -> None:
    """Begin with all, and write down what came of it."""
    moment = Moment(exposure, [_REQUEST.validate_json(text) for text in seen.requests.values()], seconds=seconds)
    moment.run()
    why = moment.why
    outcomes = {one.exposure.vm_id: str((one.reached or "") if why else Reached.GROUP) for one in moment.guests}
    exposure.ports.store.gatherings.end(exposure.watch.job_id, why=why, outcomes=outcomes, stage=Stage.GOING)


def _missing(exposure: Exposure, seen: Gathering) -> str:
    """Why not all will come, empty when they will."""
    if seen.stage is not Stage.GATHERING or all(seen.requests.values()):
        return ""
    job = exposure.ports.store.jobs.get(exposure.watch.job_id)
    lost = [vm.vm_name for vm in job.vms if vm.state.over and not seen.requests.get(vm.vm_id, "here")]
    return f"VM {lost[0]!r} of the group is not backed up in this run." if lost else ""


def _is_over(exposure: Exposure, vm_id: str) -> bool:
    """Whether the work on a VM of the run has ended."""
    job = exposure.ports.store.jobs.get(exposure.watch.job_id)
    return any(vm.state.over for vm in job.vms if vm.vm_id == vm_id)


def _break_off(ports: Ports, job_id: str, seen: Gathering) -> None:
    """End what this VM led when its controller died: nobody knows for how long which guest was frozen."""
    outcomes = dict.fromkeys(seen.requests, str(Reached.CRASH))
    for vm_id, text in seen.requests.items():
        with suppress(OverkeepError):  # what is frozen still, the thawer thaws
            thaw_held(watch_release(ports, job_id, vm_id))
        with suppress(OverkeepError):
            if ports.engine.backup(vm_id, _REQUEST.validate_json(text).id).phase == "gone":
                outcomes[vm_id] = ""
    why = "The controller was restarted while guests were frozen."
    ports.store.gatherings.end(job_id, why=why, outcomes=outcomes, stage=Stage.GOING)


def why_not_together(members: Mapping[str, str], live: set[str], lacks: str) -> str:
    """Why the VMs of a run cannot begin in one moment, empty when they can.

    `members` are the names of the workload's VMs, `live` those that the run backs up, `lacks` a limit that is too low.
    """
    absent = [name for vm_id, name in members.items() if vm_id not in live]
    if absent:
        return f"VM {absent[0]!r} of the group is not backed up in this run."
    return lacks
