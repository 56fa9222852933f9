# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems of guests, which hold still for a moment by the guest's agent."""

from __future__ import annotations

import logging

from overkeep.engine.errors import EngineRefused, GuestNotFrozen, GuestNotThawed, NotFoundInEngine
from overkeep.engine.ovirt import values
from overkeep.engine.ovirt.session import Session
from overkeep.logs import fields

_log = logging.getLogger(__name__)
_GONE = "gone"
_STILL = ("down", "image_locked", _GONE)  # a guest that is not there holds nothing


class Guests:
    """Freezes and thaws; the Manager waits for the agent's answer."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def freeze(self, vm_id: str) -> None:
        """Freeze all file systems of a running guest."""
        act = f"freeze the file systems of VM {vm_id}"
        try:
            with self._session.system(act, what=f"VM {vm_id}") as system:
                system.vms_service().vm_service(vm_id).freeze_filesystems()
        except EngineRefused as error:
            if type(error) is EngineRefused and self._status(vm_id) == "up":  # else it says nothing about the guest
                raise GuestNotFrozen(act=act, words=error.fields["words"]) from error
            raise
        _log.info("guest frozen %s", fields(vm=vm_id))

    def thaw(self, vm_id: str) -> None:
        """Thaw them; there is nothing to do in a VM that is down or gone."""
        act = f"thaw the file systems of VM {vm_id}"
        try:
            with self._session.system(act, what=f"VM {vm_id}") as system:
                system.vms_service().vm_service(vm_id).thaw_filesystems()
        except NotFoundInEngine:
            return
        except EngineRefused as error:
            if self._status(vm_id) in _STILL:
                return
            raise GuestNotThawed(act=act, vm_id=vm_id, words=error.fields["words"]) from error
        _log.info("guest thawed %s", fields(vm=vm_id))

    def _status(self, vm_id: str) -> str:
        try:
            with self._session.system(f"show VM {vm_id}", what=f"VM {vm_id}") as system:
                return values.word(system.vms_service().vm_service(vm_id).get().status)
        except NotFoundInEngine:
            return _GONE
