# SPDX-License-Identifier: GPL-3.0-or-later
"""How the backup of a VM begins: at once, with its guest frozen, or together with all VMs of its workload."""

from __future__ import annotations

from dataclasses import replace

from overkeep.controller.consistency import settle_for_less
from overkeep.controller.exposure import Exposure
from overkeep.controller.freezing import can_freeze
from overkeep.controller.gathering import begin_together
from overkeep.controller.records import HeldKind
from overkeep.controller.steps import State
from overkeep.engine.api import BackupRequest, BackupSession
from overkeep.model.consistency import Consistency, Reached, Wanted
from overkeep.model.inventory import Vm, VmStatus

TRIED_AT_MOST = 10.0  # seconds for which a guest is frozen only to see whether it can be

_AGAIN = "The backup of the VM failed after it had begun together with the others, and begins again by itself."


class Beginning:
    """The beginning of an attempt at the backup of one VM; its methods may be repeated.

    For the file system level the Manager's host freezes the guest for the moment in which the backup begins: shorter
    than anything from outside could be, and no death of a controller leaves it frozen.
    """

    def __init__(self, exposure: Exposure, consistency: Consistency, *, attempt: int) -> None:
        self._exposure = exposure
        self._ports = exposure.ports
        self._watch = exposure.watch
        self._consistency = consistency
        self._first = attempt == 1

    def begin(self, request: BackupRequest, *, unfrozen: str, unfrozen_before: bool) -> State:
        """Have the Manager start the backup, under an id that was written down before.

        `unfrozen` says why the guest is not frozen, empty when it is to be; one that could not be last time
        (`unfrozen_before`) is tried before the Manager's backup would fail for it. Raises `ConsistencyNotReached`.
        """
        self._exposure.note(HeldKind.BACKUP, request.id)
        wanted = self._consistency.wanted
        if wanted is Wanted.GROUP:
            reached = self._together(request)
            if reached is not None:
                return {"reached": str(reached)}
        if wanted is not Wanted.CRASH and not unfrozen and unfrozen_before:
            unfrozen = self._try_freezing()
        frozen = wanted is not Wanted.CRASH and not unfrozen
        request = replace(request, require_consistency=frozen)
        self._watch.persist(lambda: self._ports.engine.start_backup(request), seconds=self._ports.patience.retry)
        return {"frozen": frozen}

    def look_at_agent(self) -> State:
        """Find out whether it was the guest that could not be frozen; if so, decide as the workload says."""
        why = self._try_freezing()
        return {"unfrozen": why} if why else {}

    def reached(self, state: State, session: BackupSession, vm: Vm) -> Reached:
        """What a backup has reached that began as `state` tells and was ready as `session`."""
        begun = Reached(state["reached"]) if "reached" in state else None
        if begun is Reached.GROUP:
            return begun
        if session.host_id is None and vm.status is VmStatus.DOWN:
            return Reached.OFFLINE
        return begun or (Reached.FILE_SYSTEM if state.get("frozen") else Reached.CRASH)

    def _together(self, request: BackupRequest) -> Reached | None:
        """Begin with all others; None when this VM is to begin by itself."""
        if not self._first:
            settle_for_less(self._exposure, self._consistency, _AGAIN)
            return None
        begun = begin_together(self._exposure, request, seconds=self._consistency.frozen_at_most)
        if begun.why:
            settle_for_less(self._exposure, self._consistency, begun.why)
        return begun.reached

    def _try_freezing(self) -> str:
        """Why the guest cannot be frozen, empty when it can; raises `ConsistencyNotReached` when that is refused."""
        why = self._watch.persist(
            lambda: can_freeze(self._exposure, seconds=TRIED_AT_MOST), seconds=self._ports.patience.retry
        )
        if why:
            settle_for_less(self._exposure, self._consistency, why)
        return why
