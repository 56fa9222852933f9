# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of the backup of one VM, each of which may be repeated."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from overkeep.controller.activities.capacity import require_room
from overkeep.controller.activities.copying import Task, copy_all
from overkeep.controller.activities.exposure import BACKUP_OVER, Exposure
from overkeep.controller.activities.steps import PASSING, State, Watch, outcome
from overkeep.controller.activities.verifying import Soundness
from overkeep.controller.events import Kind
from overkeep.controller.needs import backup_needs
from overkeep.controller.ports import Ports, backup_id
from overkeep.controller.records import HeldKind, JobState, Stage
from overkeep.controller.store.consistency import consistency_value
from overkeep.controller.store.policies import terms_value
from overkeep.controller.targets.target import Target
from overkeep.controller.workflows.assembly import as_given, backup_progress, make_point, point_made
from overkeep.controller.workflows.beginning import Beginning
from overkeep.controller.workflows.checkpoints import drop_lost
from overkeep.controller.workflows.orders import Into, backup_task
from overkeep.engine.api import BackupRequest, BackupSession
from overkeep.engine.errors import BackupFailed
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.model.consistency import Reached
from overkeep.model.inventory import Place, Vm
from overkeep.model.plan import BackupPlan, Basis, DiskPlan, plan_backup
from overkeep.model.points import DiskImage, Mode, RestorePoint, point_id
from overkeep.mover.orders import CopyResult
from overkeep.repository.errors import ChainBroken
from overkeep.repository.repository import Draft
from overkeep.units import utc_now

_PLAN = TypeAdapter(BackupPlan)
_SESSION = TypeAdapter(BackupSession)
_RESULTS = TypeAdapter(dict[str, CopyResult])

