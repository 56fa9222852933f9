# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs of a run are backed up in one moment: all are frozen, all backups begin, all are thawed, within a budget of time.

Each VM comes with what its backup is to be, and waits. The one that finds all others there leads: it freezes all
guests, starts all backups, and thaws all guests as soon as all backups are ready, or the time is over. A VM's backup
holds what its disks held when it was frozen, for nothing was written since; and there was a moment in which all were
frozen: so all backups hold one moment. Each host thaws its guest itself once its backup has begun, which harms nothing:
by then that guest's backup holds what it must.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from pydantic import TypeAdapter

from overkeep.controller.exposure import BACKUP_OVER, Exposure
from overkeep.controller.freezing import freeze, thaw_held
from overkeep.controller.ports import Ports
from overkeep.controller.records import HeldKind
from overkeep.controller.release import watch_release
from overkeep.controller.steps import JobCancelled
from overkeep.controller.store.gatherings import Gathering, Stage
from overkeep.engine.api import BackupRequest
from overkeep.engine.errors import GuestNotFrozen
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.model.consistency import Reached
from overkeep.model.inventory import VmStatus

_LOOK = 0.25  # seconds between two looks while guests are frozen
_AT_ONCE = 32  # guests that are frozen, and backups that are started, at the same time
_REQUEST = TypeAdapter(BackupRequest)
_Value = TypeVar("_Value")

_log = logging.getLogger(__name__)


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
            _Moment(exposure, store.get(job_id), seconds).run()
        else:
            exposure.watch.pause(exposure.ports.patience.poll)
    outcome = seen.outcomes.get(vm_id, "")
    return Begun(reached=Reached(outcome) if outcome else None, why=seen.why)


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


class _NotTogether(OverkeepError):
    """Not all VMs could begin in one moment; never shown by itself, its sentence is a part of another."""

    code = "not-together"
    template = "{why}"


@dataclass
class _Guest:
    """One VM of the moment."""

    exposure: Exposure
    request: BackupRequest
    name: str = ""
    running: bool = True
    frozen: bool = False
    begun: bool = False
    ready: bool = False

    @property
    def outcome(self) -> str:
        """What its backup is when not all began in one moment; empty when it has not begun."""
        if not self.begun:
            return ""
        return str(Reached.FILE_SYSTEM if self.ready and (self.frozen or not self.running) else Reached.CRASH)


@dataclass
class _Moment:
    """Freezes, begins and thaws all; who leads runs it."""

    exposure: Exposure
    seen: Gathering
    seconds: float
    guests: list[_Guest] = field(default_factory=list)
    deadline: float = 0.0

    def __post_init__(self) -> None:
        ports, job_id = self.exposure.ports, self.exposure.watch.job_id
        self.guests = [
            _Guest(watch_release(ports, job_id, vm_id), _REQUEST.validate_json(text))
            for vm_id, text in self.seen.requests.items()
        ]

    def run(self) -> None:
        """Do it, and write down what came of it. Whatever happens, all are thawed."""
        began, why = time.monotonic(), ""
        try:
            try:
                self._begin()
            finally:
                self._thaw()
        except JobCancelled:
            why = "The job was cancelled."
        except OverkeepError as error:
            why = error.message
        took = time.monotonic() - began
        _log.info(
            "group begun %s",
            fields(job=self.exposure.watch.job_id, vms=len(self.guests), seconds=f"{took:.1f}", why=repr(why)),
        )
        outcomes = {one.exposure.vm_id: one.outcome if why else str(Reached.GROUP) for one in self.guests}
        store = self.exposure.ports.store.gatherings
        store.end(self.exposure.watch.job_id, why=why, outcomes=outcomes, stage=Stage.GOING)

    def _begin(self) -> None:
        self._all(self._look)
        self.deadline = time.monotonic() + self.seconds
        self._all(self._freeze)
        self._in_time()
        self._all(self._start)
        while not all(self._all(self._is_ready)):
            self._in_time()
            self.exposure.watch.pause(min(self.exposure.ports.patience.poll, _LOOK))
        self._in_time()
        for one in self.guests:
            if one.frozen and not one.exposure.held(HeldKind.FREEZE):
                raise _NotTogether(why="A guest was thawed before all backups had begun.")

    def _look(self, one: _Guest) -> None:
        vm = one.exposure.ports.engine.vm(one.exposure.vm_id)
        one.name, one.running = vm.name, vm.status is not VmStatus.DOWN

    def _freeze(self, one: _Guest) -> None:
        if not one.running:
            return
        try:
            freeze(one.exposure, seconds=self.deadline - time.monotonic())
        except GuestNotFrozen as error:
            raise _NotTogether(why=f"VM {one.name!r}: {error.message}") from error
        one.frozen = True

    def _start(self, one: _Guest) -> None:
        one.exposure.ports.engine.start_backup(one.request)
        one.begun = True

    def _is_ready(self, one: _Guest) -> bool:
        if one.ready:
            return True
        phase = one.exposure.ports.engine.backup(one.exposure.vm_id, one.request.id).phase
        if phase in BACKUP_OVER:
            raise _NotTogether(why=f"The backup of VM {one.name!r} failed in the Manager.")
        one.ready = phase == "ready" and time.monotonic() < self.deadline
        return one.ready

    def _in_time(self) -> None:
        if time.monotonic() >= self.deadline:
            raise _NotTogether(why=f"Not all backups had begun {self.seconds:g} s after the guests were frozen.")

    def _thaw(self) -> None:
        self._all(lambda one: thaw_held(one.exposure))

    def _all(self, act: Callable[[_Guest], _Value]) -> list[_Value]:
        """Do something with all guests at the same time; all are tried, then the first error is raised."""
        with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(self.guests)), thread_name_prefix="moment") as pool:
            running = [pool.submit(partial(act, one)) for one in self.guests]
        return [one.result() for one in running]


def why_not_together(members: Mapping[str, str], live: set[str], lacks: str) -> str:
    """Why the VMs of a run cannot begin in one moment, empty when they can.

    `members` are the names of the workload's VMs, `live` those that the run backs up, `lacks` a limit that is too low.
    """
    absent = [name for vm_id, name in members.items() if vm_id not in live]
    if absent:
        return f"VM {absent[0]!r} of the group is not backed up in this run."
    return lacks
