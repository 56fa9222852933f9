# SPDX-License-Identifier: GPL-3.0-or-later
"""The checkpoints of a VM that are of no use any more. All is best effort: what stays goes after the next backup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


def drop_old(exposure: Exposure, *, own: str | None) -> None:
    """Delete those of ours that no next backup begins with; `own` is that of the new point."""
    ports = exposure.ports

    def act() -> State:
        found = ports.targets.survey(lambda target: target.repository.points(vm_id=exposure.vm_id))
        points = [point for _, listed in found.answers for point in listed]
        known = frozenset(point.checkpoint_id for point in points if point.checkpoint_id)
        keep = {own, *_newest(points)}
        exposure.watch.persist(
            lambda: drop_old_checkpoints(exposure, keep=keep, known=known, strays=not found.away),
            seconds=ports.patience.retry,
        )
        return {}

    left = outcome(act, job_id=exposure.watch.job_id)
    if failed(left):
        text = f"Old checkpoints stay until the next backup: {left['error']}"
        exposure.tell(Kind.CHECKPOINT_STAYS, text, code=left["code"])


def _newest(points: Sequence[RestorePoint]) -> Iterator[str | None]:
    """The checkpoint of the newest point of each workload: the next backup of the VM there begins with it."""
    newest = {point.workload_id: point for point in sorted(points, key=lambda point: point.created)}
    return (point.checkpoint_id for point in newest.values())
