# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of old points of one VM by movers, those checked longest ago first, within a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.activities.steps import State, Watch, end_with_its_vm, outcome
from overkeep.controller.activities.verifying import Verifying
from overkeep.controller.durable import Durable
from overkeep.controller.events import Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import JobState
from overkeep.controller.targets.target import Target
from overkeep.errors import OverkeepError
from overkeep.model.points import RestorePoint
from overkeep.repository.repository import DamagedPoint
from overkeep.repository.verification import Verification, in_turn

NAME = "verify-points"
_MOST_TOLD = 20  # findings that an event names


class PointsUnsound(OverkeepError):
    """Points of a VM that were checked do not read as they were written."""

    code = "points-unsound"
    template = (
        "{count} of {checked} checked restore points of VM {vm!r} are not sound, the first is {point}: {finding} "
        "Nothing is built upon them: the next backup is a full one where they are needed. Restore from the others."
    )
    status = 502


class NothingVerified(OverkeepError):
    """The time was over before any point was checked."""

    code = "nothing-verified"
    template = (
        "None of {total} restore points of VM {vm!r} could be checked within {seconds:g} seconds; give it more time."
    )
    status = 503


@dataclass(frozen=True, kw_only=True)
class VerificationTerms:
    """How much is checked: a `share` of the data of each point, 0 to 1, and nothing is begun after `seconds`."""

    share: float
    seconds: float


def body(ports: Ports, job_id: str, request: dict[str, Any]) -> State:
    """Check points of the VM that `request` (as of `request_json`) names."""
    steps = _Steps(ports, job_id, request)
    state: State = Durable.step("verify", steps.safely(steps.verify))
    closed: State = Durable.step("close", lambda: steps.close(state))
    return closed


def request_json(terms: VerificationTerms, *, workload_id: str, vm_id: str, target: str) -> dict[str, Any]:
    """What a job of verification keeps."""
    where = {"workload_id": workload_id, "vm_id": vm_id, "target": target}
    return {**where, "share": terms.share, "seconds": terms.seconds}


class _Steps:
    """The effects; each may be repeated. A controller that dies leaves what was checked beside the points."""

    def __init__(self, ports: Ports, job_id: str, request: dict[str, Any]) -> None:
        self._ports = ports
        self._job_id = job_id
        self._request = request
        self._vm_id: str = request["vm_id"]
        self._workload_id: str = request["workload_id"]
        self._exposure = Exposure(watch=Watch(ports=ports, job_id=job_id), vm_id=self._vm_id)

    def safely(self, act: Callable[[], State]) -> Callable[[], State]:
        """The step with its error as an outcome."""
        return lambda: outcome(act, job_id=self._job_id)

    def verify(self) -> State:
        """Check points until the time is over; tell of each. Raises `PointsUnsound`, or why nothing was checked."""
        began = time.monotonic()
        self._ports.store.jobs.start(self._job_id)
        self._ports.store.jobs.set_vm(self._job_id, self._vm_id, state=JobState.RUNNING, phase="verifying")
        target = self._ports.targets.of(self._request)
        found, damaged = self._listed(target)
        unsound = [(item.point_id, item.reason) for item in damaged]
        verifying = Verifying(self._exposure, target, host_id="")
        checked, end = 0, began + self._request["seconds"]
        for point in found:
            self._exposure.watch.check()
            if time.monotonic() >= end:
                break
            result = verifying.run(point, self._request["share"], end=end)
            checked += result.says
            self._tell(target, point, result)
            if result.findings:
                unsound.append((point.id, result.findings[0]))
        return self._concluded(checked + len(damaged), len(found) + len(damaged), unsound)

    def _listed(self, target: Target) -> tuple[list[RestorePoint], tuple[DamagedPoint, ...]]:
        """The points in turn, and those that cannot be read."""

        def read(one: Target) -> tuple[list[RestorePoint], tuple[DamagedPoint, ...]]:
            points, damaged = one.repository.survey(self._workload_id, self._vm_id)
            return in_turn(one.repository, points), damaged

        return self._ports.targets.ask(target, read)

    def _concluded(self, checked: int, total: int, unsound: list[tuple[str, str]]) -> State:
        if unsound:
            point, finding = unsound[0]
            raise PointsUnsound(count=len(unsound), checked=checked, vm=self._vm_name(), point=point, finding=finding)
        if total and not checked:
            raise NothingVerified(total=total, vm=self._vm_name(), seconds=self._request["seconds"])
        return {"checked": checked, "total": total}

    def _tell(self, target: Target, point: RestorePoint, result: Verification) -> None:
        about: dict[str, str] = {"point_id": point.id, "target": target.name}
        if result.findings:
            text = f"Restore point {point.id} is not sound: {result.findings[0]}"
            self._exposure.tell(Kind.POINT_UNSOUND, text, **about, findings=list(result.findings[:_MOST_TOLD]))
        elif result.sound:
            text = f"Restore point {point.id} was read and is sound"
            self._exposure.tell(Kind.POINT_VERIFIED, text, **about, share=result.share)
        else:
            text = f"Restore point {point.id} is not verified: there was no time to read anything of it"
            self._exposure.tell(Kind.POINT_UNVERIFIED, text, **about)

    def close(self, state: State) -> State:
        """Write what came of it into the job."""
        told = {name: number for name, number in state.items() if name in ("checked", "total")}
        return end_with_its_vm(self._ports, self._job_id, self._vm_id, state, result=told)

    def _vm_name(self) -> str:
        return self._ports.store.jobs.get(self._job_id).vms[0].vm_name
