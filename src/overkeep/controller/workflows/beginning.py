# SPDX-License-Identifier: GPL-3.0-or-later
"""How the backup of a VM begins: at once, with its guest frozen, or together with all VMs of its workload."""

from __future__ import annotations

from dataclasses import replace

from overkeep.controller.activities.consistency import settle_for_less
from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.activities.freezing import can_freeze, thaw_held
from overkeep.controller.activities.gathering import begin_together
from overkeep.controller.activities.moment import Moment, NotTogether
from overkeep.controller.activities.steps import State
from overkeep.controller.records import HeldKind
from overkeep.engine.api import BackupRequest, BackupSession
from overkeep.model.consistency import Consistency, Reached, Wanted
from overkeep.model.inventory import Vm, VmStatus
from overkeep.model.points import BackupKind

TRIED_AT_MOST = 10.0  # seconds for which a guest is frozen only to see whether it can be

_RESTARTED = "The controller was restarted while the backup of the VM began."
_AGAIN = "The backup of the VM failed after it had begun together with the others, and begins again by itself."


class Beginning:
    """The beginning of an attempt at the backup of one VM; its methods may be repeated.

    For the file system level the Manager's host freezes the guest for the moment in which a legacy backup begins:
    shorter than anything from outside could be, and no death of a controller leaves it frozen. A hybrid backup does not
    fail when that cannot be; so its guest is frozen from outside until the snapshot is there.
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
        if wanted is not Wanted.CRASH and request.kind is BackupKind.HYBRID:
            return {"reached": str(self._still(request))}
        if wanted is not Wanted.CRASH and not unfrozen and unfrozen_before:
            unfrozen = self._try_freezing()
        frozen = wanted is not Wanted.CRASH and not unfrozen
        self._start(replace(request, require_consistency=frozen))
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
        if state.get("started"):
            return Reached.CRASH
        if session.host_id is None and vm.status is VmStatus.DOWN:
            return Reached.OFFLINE
        return begun or (Reached.FILE_SYSTEM if state.get("frozen") else Reached.CRASH)

    def look_whether_started(self, session: BackupSession, vm: Vm) -> State:
        """Find out whether a VM that was down runs by now: a hybrid backup does not stand in the way of that."""
        if session.kind is BackupKind.LEGACY or vm.status is not VmStatus.DOWN:
            return {}
        seen = self._watch.persist(lambda: self._ports.engine.vm(vm.id), seconds=self._ports.patience.retry)
        return {"started": seen.status is not VmStatus.DOWN}

    def _start(self, request: BackupRequest) -> None:
        self._watch.persist(lambda: self._ports.engine.start_backup(request), seconds=self._ports.patience.retry)

    def _still(self, request: BackupRequest) -> Reached:
        """Begin with the guest frozen from outside; return what was reached, less only when the workload takes that."""
        retry = self._ports.patience.retry
        thaw_held(self._exposure)
        seen = self._watch.persist(lambda: self._ports.engine.backup(request.vm_id, request.id), seconds=retry)
        if seen.phase != "gone":  # a controller died in the midst, and nobody knows for how long the guest held still
            settle_for_less(self._exposure, self._consistency, _RESTARTED)
            return Reached.CRASH
        moment = self._watch.persist(lambda: self._try_moment(request), seconds=retry)
        self._watch.check()
        if moment.error is not None:
            settle_for_less(self._exposure, self._consistency, moment.why)
        [guest] = moment.guests
        if not guest.begun:
            self._start(request)
        return guest.reached or Reached.CRASH

    def _try_moment(self, request: BackupRequest) -> Moment:
        """Raises what made it fail when the backup has not begun, unless that is about the guest."""
        moment = Moment(self._exposure, [request], seconds=self._consistency.frozen_at_most)
        moment.run()
        if moment.error and not (moment.guests[0].begun or isinstance(moment.error, NotTogether)):
            raise moment.error
        return moment

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