_GLANCE = 3.0  # seconds that a plan waits for a target that the VM is not backed up to

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of an attempt.

    A full backup; one that does not rely on tracked changes, and why not; one whose guest is not frozen, and why not.
    `lost`: the checkpoint of the last restore point turned out to be of no use.
    """

    full: bool
    untracked: str = ""
    lost: bool = False
    unfrozen: str = ""


_WISH = TypeAdapter(Wish)


class BackupSteps:
    """The effects. Each takes what the steps before it found out and returns what it adds; each may be repeated."""

    def __init__(self, ports: Ports, job_id: str, vm_id: str, *, asked: Mapping[str, Any], attempt: int) -> None:
        self.ports = ports
        self.job_id = job_id
        self.vm_id = vm_id
        self.asked = asked
        self.workload_id: str = asked["workload_id"]
        self.terms = terms_value(asked.get("terms"))
        self.without: tuple[str, ...] = tuple(asked.get("without", ()))
        self.more: tuple[str, ...] = tuple(asked.get("more", ()))
        self.consistency = consistency_value(asked.get("consistency"))
        self.backup_id = backup_id(job_id, vm_id, attempt)
        self.watch = Watch(ports=ports, job_id=job_id)
        self.began = utc_now()
        self.exposure = Exposure(watch=self.watch, vm_id=vm_id)
        self.beginning = Beginning(self.exposure, self.consistency, attempt=attempt)

    @property
    def target(self) -> Target:
        """Where the backup goes; raises `NotFound` once it is not in the settings any more."""
        return self.ports.targets.of(self.asked)

    @property
    def written(self) -> JobState:
        """What is written of the VM in the job."""
        return self.ports.store.jobs.vm_state(self.job_id, self.vm_id)

    def safely(self, act: Callable[[State], State]) -> Callable[[State], State]:
        """The step with its error as an outcome, and with what it spent."""
        return lambda state: {**outcome(lambda: act(state), job_id=self.job_id), **self.spent(state)}

    def spent(self, state: State) -> State:
        """What was spent up to the end of a step, as steps hand it on: a process may die between any two of them."""
        return {
            "began": state.get("began") or self.began.isoformat(),
            "waited": round(state.get("waited", 0.0) + self.watch.spent.take(), 3),
        }

    def plan(self, state: State) -> State:
        """Decide what is done with each disk. Nothing is open yet."""
        self._await_turn()
        self.began = utc_now()
        self._log_phase("planning")
        self.ports.store.jobs.set_vm(self.job_id, self.vm_id, state=JobState.RUNNING, phase="planning")
        self.watch.check()
        self.target.ready()
        require_room(self.target)
        wish = _WISH.validate_python(state["wish"])
        points = self.target.repository.points(self.workload_id, self.vm_id)
        last = points[-1] if points else None
        engine = self.ports.engine
        vm, checkpoints = self.watch.persist(
            lambda: (engine.vm(self.vm_id), engine.checkpoints(self.vm_id)), seconds=self.ports.patience.retry
        )
        if self._has_moved(vm):
            return self.plan(state)
        if wish.lost and last and last.checkpoint_id in checkpoints:
            drop_lost(self.exposure, last.checkpoint_id)
        soundness = Soundness(self.target.repository, points)
        spoilt = self._why_spoilt(last, soundness) if last and not wish.full else {}
        basis = Basis(last=last, checkpoints=checkpoints, spoilt=spoilt, untracked=wish.untracked)
        plan = plan_backup(vm, basis, full=wish.full, without=self.without)
        if vm.host_id:  # better to learn now that the mover is down than with the VM's disks locked
            mover = self.ports.movers.at(vm.host_id)
            self.watch.persist(mover.health, seconds=self.ports.patience.retry, on=PASSING)
        for name, reason in plan.left_out:
            text = f"Disk {name!r} of VM {vm.name!r} is left out: {reason}"
            self.exposure.tell(Kind.DISK_LEFT_OUT, text, disk=name)
        self._show(plan, "planned")
        created = _after((last, *self._last_elsewhere()))
        return {
            "plan": _PLAN.dump_python(plan, mode="json"),
            "created": created.isoformat(),
            "point_id": point_id(created, self.job_id),
            "tracked": plan.from_checkpoint is not None,
            "incremental": plan.mode is Mode.INCREMENTAL,
            "unfrozen_before": last is not None and last.consistency is Reached.CRASH,
        }

    def start(self, state: State) -> State:
        """Begin the draft, and have the Manager start the backup."""
        self._configure(self.draft(state))
        self.phase("starting")
        self.watch.check()
        plan = _PLAN.validate_python(state["plan"])
        request = BackupRequest(
            id=self.backup_id,
            vm_id=self.vm_id,
            disk_ids=tuple(item.disk.id for item in plan.disks),
            from_checkpoint=plan.from_checkpoint,
            description=self.ports.mark(self.job_id),
            kind=self.terms.backup_kind,
        )
        unfrozen = _WISH.validate_python(state["wish"]).unfrozen
        return self.beginning.begin(request, unfrozen=unfrozen, unfrozen_before=state.get("unfrozen_before", False))

    def _configure(self, draft: Draft) -> None:
        """Write the configuration of the VM, unless it is there: the Manager withholds it once the disks are locked."""
        self.phase("configuration")
        draft.begin()
        if not draft.configured:
            kept = self.watch.persist(
                lambda: self.ports.engine.configuration(self.vm_id), seconds=self.ports.patience.retry
            )
            draft.write_configuration(kept.ovf, kept.document)

    def look_at_agent(self, _state: State) -> State:
        """Find out whether a backup failed because its guest could not be frozen."""
        return self.beginning.look_at_agent()

    def copy(self, state: State) -> State:
        """Wait until the disks can be read, and have the movers copy them. What was open is told also when that fails.

        After a crash the backup is found as it is, and so are the orders to the movers.
        """
        opened = self._opened(state)
        return {**opened, **outcome(lambda: self._copied({**state, **opened}), job_id=self.job_id)}

    def _opened(self, state: State) -> State:
        """Wait until the disks can be read, and learn which of them the Manager gives changes for."""
        plan = _PLAN.validate_python(state["plan"])
        session = self.exposure.await_ready(self.backup_id, vm_name=plan.vm.name)
        if session.checkpoint_id:
            self.exposure.note(HeldKind.CHECKPOINT, session.checkpoint_id)
        if session.snapshot_id:
            self.exposure.note(HeldKind.SNAPSHOT, session.snapshot_id)
        plan = as_given(plan, session)
        self._show(plan, "ready")
        found = {"plan": _PLAN.dump_python(plan, mode="json"), "session": _SESSION.dump_python(session, mode="json")}
        return {**found, **self.beginning.look_whether_started(session, plan.vm)}

    def _copied(self, state: State) -> State:
        self.phase("copying")
        plan = _PLAN.validate_python(state["plan"])
        into = Into(target=self.target, draft=self.draft(state))
        results = copy_all(self.exposure, [self._task(item, plan, into) for item in plan.disks])
        copied = max((result.seconds for result in results.values()), default=0.0)
        return {"results": _RESULTS.dump_python(dict(results), mode="json"), "copied": round(copied, 3)}

    def commit(self, state: State) -> State:
        """Make the restore point appear, unless the Manager ended the backup while it was copied."""
        self.phase("committing")
        draft = self.draft(state)
        point = self.point(state, draft)
        if not draft.committed:  # a repeat after a crash finds it there, whatever became of the backup since
            self.watch.check()  # from here on there is no way back: a cancel that comes later is too late
            self._require_open(point.vm_name)
        commit_whole(draft, point)
        return self.keep(point)

    def keep(self, point: RestorePoint) -> State:
        """Let the lists show a point that was made, and tell it."""
        self.ports.store.keep_point(self.target.name, point, point_made(point, target=self.target.name))
        return {"committed": point.id, "checkpoint": point.checkpoint_id}

    def say_instead(self, state: State) -> State:
        """Tell why another attempt follows, and what it does otherwise."""
        told = "A full backup is made" if state["full"] else "The disks are compared with the last restore point"
        text = f"{told} instead: {state['error']}"
        self.exposure.tell(Kind.VM_TRIED_OTHERWISE, text, code=state["code"])
        return {}

    def _await_turn(self) -> None:
        """Wait while the VM has no slots: it had others before it turned out to be elsewhere."""
        while self.ports.store.admission.stage(self.job_id, self.vm_id) is Stage.WAITING:
            self.watch.pause(self.ports.patience.poll)

    def _has_moved(self, vm: Vm) -> bool:
        """Whether the VM needs slots that it has not, because it is elsewhere now; then it waits for them."""
        host = self.ports.movers.at(vm.host_id).host if vm.host_id else ""
        needs = backup_needs(self.target.name, Place.of(host, vm.disks), more=self.more)
        if set(needs) <= self.ports.store.admission.slots(self.job_id, self.vm_id):
            return False
        self.ports.store.admission.wait_again(self.job_id, self.vm_id, needs)
        return True

    def _why_spoilt(self, last: RestorePoint, soundness: Soundness) -> dict[str, str]:
        """Why nothing may be built on images of a point, by disk: a chain is unsound, or the policy says so."""
        found = {image.disk_id: self._why_image_spoilt(last, image, soundness) for image in last.images}
        return {disk_id: why for disk_id, why in found.items() if why}

    def _why_image_spoilt(self, last: RestorePoint, image: DiskImage, soundness: Soundness) -> str:
        try:
            names = self.target.repository.chain(last, image.disk_id)
        except ChainBroken as error:
            told = f"Disk {image.name!r} is backed up in full, because its last restore point is damaged: {error}"
            self.exposure.tell(Kind.DISK_FULL, told, disk_id=image.disk_id)
            return "the last restore point is damaged"
        if unsound := soundness.unsound_below(names):
            why = f"restore point {unsound}, which it would be built upon, did not verify"
            self.exposure.tell(
                Kind.DISK_FULL, f"Disk {image.name!r} is backed up in full: {why}", disk_id=image.disk_id
            )
            return why
        return self.terms.why_full(chain=len(names), since_full=image.since_full)

    def _require_open(self, vm_name: str) -> None:
        engine = self.ports.engine
        seen = self.watch.persist(lambda: engine.backup(self.vm_id, self.backup_id), seconds=self.ports.patience.retry)
        if seen.phase in BACKUP_OVER:
            words = engine.explain(self.backup_id, self.vm_id) or "it ended before the copy did."
            raise BackupFailed(backup_id=self.backup_id, vm=vm_name, words=words)

    def _task(self, item: DiskPlan, plan: BackupPlan, into: Into) -> Task:
        return backup_task(
            item,
            running=bool(plan.vm.host_id),
            into=into,
            backup_id=self.backup_id,
            copying=self.terms.copying,
            lease=self.ports.patience.lease,
        )

    def draft(self, state: State) -> Draft:
        """The point in the making, once it is planned."""
        return self.target.repository.draft(
            self.workload_id, self.vm_id, point_id=state["point_id"], job_id=self.job_id
        )

    def point(self, state: State, draft: Draft) -> RestorePoint:
        """The restore point, once all disks are copied."""
        plan = _PLAN.validate_python(state["plan"])
        point = make_point(
            plan,
            _RESULTS.validate_python(state["results"]),
            point_id=state["point_id"],
            workload_id=self.workload_id,
            job_id=self.job_id,
            created=dt.datetime.fromisoformat(state["created"]),
            checkpoint_id=_SESSION.validate_python(state["session"]).checkpoint_id,
            file=draft.image_name,
        )
        session = _SESSION.validate_python(state["session"])
        reached = self.beginning.reached(state, session, plan.vm)
        return replace(point, consistency=reached, consistency_wanted=self.consistency.wanted, backup_kind=session.kind)

    def _last_elsewhere(self) -> Iterator[RestorePoint]:
        """The VM's last points on other targets that the workload had: a retention puts all in one order."""
        targets = self.ports.targets
        if len(targets) == 1:
            return
        for target in targets.had_by(self.workload_id):
            if target.name != self.target.name:
                with suppress(OverkeepError):  # a target that is away fails no backup
                    yield from targets.ask(target, self.points_on, seconds=_GLANCE)[-1:]

    def points_on(self, target: Target) -> tuple[RestorePoint, ...]:
        """The VM's points of the workload on a target, newest last."""
        return target.repository.points(self.workload_id, self.vm_id)

    def _show(self, plan: BackupPlan, state: str) -> None:
        for item in plan.disks:
            self.ports.store.jobs.set_disk(self.job_id, self.vm_id, backup_progress(item, state))

    def phase(self, phase: str) -> None:
        """Tell how far the work on the VM is, which has begun."""
        self._log_phase(phase)
        self.ports.store.jobs.set_phase(self.job_id, self.vm_id, phase)

    def _log_phase(self, phase: str) -> None:
        _log.info("step %s", fields(job=self.job_id, vm=self.vm_id, phase=phase))


def _after(points: Iterable[RestorePoint | None]) -> dt.datetime:
    """Now, in whole seconds as ids of points have them, but after these points: their order is that of time."""
    now = utc_now().replace(microsecond=0)
    return max(now, *(point.created + dt.timedelta(seconds=1) for point in points if point), now)


def commit_whole(draft: Draft, point: RestorePoint) -> None:
    """Commit; an error after the rename is none, for the point is there."""
    try:
        draft.commit(point)
    except OverkeepError:
        if not draft.committed:
            raise
        _log.exception("restore point %s was committed, with an error after it", point.id)
