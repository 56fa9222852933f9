# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup of one VM: expose, copy, commit, and release on every exit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pydantic import TypeAdapter

from overkeep.controller.copying import Task, copy_all
from overkeep.controller.durable import Durable
from overkeep.controller.exposure import BACKUP_OVER, Exposure
from overkeep.controller.ports import Ports, backup_id, mark
from overkeep.controller.release import release_backup
from overkeep.controller.steps import PASSING, State, Watch, cancelled, failed, outcome
from overkeep.controller.store.records import DiskProgress, HeldKind, JobState
from overkeep.engine.api import BackupRequest, BackupSession, Transfer, TransferRequest
from overkeep.engine.errors import BackupFailed, CheckpointInvalid
from overkeep.model.plan import BackupPlan, DiskPlan, plan_backup
from overkeep.model.points import DiskImage, Mode, RestorePoint, point_id
from overkeep.mover.orders import Access, CopyOrder, CopyResult, Image
from overkeep.repository.repository import Draft
from overkeep.units import utc_now

NAME = "backup-vm"
_PLAN = TypeAdapter(BackupPlan)
_SESSION = TypeAdapter(BackupSession)
_POINT = TypeAdapter(RestorePoint)
_RESULTS = TypeAdapter(dict[str, CopyResult])

# The Manager lost the checkpoint: the same backup works as a full one.
_NEEDS_FULL = (BackupFailed.code, CheckpointInvalid.code)


def workflow_id(job_id: str, vm_id: str) -> str:
    """Id of the workflow that backs up one VM of a job."""
    return f"{job_id}:{vm_id}"


def body(ports: Ports, job_id: str, vm_id: str, full: bool) -> State:  # noqa: FBT001 - a workflow's arguments are JSON
    """Back one VM up; when its checkpoint turns out to be lost, once more in full."""
    first = _Steps(ports, job_id, vm_id, attempt=1)
    state = _run(first, {"full": full})
    if state.get("code") in _NEEDS_FULL and state.get("incremental"):
        state = _run(_Steps(ports, job_id, vm_id, attempt=2), {"full": True})
    step: Callable[..., State] = Durable.step
    return step("close", first.close, state)


def _run(steps: _Steps, state: State) -> State:
    """Run the steps until one fails, and release what they opened in any case."""
    sequence = (
        ("plan", steps.plan),
        ("prepare", steps.prepare),
        ("start", steps.start),
        ("ready", steps.ready),
        ("copy", steps.copy),
        ("commit", steps.commit),
    )
    for name, act in sequence:
        state = {**state, **Durable.step(name, _safely(steps, act), state)}
        if failed(state):
            break
    released = Durable.step("release", steps.release, state)
    return {**state, **released}


def _safely(steps: _Steps, act: Callable[[State], State]) -> Callable[[State], State]:
    return lambda state: outcome(lambda: act(state), job_id=steps.watch.job_id)


