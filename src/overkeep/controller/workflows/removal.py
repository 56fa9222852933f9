# SPDX-License-Identifier: GPL-3.0-or-later
"""The removal of one restore point: it ends at once and durably, then a mover merges its images away."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from overkeep.controller.activities.ending import Ending
from overkeep.controller.activities.expiry import merge_away, require_unread, without_failing
from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.activities.steps import State, Watch, end_with_its_vm, failed, outcome
from overkeep.controller.durable import Durable
from overkeep.controller.events import Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import JobState
from overkeep.controller.targets.configured import PlacedPoint
from overkeep.controller.targets.target import Target
from overkeep.errors import OverkeepError

NAME = "remove-point"
_Value = TypeVar("_Value")


def body(ports: Ports, job_id: str, request: dict[str, Any]) -> State:
    """Remove the point that `request` (as of `request_json`) names. Once it has ended nothing can fail the job."""
    steps = _Steps(ports, job_id, request)
    state: State = Durable.step("remove", steps.safely(steps.remove))
    if not failed(state):
        Durable.step("checkpoint", steps.drop_checkpoint)
        Durable.step("merge", steps.merge)
    closed: State = Durable.step("close", lambda: steps.close(state))
    return closed


def request_json(placed: PlacedPoint) -> dict[str, Any]:
    """What a removal job keeps: which point it is, and which checkpoint nothing is based on any more."""
    point = placed.point
    kept = {"point_id": point.id, "vm_id": point.vm_id, "workload_id": point.workload_id}
    return {**kept, "checkpoint_id": point.checkpoint_id, "target": placed.target.name}


class _Steps:
    """The effects; each may be repeated."""

    def __init__(self, ports: Ports, job_id: str, request: dict[str, Any]) -> None:
        self.ports = ports
        self.job_id = job_id
        self.request = request
        self.point_id: str = request["point_id"]
        self.vm_id: str = request["vm_id"]
        self.workload_id: str = request["workload_id"]
        self.checkpoint_id: str | None = request["checkpoint_id"]
        self.watch = Watch(ports=ports, job_id=job_id)
        self.exposure = Exposure(watch=self.watch, vm_id=self.vm_id)

    @property
    def target(self) -> Target:
        """Where the point lies; raises `NotFound` once it is not in the settings any more."""
        return self.ports.targets.of(self.request)

    def safely(self, act: Callable[[], State]) -> Callable[[], State]:
        """The step with its error as an outcome."""
        return lambda: outcome(act, job_id=self.job_id)

    def remove(self) -> State:
        """End the point, unless it is pinned or something reads points of the VM."""
        self.ports.store.jobs.start(self.job_id)
        self._phase("removing")
        ending = Ending(exposure=self.exposure, workload_id=self.workload_id, reason="asked", why="it was asked for")
        if self.point_id in ending.recover():  # by a controller that died then: there is no way back
            return {}
        self.watch.check()
        self.target.ready()
        require_unread(self.ports, self.workload_id, self.vm_id, vm_name=self._vm_name())
        ending.end_named(self.target, self.point_id)
        return {}

    def drop_checkpoint(self) -> State:
        """Delete the checkpoint of the point, if the Manager has it: the next backup is not made from it."""

        def act() -> None:
            checkpoint = self.checkpoint_id
            if checkpoint is None or checkpoint not in self._checkpoints():
                return
            engine, held = self.ports.engine, self.ports.store.held
            self.watch.persist(
                lambda: engine.delete_checkpoint(self.vm_id, checkpoint), seconds=self.ports.patience.retry
            )
            for item in held.checkpoints(self.vm_id):
                if item.ref == checkpoint:
                    held.release(item)

        without_failing(
            self.exposure,
            act,
            otherwise="The checkpoint of the point stays until the next backup",
            kind=Kind.CHECKPOINT_STAYS,
        )
        return {}

    def merge(self) -> State:
        """Have a mover merge the images away; where that fails, the next backup of the VM does it."""
        self._phase("merging")
        merge_away(self.exposure, self.workload_id, targets=lambda: (self.target,), host_id=self._host)
        return {}

    def close(self, state: State) -> State:
        """Write what came of it into the job."""
        return end_with_its_vm(self.ports, self.job_id, self.vm_id, state, result={"point_id": self.point_id})

    def _vm_name(self) -> str:
        return self.ports.store.jobs.get(self.job_id).vms[0].vm_name

    def _checkpoints(self) -> tuple[str, ...]:
        return _unless_gone(lambda: self.ports.engine.checkpoints(self.vm_id), ())

    def _host(self) -> str:
        """Where the VM runs; nowhere when it is down or gone."""
        return _unless_gone(lambda: self.ports.engine.vm(self.vm_id).host_id, "")

    def _phase(self, phase: str) -> None:
        self.ports.store.jobs.set_vm(self.job_id, self.vm_id, state=JobState.RUNNING, phase=phase)


def _unless_gone(ask: Callable[[], _Value], otherwise: _Value) -> _Value:
    try:
        return ask()
    except OverkeepError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return otherwise
