# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows within a backup once there is a new point: it is verified, old points end, and images are merged."""

from __future__ import annotations

from pydantic import TypeAdapter

from overkeep.controller.activities.capacity import TargetAboveMark
from overkeep.controller.activities.ending import Ending
from overkeep.controller.activities.expiry import expire, merge_away, without_failing
from overkeep.controller.activities.steps import State, failed
from overkeep.controller.activities.verifying import PointUnsound, Verifying
from overkeep.controller.events import Kind
from overkeep.controller.targets.target import Target
from overkeep.controller.workflows.backup_release import BackupRelease
from overkeep.controller.workflows.backup_steps import BackupSteps
from overkeep.model.plan import BackupPlan
from overkeep.repository.verification import Verification
from overkeep.units import utc_now

_PLAN = TypeAdapter(BackupPlan)
_MOST_TOLD = 20  # findings that an event names


class AfterBackup:
    """The effects, after those of `BackupSteps`; the VM is released. Each may be repeated, none undoes the point."""

    def __init__(self, steps: BackupSteps) -> None:
        self._steps = steps
        self._release = BackupRelease(steps)

    @property
    def _target(self) -> Target:
        return self._steps.target

    def verify(self, state: State) -> State:
        """Have a mover check the new point. One that is found unsound fails the VM; one that could not be is told."""
        self._steps.phase("verifying")
        found: list[Verification] = []
        told: dict[str, str] = {"point_id": state["committed"], "target": self._target.name}

        def act() -> None:
            point = self._target.repository.point(self._steps.workload_id, self._steps.vm_id, state["committed"])
            verifying = Verifying(self._steps.exposure, self._target, host_id=self._host(state))
            found.append(verifying.run(point, self._steps.terms.verify))

        otherwise = f"Restore point {state['committed']} is not verified"
        without_failing(self._steps.exposure, act, otherwise=otherwise, kind=Kind.POINT_UNVERIFIED)
        if not found:
            return {}
        if found[0].sound:
            text = f"Restore point {state['committed']} was read and is sound"
            self._steps.exposure.tell(Kind.POINT_VERIFIED, text, **told, share=found[0].share)
            return {}
        name = _PLAN.validate_python(state["plan"]).vm.name
        error = PointUnsound(point=state["committed"], vm=name, finding=found[0].findings[0])
        self._steps.exposure.tell(
            Kind.POINT_UNSOUND, error.message, **told, findings=list(found[0].findings[:_MOST_TOLD])
        )
        text = "Old restore points stay until a new one is sound"
        self._steps.exposure.tell(Kind.POINT_STAYS, text, code=error.code)
        return {"code": error.code, "error": error.message}

    def close(self, state: State) -> State:
        """Release what is not released yet, let old points go, and write what became of the VM into the job.

        Once that is written another job may work on the VM: a repeat does nothing any more.
        """
        written = self._steps.written
        if written.over:
            return {"state": written}
        if "released" not in state:
            state = {**state, **self._release.release(state)}
        if _may_expire(state):
            self._expire()
            self._merge(state)
        return self._release.close(state)

    def _expire(self) -> None:
        """End the points that the policy does not keep any more; a failure is told, and the next backup goes on."""
        self._steps.phase("retention")

        def act() -> None:
            ending = Ending(
                exposure=self._steps.exposure,
                workload_id=self._steps.workload_id,
                reason="policy",
                why="the policy does not keep it",
            )
            expire(ending, retention=self._steps.terms.retention, now=utc_now())

        without_failing(self._steps.exposure, act, otherwise="Old restore points stay until the next backup")

    def _merge(self, state: State) -> None:
        """Have a mover merge away the images of points that have ended, whenever that was."""
        targets = self._steps.ports.targets
        merge_away(
            self._steps.exposure,
            self._steps.workload_id,
            targets=lambda: targets.had_by(self._steps.workload_id),
            host_id=lambda: self._host(state),
        )

    def _host(self, state: State) -> str:
        """Where the VM runs, as it was planned or, when nothing was planned, now; nowhere when it is down."""
        planned = state.get("plan")
        return (
            _PLAN.validate_python(planned).vm.host_id
            if planned
            else self._steps.ports.engine.vm(self._steps.vm_id).host_id
        )


def _may_expire(state: State) -> bool:
    """Whether old points may go now: there is a new one, and nothing was found to be wrong with it.

    A full target refuses new points, and is the last one where old ones should stay longer than the policy says.
    """
    made = "committed" in state and not failed(state)
    return (made or state.get("code") == TargetAboveMark.code) and "open" not in state
