# SPDX-License-Identifier: GPL-3.0-or-later
"""Points that end, and the merges by which their images go: first the manifests, durably, then the data, by a mover."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from overkeep.controller.activities.bookkeeping import Bookkeeping
from overkeep.controller.activities.ending import Ending
from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.activities.steps import State, cancelled, failed, outcome
from overkeep.controller.events import Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import Job, JobKind
from overkeep.controller.targets.configured import PlacedPoint
from overkeep.controller.targets.target import Target
from overkeep.errors import OverkeepError
from overkeep.model.points import Pin
from overkeep.model.retention import Candidate, Mark, Retention, decide
from overkeep.mover.api import Mover
from overkeep.mover.orders import MOST_IMAGES, MergeOrder, MergeResult, OrderState
from overkeep.repository import layout


class RetentionWaits(OverkeepError):
    """Points of a VM must not be removed now."""

    code = "retention-waits"
    template = "No restore point of VM {vm!r} is removed now: {reason}."
    retry = True
    status = 409


class MergeFailed(OverkeepError):
    """A mover could not merge images of removed points; the sentence is the mover's."""

    code = "merge-failed"
    template = "The images of removed restore points of disk {disk} are still there: {reason}"
    retry = True
    status = 502


def marks(ports: Ports, placed: Sequence[PlacedPoint], retention: Retention, *, now: dt.datetime) -> tuple[Mark, ...]:
    """What a retention decides about the points of one VM, wherever they lie, with what holds some of them.

    A point that lies on several targets, because a tree was copied, counts once.
    """
    candidates = {one.point.id: Candidate(id=one.point.id, created=one.point.created) for one in placed}
    return decide(candidates.values(), retention, now=now, held=holds(ports, placed))


def holds(ports: Ports, placed: Sequence[PlacedPoint]) -> Mapping[str, str]:
    """Why points must stay whatever a retention says, by point."""
    vms = {(one.point.workload_id, one.point.vm_id) for one in placed}
    pins = {one.point.id: pin for one in placed if (pin := one.target.repository.pin(one.point))}
    return reasons(being_restored(ports), vms, pins)


def being_restored(ports: Ports) -> tuple[tuple[tuple[str, str], str, str], ...]:
    """Workload and VM, point, and job of each restore that goes on."""
    jobs = [(job.request, job.id) for job in _restores(ports)]
    return tuple(((asked["workload_id"], asked["vm_id"]), asked["point_id"], job_id) for asked, job_id in jobs)


def reasons(
    restores: Iterable[tuple[tuple[str, str], str, str]], vms: Collection[tuple[str, str]], pins: Mapping[str, Pin]
) -> Mapping[str, str]:
    """Why points of some VMs must stay, by point."""
    restored = {point_id: f"job {job_id} restores it" for vm, point_id, job_id in restores if vm in vms}
    return restored | {point_id: f"pinned: {pin.reason}" for point_id, pin in pins.items()}


def expire(ending: Ending, *, retention: Retention, now: dt.datetime) -> None:
    """End the points of a VM that a retention does not keep, oldest first; their images stay. May be repeated.

    The points on all targets that the workload had count together. Nothing is removed when it is not known for sure
    what is there. Raises `RetentionWaits`, and the errors of the targets.
    """
    ports, workload_id, vm_id = ending.exposure.ports, ending.workload_id, ending.exposure.vm_id
    ending.recover()
    if retention.keeps_all:
        return
    placed = _points_of(ports, workload_id, vm_id)
    gone = {mark.id for mark in marks(ports, placed, retention, now=now) if not mark.kept}
    if not gone:
        return
    require_unread(ports, workload_id, vm_id, vm_name=placed[-1].point.vm_name)
    for one in placed:
        if one.point.id in gone:
            ending.end(one)


def _points_of(ports: Ports, workload_id: str, vm_id: str) -> list[PlacedPoint]:
    """All points of a VM; raise when a target cannot be read or a manifest is damaged."""
    found = []
    for target in ports.targets.had_by(workload_id):
        points, damaged = ports.targets.ask(target, lambda one: one.repository.survey(workload_id, vm_id))
        found += [PlacedPoint(point=point, target=target) for point in points]
        if damaged:
            name = points[-1].vm_name if points else vm_id
            raise RetentionWaits(vm=name, reason=f"the manifest of point {damaged[0].point_id} cannot be read")
    return sorted(found, key=lambda one: (one.point.created, one.point.id))


