# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore of one VM under a new name: new disks, filled by the movers, then the VM, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from overkeep.controller.activities.copying import Task, copy_all
from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.activities.release import patiently, release_restore, watch_release
from overkeep.controller.activities.steps import State, Watch, cancelled, failed, outcome
from overkeep.controller.durable import Durable
from overkeep.controller.events import Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import Failure, Held, HeldKind, JobState
from overkeep.controller.targets.configured import PlacedPoint
from overkeep.controller.targets.target import Target
from overkeep.controller.workflows.assembly import restore_progress
from overkeep.controller.workflows.orders import restore_task
from overkeep.controller.workflows.restore_plan import names_now, require_permitted
from overkeep.engine.api import DiskSpec
from overkeep.engine.errors import TransferFailed
from overkeep.engine.specs import disk_spec, vm_spec
from overkeep.errors import OverkeepError
from overkeep.model.inventory import VmStatus
from overkeep.model.points import RestorePoint
from overkeep.model.restore import DiskRestore, RestorePlan, RestoreRequest, Targets, plan_restore

NAME = "restore"
_PLAN = TypeAdapter(RestorePlan)
_REQUEST = TypeAdapter(RestoreRequest)
_TARGETS = TypeAdapter(Targets)
_BESIDE = ("vm_id", "workload_id", "target", "targets")  # what is kept with the request


def body(ports: Ports, job_id: str, request: dict[str, Any]) -> State:
    """Restore what `request` (as of `request_json`) asks for; on failure or cancel remove exactly what was made."""
    steps = _Steps(ports, job_id, request)
    state: State = {}
    sequence: tuple[tuple[str, Callable[[State], State]], ...] = (
        ("plan", steps.plan),
        ("disks", steps.make_disks),
        ("copy", steps.copy),
        ("finish", steps.finish_uploads),
        ("vm", steps.make_vm),
    )
    for name, act in sequence:
        state = {**state, **Durable.step(name, steps.safely(act), state)}
        if failed(state):
            break
    else:
        state = {**state, **Durable.step("boot", steps.safely(steps.boot), state)}
    state = {**state, **Durable.step("release", steps.release, state)}
    closed: State = Durable.step("close", steps.close, state)
    return closed


def request_json(request: RestoreRequest, placed: PlacedPoint, *, targets: Targets) -> dict[str, Any]:
    """What a restore job keeps of the request, where the point is, and where its caller may restore it to."""
    kept = {"vm_id": placed.point.vm_id, "workload_id": placed.point.workload_id, "target": placed.target.name}
    return {**asdict(request), **kept, "targets": _TARGETS.dump_python(targets, mode="json")}


