# SPDX-License-Identifier: GPL-3.0-or-later
"""The checkpoints of a VM that are of no use any more. All is best effort: what stays goes after the next backup."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.activities.release import drop_old_checkpoints
from overkeep.controller.activities.steps import State, failed, outcome
from overkeep.controller.events import Kind
from overkeep.model.points import RestorePoint


def drop_lost(exposure: Exposure, checkpoint_id: str) -> None:
    """Delete a checkpoint that is of no use before there is a new one: the Manager may drop all others with it."""

    def act() -> State:
        with exposure.watch.spent.waiting():
            exposure.ports.engine.delete_checkpoint(exposure.vm_id, checkpoint_id)
        return {}

    outcome(act, job_id=exposure.watch.job_id)


def drop_old(exposure: Exposure, *, own: str | None, points: Callable[[], Sequence[RestorePoint]]) -> None:
    """Delete those of ours that no next backup begins with.

    `own` is that of the new point, and `points` lists those of the VM where the new one is: mostly only these have
    checkpoints, and there are hundreds of other workloads to look into.
    """

    def act() -> State:
        exposure.watch.persist(lambda: _drop(exposure, own, points), seconds=exposure.ports.patience.retry)
        return {}

    left = outcome(act, job_id=exposure.watch.job_id)
    if failed(left):
        text = f"Old checkpoints stay until the next backup: {left['error']}"
        exposure.tell(Kind.CHECKPOINT_STAYS, text, code=left["code"])


def _drop(exposure: Exposure, own: str | None, points: Callable[[], Sequence[RestorePoint]]) -> None:
    ports = exposure.ports
    present = ports.engine.checkpoints(exposure.vm_id)
    noted = (item.ref for item in ports.store.held.checkpoints(exposure.vm_id))
    others = {*present, *noted} - {own}
    if not others:
        return
    near = points()
    known = _of(near)
    if others <= known:  # none is of another workload or target, and the new point is the newest of its workload
        drop_old_checkpoints(exposure, present, keep={own}, known=known, strays=False)
        return
    found = ports.targets.survey(lambda target: target.repository.points(vm_id=exposure.vm_id))
    everywhere = [point for _, listed in found.answers for point in listed]
    keep = {own, *_newest(everywhere)}
    drop_old_checkpoints(exposure, present, keep=keep, known=_of(everywhere), strays=not found.away)


def _of(points: Sequence[RestorePoint]) -> frozenset[str]:
    return frozenset(point.checkpoint_id for point in points if point.checkpoint_id)


def _newest(points: Sequence[RestorePoint]) -> Iterator[str | None]:
    """The checkpoint of the newest point of each workload: the next backup of the VM there begins with it."""
    newest = {point.workload_id: point for point in sorted(points, key=lambda point: point.created)}
    return (point.checkpoint_id for point in newest.values())