class _Steps:
    """The effects. Each takes what the steps before it found out and returns what it adds; each may be repeated."""

    def __init__(self, ports: Ports, job_id: str, vm_id: str, *, attempt: int) -> None:
        self.ports = ports
        self.job_id = job_id
        self.vm_id = vm_id
        self.backup_id = backup_id(job_id, vm_id, attempt)
        self.watch = Watch(ports=ports, job_id=job_id)
        self.exposure = Exposure(watch=self.watch, vm_id=vm_id)

    def plan(self, state: State) -> State:
        """Decide what is done with each disk. Nothing is open yet."""
        self._phase("planning")
        self.watch.check()
        self.ports.ready_target()
        points = self.ports.repository.points(vm_id=self.vm_id)
        last = points[-1] if points else None
        vm, checkpoints = self.watch.persist(
            lambda: (self.ports.engine.vm(self.vm_id), self.ports.engine.checkpoints(self.vm_id)),
            seconds=self.ports.patience.retry,
        )
        plan = plan_backup(vm, last, checkpoints, full=state["full"])
        if vm.host_id:  # better to learn now that the mover is down than with the VM's disks locked
            mover = self.ports.movers.at(vm.host_id)
            self.watch.persist(mover.health, seconds=self.ports.patience.retry, on=PASSING)
        created = utc_now().replace(microsecond=0)
        for name, reason in plan.left_out:
            self._event("warning", f"Disk {name!r} of VM {vm.name!r} is left out: {reason}")
        self._show(plan, "planned")
        return {
            "plan": _PLAN.dump_python(plan, mode="json"),
            "created": created.isoformat(),
            "point_id": point_id(created, self.job_id),
            "incremental": plan.from_checkpoint is not None,
        }

    def prepare(self, state: State) -> State:
        """Begin the draft and write the configuration: the Manager withholds it once the disks are locked."""
        self._phase("configuration")
        kept = self.watch.persist(
            lambda: self.ports.engine.configuration(self.vm_id), seconds=self.ports.patience.retry
        )
        self._draft(state).write_configuration(kept.ovf, kept.document)
        return {}

    def start(self, state: State) -> State:
        """Have the Manager start the backup, under an id that was written down before."""
        self._phase("starting")
        plan = _PLAN.validate_python(state["plan"])
        self.exposure.note(HeldKind.BACKUP, self.backup_id)
        request = BackupRequest(
            id=self.backup_id,
            vm_id=self.vm_id,
            disk_ids=tuple(item.disk.id for item in plan.disks),
            from_checkpoint=plan.from_checkpoint,
            description=mark(self.job_id),
        )
        self.watch.persist(lambda: self.ports.engine.start_backup(request), seconds=self.ports.patience.retry)
        return {}

    def ready(self, state: State) -> State:
        """Wait until the disks can be read, and learn which of them the Manager gives changes for."""
        plan = _PLAN.validate_python(state["plan"])
        session = self.exposure.await_ready(self.backup_id, vm_name=plan.vm.name)
        if session.checkpoint_id:
            self.exposure.note(HeldKind.CHECKPOINT, session.checkpoint_id)
        plan = replace(plan, disks=tuple(_as_given(item, session) for item in plan.disks))
        self._show(plan, "ready")
        return {
            "plan": _PLAN.dump_python(plan, mode="json"),
            "session": _SESSION.dump_python(session, mode="json"),
        }

    def copy(self, state: State) -> State:
        """Have the movers copy all disks."""
        self._phase("copying")
        plan = _PLAN.validate_python(state["plan"])
        draft = self._draft(state)
        results = copy_all(self.exposure, [self._task(item, draft) for item in plan.disks])
        return {"results": _RESULTS.dump_python(dict(results), mode="json")}

    def commit(self, state: State) -> State:
        """Make the restore point appear, unless the Manager ended the backup while it was copied."""
        self._phase("committing")
        plan = _PLAN.validate_python(state["plan"])
        session = _SESSION.validate_python(state["session"])
        draft = self._draft(state)
        seen = self.watch.persist(
            lambda: self.ports.engine.backup(self.vm_id, self.backup_id), seconds=self.ports.patience.retry
        )
        # The point of a commit that was repeated after a crash exists already, whatever became of the backup since.
        if seen.phase in BACKUP_OVER and not self._committed(state):
            words = self.ports.engine.explain(self.backup_id, self.vm_id) or "it ended before the copy did."
            raise BackupFailed(backup_id=self.backup_id, vm=plan.vm.name, words=words)
        point = _point(plan, session, state, job_id=self.job_id, draft=draft)
        draft.commit(point)
        self.ports.store.jobs.set_vm(self.job_id, self.vm_id, point_id=point.id)
        moved = sum(image.moved for image in point.images)
        stored = sum(image.stored for image in point.images)
        self._event(
            "info",
            f"VM {plan.vm.name!r} has restore point {point.id}",
            vm_id=self.vm_id,
            mode=str(point.mode),
            moved=moved,
            stored=stored,
        )
        return {"committed": point.id, "checkpoint": session.checkpoint_id}

    def release(self, state: State) -> State:
        """Close everything in the Manager and on the target that did not become a restore point."""
        self._phase("releasing")
        exposure = watch_release(self.ports, self.job_id, self.vm_id)
        committed = "committed" in state

        def act() -> None:
            release_backup(exposure, success=committed)
            if not committed and "point_id" in state:
                self._draft(state).abandon()

        left = patiently(exposure, act)
        if committed and not left:
            self._drop_old_checkpoints(exposure, state["checkpoint"])
        return left

    def close(self, state: State) -> State:
        """Write what became of the VM into the job."""
        result = JobState.SUCCEEDED
        if failed(state):
            result = JobState.CANCELLED if cancelled(state) else JobState.FAILED
        code, text = state.get("code", ""), state.get("error", "")
        if "open" in state:
            result, code, text = JobState.NEEDS_ATTENTION, "still-open", f"{text} {state['open']}".strip()
        self.ports.store.jobs.set_vm(
            self.job_id, self.vm_id, state=result, phase="", error_code=code, error=text, busy=False
        )
        if result is not JobState.SUCCEEDED:
            self._event("error", text, vm_id=self.vm_id, code=code)
        return {"state": result}

    def _task(self, item: DiskPlan, draft: Draft) -> Task:
        ports = self.ports

        def order(transfer: Transfer, host: str, fence: int) -> CopyOrder:
            sink = Image(
                target=ports.target,
                repository=ports.repository.id,
                folder=draft.folder(item.disk.id),
                name=draft.image_name,
                backing=item.backing,
            )
            return CopyOrder(
                host=host,
                source=Access(ticket=transfer.ticket),
                sink=sink,
                dirty=item.mode is Mode.INCREMENTAL,
                lease=ports.patience.lease,
                fence=fence,
            )

        request = TransferRequest(disk_id=item.disk.id, upload=False, backup_id=self.backup_id)
        return Task(progress=_progress(item, "waiting"), request=request, order=order)

    def _draft(self, state: State) -> Draft:
        raise NotImplementedError

    def _drop_old_checkpoints(self, exposure: Exposure, keep: str | None) -> None:
        known = frozenset(p.checkpoint_id for p in self.ports.repository.points(vm_id=self.vm_id) if p.checkpoint_id)

        def act() -> State:
            exposure.watch.persist(
                lambda: drop_old_checkpoints(exposure, keep=keep, known=known), seconds=self.ports.patience.retry
            )
            return {}

        left = outcome(act, job_id=self.job_id)
        if failed(left):
            self._event("warning", f"Old checkpoints stay until the next backup: {left['error']}")

    def _show(self, plan: BackupPlan, state: str) -> None:
        for item in plan.disks:
            self.ports.store.jobs.set_disk(self.job_id, self.vm_id, _progress(item, state))

    def _phase(self, phase: str) -> None:
        self.ports.store.jobs.set_vm(self.job_id, self.vm_id, state=JobState.RUNNING, phase=phase)

    def _event(self, level: str, text: str, **fields: object) -> None:
        self.ports.store.jobs.add_event(self.job_id, level, text, **fields)


def _as_given(item: DiskPlan, session: BackupSession) -> DiskPlan:
    """The plan of a disk as the Manager carries it out: it may give all of a disk where changes were planned."""
    if item.mode is Mode.INCREMENTAL and session.modes.get(item.disk.id) is not Mode.INCREMENTAL:
        reason = "the Manager does not have the changes of this disk"
        return replace(item, mode=Mode.FULL, reason=reason, backing=None)
    return item


def _progress(item: DiskPlan, state: str) -> DiskProgress:
    return DiskProgress(
        disk_id=item.disk.id,
        name=item.disk.name,
        mode=item.mode,
        reason=item.reason,
        state=state,
        total=item.disk.size if item.mode is Mode.FULL else 0,
    )