def require_unread(ports: Ports, workload_id: str, vm_id: str, *, vm_name: str) -> None:
    """Raise `RetentionWaits` while a job reads points of a VM: files must not go from under it."""
    for job in _restores(ports):
        if (job.request["workload_id"], job.request["vm_id"]) == (workload_id, vm_id):
            raise RetentionWaits(vm=vm_name, reason=f"job {job.id} restores from its points")


def _restores(ports: Ports) -> Iterator[Job]:
    return iter(ports.store.jobs.live(JobKind.RESTORE))


def without_failing(
    exposure: Exposure, act: Callable[[], None], *, otherwise: str, kind: Kind = Kind.POINT_STAYS
) -> None:
    """Run what follows when there is no way back; a failure is an event of `kind`, which begins with `otherwise`."""

    def tried() -> State:
        act()
        return {}

    job_id = exposure.watch.job_id
    result = outcome(tried, job_id=job_id)
    if failed(result):
        why = "the job was cancelled" if cancelled(result) else result["error"]
        exposure.tell(kind, f"{otherwise}: {why}", code=result["code"])


def merge_away(
    exposure: Exposure,
    workload_id: str,
    *,
    targets: Callable[[], Sequence[Target]],
    host_id: Callable[[], str],
) -> None:
    """Merge the images of ended points of a VM away, on each of `targets`.

    Where that fails it is told, and the next backup does it; what fails on one target does not keep it from the others.
    """

    def on(target: Target) -> None:
        for done in Merging(exposure, workload_id, target=target, host_id=host_id()).run():
            text = f"{len(done.removed)} images of removed restore points were merged away"
            exposure.tell(Kind.POINT_MERGED, text, moved=done.moved, freed=done.freed)

    def act() -> None:
        for target in targets():
            without_failing(exposure, partial(on, target), otherwise=otherwise)

    otherwise = "Images of removed restore points stay until the next backup"
    without_failing(exposure, act, otherwise=otherwise)


class Merging:
    """Has a mover merge away what removed points of a VM left on a target.

    May be repeated: what is merged is not merged again.
    """

    def __init__(self, exposure: Exposure, workload_id: str, *, target: Target, host_id: str) -> None:
        self._exposure = exposure
        self._ports = exposure.ports
        self._workload_id = workload_id
        self._target = target
        self._bookkeeping = Bookkeeping(exposure, host_id=host_id)

    def run(self) -> tuple[MergeResult, ...]:
        """Merge the images of all disks, one after the other; raise the first error.

        A cancel stops the merge, which loses nothing, and is raised as well.
        """
        self._bookkeeping.begin()
        try:
            return self._merge_all()
        except OverkeepError:
            self._bookkeeping.stop()
            raise

    def _merge_all(self) -> tuple[MergeResult, ...]:
        vm_id = self._exposure.vm_id
        found = self._ports.targets.ask(
            self._target, lambda one: one.repository.unnamed_images(self._workload_id, vm_id)
        )
        if not found:
            return ()
        require_unread(self._ports, self._workload_id, vm_id, vm_name=vm_id)
        chosen = self._bookkeeping.mover()
        return tuple(self._merge(disk_id, images, chosen) for disk_id, images in found.items())

    def _merge(self, disk_id: str, images: tuple[str, ...], chosen: tuple[str, Mover]) -> MergeResult:
        def order(host: str) -> MergeOrder:
            return MergeOrder(
                host=host,
                target=self._target.name,
                repository=self._target.repository.id,
                folder=str(layout.disk(self._workload_id, self._exposure.vm_id, disk_id)),
                remove=images[:MOST_IMAGES],
                lease=self._ports.patience.lease,
            )

        status = self._bookkeeping.carry_out(chosen, act="merge", disk_id=disk_id, make=order)
        if status.state is OrderState.DONE and isinstance(status.result, MergeResult):
            return status.result
        raise MergeFailed(disk=disk_id, reason=status.error or f"the order ended as {status.state}.")