class _Steps:
    """The effects; each may be repeated."""

    def __init__(self, ports: Ports, job_id: str, request: dict[str, Any]) -> None:
        self.ports = ports
        self.job_id = job_id
        self.place = request
        self.vm_id: str = request["vm_id"]  # of the VM that was backed up
        self.workload_id: str = request["workload_id"]
        self.targets = _TARGETS.validate_python(request["targets"])
        self.request = _REQUEST.validate_python({name: request[name] for name in request if name not in _BESIDE})
        self.watch = Watch(ports=ports, job_id=job_id)
        self.exposure = Exposure(watch=self.watch, vm_id=self.vm_id)

    @property
    def target(self) -> Target:
        """Where the point lies; raises `NotFound` once it is not in the settings any more."""
        return self.ports.targets.of(self.place)

    def safely(self, act: Callable[[State], State]) -> Callable[[State], State]:
        """The step with its error as an outcome."""
        return lambda state: outcome(lambda: act(state), job_id=self.job_id)

    def plan(self, _state: State) -> State:
        """Decide what is made, from the point and from what the Manager has now."""
        self.ports.store.jobs.start(self.job_id)
        self._phase("planning")
        self.watch.check()
        self.target.readable()
        point = self._point()
        kept = self.target.repository.configuration(point)
        for image in point.images:
            self.target.repository.chain(point, image.disk_id)
        names = self.watch.persist(
            lambda: names_now(self.ports, point, self.request, document=kept.document),
            seconds=self.ports.patience.retry,
        )
        plan = plan_restore(point, self.request, document=kept.document, names=names, job_id=self.job_id)
        require_permitted(plan, names, permitted=self.targets)
        for warning in plan.warnings:
            self.exposure.tell(Kind.VM_RESTORED_OTHERWISE, warning)
        for disk in plan.disks:
            self._show(disk, "planned")
        return {"plan": _PLAN.dump_python(plan, mode="json")}

    def make_disks(self, state: State) -> State:
        """Make the disks, each written down first."""
        self._phase("making disks")
        for disk in _PLAN.validate_python(state["plan"]).disks:
            self.watch.check()
            self.exposure.note(HeldKind.DISK, disk.id)
            self._make_disk(disk_spec(disk, description=self.ports.mark(self.job_id)))
        return {}

    def copy(self, state: State) -> State:
        """Have the movers fill the disks."""
        self._phase("copying")
        plan = _PLAN.validate_python(state["plan"])
        point = self._point()
        if plan.disks:
            copy_all(self.exposure, [self._task(disk, point) for disk in plan.disks])
        return {}

    def finish_uploads(self, state: State) -> State:
        """Close the uploads as good and wait until the Manager says that the disks are."""
        self._phase("finishing disks")
        for transfer in self.exposure.end_transfers(success=True, backup_id=None):
            if transfer.phase not in ("finished_success", "gone"):
                words = self.ports.engine.explain(transfer.id, transfer.disk_id)
                raise TransferFailed(disk=transfer.disk_id, words=words or f"the access ended as {transfer.phase!r}.")
        for disk in _PLAN.validate_python(state["plan"]).disks:
            self._await_disk(disk)
        return {}

    def make_vm(self, state: State) -> State:
        """Make the VM: with it the disks belong to it, and nothing is to be removed any more."""
        self._phase("making the VM")
        plan = _PLAN.validate_python(state["plan"])
        return {"vm_id": self._kept(plan, self._made_before(plan) or self._make_vm(plan))}

    def _made_before(self, plan: RestorePlan) -> str | None:
        """The VM that an earlier run of this step made whole: there is no way back, whatever was asked since."""
        name = Held(job_id=self.job_id, kind=HeldKind.VM_NAME, ref=plan.vm_name, vm_id=self.vm_id)
        if not self.ports.store.held.is_released(name):
            return None
        mark = self.ports.mark(self.job_id)
        patient = watch_release(self.ports, self.job_id, self.vm_id).watch
        return patient.persist(
            lambda: self.ports.engine.find_marked_vm(plan.vm_name, mark), seconds=self.ports.patience.release
        )

    def _make_vm(self, plan: RestorePlan) -> str:
        self.watch.check()
        self.exposure.note(HeldKind.VM_NAME, plan.vm_name)
        spec = vm_spec(
            plan, ovf=self.target.repository.configuration(self._point()).ovf, description=self.ports.mark(self.job_id)
        )
        try:
            return self.watch.persist(lambda: self.ports.engine.create_vm(spec), seconds=self.ports.patience.retry)
        except OverkeepError as error:
            if half_made := error.fields.get("vm_id"):
                self.exposure.note(HeldKind.VM, half_made)
            raise

    def _kept(self, plan: RestorePlan, vm_id: str) -> str:
        """Write down that nothing is to be removed any more, and tell."""
        for kind in (HeldKind.VM_NAME, HeldKind.DISK):
            for item in self.exposure.held(kind):
                self.ports.store.held.release(item)
        self.exposure.tell(
            Kind.VM_RESTORED,
            f"VM {plan.vm_name!r} was restored",
            point_id=self.request.point_id,
            target=self.target.name,
            key=f"{Kind.VM_RESTORED}/{self.job_id}",
            new_vm_id=vm_id,
        )
        return vm_id

    def boot(self, state: State) -> State:
        """Start the VM if that was asked for; when it cannot be started it stays."""
        if not self.request.start:
            return {}
        self._phase("starting the VM")
        engine = self.ports.engine

        def start() -> None:
            if engine.vm(state["vm_id"]).status is VmStatus.DOWN:
                engine.start_vm(state["vm_id"])

        try:
            self.watch.persist(start, seconds=self.ports.patience.retry)
        except OverkeepError as error:
            text = f"VM {self.request.name!r} was restored and is kept, but could not be started: {error.message}"
            return {"code": error.code, "error": text}
        return {}

    def release(self, state: State) -> State:
        """Remove what was made unless the VM is there."""
        if "vm_id" in state:
            return {}
        self._phase("releasing")
        exposure = watch_release(self.ports, self.job_id, self.vm_id)
        return patiently(exposure, lambda: release_restore(exposure))

    def close(self, state: State) -> State:
        """Write what came of it into the job."""
        result = JobState.SUCCEEDED
        if failed(state):
            result = JobState.CANCELLED if cancelled(state) else JobState.FAILED
        failure = Failure(code=state.get("code", ""), text=state.get("error", ""))
        if "open" in state:
            result = JobState.NEEDS_ATTENTION
            failure = Failure(code="still-open", text=f"{failure.text} {state['open']}".strip())
        jobs = self.ports.store.jobs
        jobs.set_vm(
            self.job_id, self.vm_id, state=result, phase="", error_code=failure.code, error=failure.text, busy=False
        )
        jobs.end(self.job_id, result, failure=failure, result={"vm_id": state.get("vm_id", "")})
        return {"state": result}

    def _task(self, disk: DiskRestore, point: RestorePoint) -> Task:
        return restore_task(disk, target=self.target, point=point, lease=self.ports.patience.lease)

    def _point(self) -> RestorePoint:
        return self.target.repository.point(self.workload_id, self.vm_id, self.request.point_id)

    def _make_disk(self, spec: DiskSpec) -> None:
        self.watch.persist(lambda: self.ports.engine.create_disk(spec), seconds=self.ports.patience.retry)

    def _await_disk(self, disk: DiskRestore) -> None:
        engine = self.ports.engine

        def probe() -> bool | None:
            status = engine.disk_status(disk.id)
            if status is None:
                words = engine.explain(disk.id) or "the disk is gone."
                raise TransferFailed(disk=disk.name, words=words)
            return status == "ok" or None

        self.watch.until(probe, seconds=self.ports.patience.ready, act=f"make disk {disk.name!r} usable", what=disk.id)

    def _show(self, disk: DiskRestore, state: str) -> None:
        self.ports.store.jobs.set_disk(self.job_id, self.vm_id, restore_progress(disk, state))

    def _phase(self, phase: str) -> None:
        self.ports.store.jobs.set_vm(self.job_id, self.vm_id, state=JobState.RUNNING, phase=phase)
