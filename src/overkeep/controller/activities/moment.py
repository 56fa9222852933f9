# SPDX-License-Identifier: GPL-3.0-or-later
"""The moment in which guests are frozen, their backups begin, and they are thawed, within a budget of time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from overkeep.controller.activities.exposure import BACKUP_OVER, Exposure
from overkeep.controller.activities.freezing import freeze, thaw_held
from overkeep.controller.activities.release import watch_release
from overkeep.controller.activities.steps import JobCancelled
from overkeep.controller.records import HeldKind
from overkeep.engine.api import BackupRequest
from overkeep.engine.errors import GuestNotFrozen
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.model.consistency import Reached
from overkeep.model.inventory import VmStatus

_LOOK = 0.25  # seconds between two looks while guests are frozen
_AT_ONCE = 32  # guests that are frozen, and backups that are started, at the same time
_Value = TypeVar("_Value")

_log = logging.getLogger(__name__)


class NotTogether(OverkeepError):
    """Not all VMs could begin in one moment; never shown by itself, its sentence is a part of another."""

    code = "not-together"
    template = "{why}"


@dataclass
class Guest:
    """One VM of the moment."""

    exposure: Exposure
    request: BackupRequest
    name: str = ""
    running: bool = True
    frozen: bool = False
    begun: bool = False
    ready: bool = False

    @property
    def reached(self) -> Reached | None:
        """What its backup is by itself; None when it has not begun."""
        if not self.begun:
            return None
        return Reached.FILE_SYSTEM if self.ready and (self.frozen or not self.running) else Reached.CRASH


class Moment:
    """Freezes, begins and thaws all VMs of a job that `requests` name; who watches over it runs it once.

    `error` is why it was not one moment for all, None when it was.
    """

    def __init__(self, exposure: Exposure, requests: Sequence[BackupRequest], *, seconds: float) -> None:
        self.exposure = exposure
        self.seconds = seconds
        self.error: OverkeepError | None = None
        self._deadline = 0.0
        watch = exposure.watch
        self.guests = [Guest(watch_release(watch.ports, watch.job_id, one.vm_id), one) for one in requests]

    def run(self) -> None:
        """Do it. Whatever happens, all are thawed."""
        began = time.monotonic()
        try:
            try:
                self._begin()
            finally:
                self._thaw()
        except OverkeepError as error:
            self.error = error
        took = time.monotonic() - began
        _log.info(
            "group begun %s",
            fields(job=self.exposure.watch.job_id, vms=len(self.guests), seconds=f"{took:.1f}", why=repr(self.why)),
        )

    @property
    def why(self) -> str:
        """The error as a sentence; empty without one."""
        if self.error is None:
            return ""
        return "The job was cancelled." if isinstance(self.error, JobCancelled) else self.error.message

    def _begin(self) -> None:
        self._all(self._look)
        self._deadline = time.monotonic() + self.seconds
        self._all(self._freeze)
        self._in_time()
        self._all(self._start)
        while not all(self._all(self._is_ready)):
            self._in_time()
            self.exposure.watch.pause(min(self.exposure.ports.patience.poll, _LOOK))
        self._in_time()
        thawed = [one for one in self.guests if one.frozen and not one.exposure.held(HeldKind.FREEZE)]
        for one in thawed:
            one.frozen = False
        if thawed:
            raise NotTogether(why=f"The guest of VM {thawed[0].name!r} was thawed before all backups had begun.")

    def _look(self, one: Guest) -> None:
        vm = one.exposure.ports.engine.vm(one.exposure.vm_id)
        one.name, one.running = vm.name, vm.status is not VmStatus.DOWN

    def _freeze(self, one: Guest) -> None:
        if not one.running:
            return
        try:
            freeze(one.exposure, seconds=self._deadline - time.monotonic())
        except GuestNotFrozen as error:
            raise NotTogether(why=f"VM {one.name!r}: {error.message}") from error
        one.frozen = True

    def _start(self, one: Guest) -> None:
        one.exposure.ports.engine.start_backup(one.request)
        one.begun = True

    def _is_ready(self, one: Guest) -> bool:
        if one.ready:
            return True
        phase = one.exposure.ports.engine.backup(one.exposure.vm_id, one.request.id).phase
        if phase in BACKUP_OVER:
            raise NotTogether(why=f"The backup of VM {one.name!r} failed in the Manager.")
        one.ready = phase == "ready" and time.monotonic() < self._deadline
        return one.ready

    def _in_time(self) -> None:
        if time.monotonic() >= self._deadline:
            what = "Not all backups had" if len(self.guests) > 1 else "The backup had not"
            raise NotTogether(why=f"{what} begun {self.seconds:g} s after the guests were frozen.")

    def _thaw(self) -> None:
        self._all(lambda one: thaw_held(one.exposure))

    def _all(self, act: Callable[[Guest], _Value]) -> list[_Value]:
        """Do something with all guests at the same time; all are tried, then the first error is raised."""
        with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(self.guests)), thread_name_prefix="moment") as pool:
            running = [pool.submit(partial(act, one)) for one in self.guests]
        return [one.result() for one in running]
