# SPDX-License-Identifier: GPL-3.0-or-later
"""The Manager's own event log as a place that events are sent to: there they show under the VM."""

from __future__ import annotations

import hashlib

from overkeep.controller.background.couriers import Refused
from overkeep.controller.events import Event, Kind, Level
from overkeep.engine.api import Engine
from overkeep.engine.errors import EngineRefused, EventNumberTaken

NAME = "manager"
_DRAWS = 5  # numbers that are tried for one event; the first is free in all but one of 100,000 cases
_SEVERITIES = {Level.INFO: "normal", Level.WARNING: "warning", Level.ERROR: "error"}
_TOLD = (
    Kind.VM_STARTED,
    Kind.VM_SUCCEEDED,
    Kind.SCHEDULER_PAUSED,
    Kind.SCHEDULER_RESUMED,
    Kind.TARGET_ROOM,
)
_JOB_ENDS = (Kind.JOB_SUCCEEDED, Kind.JOB_PARTIAL, Kind.JOB_FAILED, Kind.JOB_CANCELLED, Kind.JOB_NEEDS_ATTENTION)


class ManagerLog:
    """What users want to see in the Manager: the start and the end of the work on a VM, and all that went wrong."""

    name = NAME

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def wants(self, event: Event) -> bool:
        """Jobs of one VM are told by the events of that VM alone."""
        if event.kind in _JOB_ENDS:
            return int(event.fields.get("vms", 0)) != 1
        return event.kind in _TOLD or event.level is not Level.INFO

    def send(self, event: Event, *, mark: str) -> None:
        """Write it under a number made of `mark` and its own: the same on a repeat, and of this event alone."""
        vm_id = event.about.vm_id or None
        try:
            self._write(event, mark, vm_id)
        except EngineRefused as error:
            if error.retry:
                raise
            self._write_without_vm(event, mark, error)

    def _write_without_vm(self, event: Event, mark: str, refusal: EngineRefused) -> None:
        """The VM may be gone since; what happened to it is told all the same."""
        try:
            if not event.about.vm_id:
                raise refusal
            self._write(event, mark, None)
        except EngineRefused as error:
            if error.retry:
                raise
            raise Refused(seq=event.seq, place="the Manager's event log", reason=error.message) from error

    def _write(self, event: Event, mark: str, vm_id: str | None) -> None:
        severity = _SEVERITIES[event.level]
        for draw in range(_DRAWS):
            try:
                self._engine.post_event(severity, event.text, number=number_of(mark, event.seq, draw), vm_id=vm_id)
            except EventNumberTaken:
                if draw == _DRAWS - 1:
                    raise
            else:
                return


def number_of(mark: str, seq: int, draw: int) -> int:
    """The number of an event in the Manager, below 2**31. Several installations may write into one Manager."""
    digest = hashlib.blake2b(f"{mark}/{seq}/{draw}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
