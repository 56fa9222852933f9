# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of hybrid backups that the Manager did not merge away at their end, as it should."""

from __future__ import annotations

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.events import Kind
from overkeep.controller.records import Held, HeldKind
from overkeep.errors import OverkeepError


class SnapshotStays(OverkeepError):
    """The Manager cannot merge the snapshot of a backup."""

    code = "snapshot-stays"
    template = (
        "Snapshot {snapshot!r} of VM {vm!r}, which a hybrid backup left, could not be removed: {words} It is tried "
        "again every hour; look at the events of the VM in the Manager, or remove it there."
    )
    status = 502


def remove_snapshots(exposure: Exposure) -> bool:
    """Remove what is left of the snapshots of backups that have ended; return whether there was any.

    Raises `SnapshotStays` and the errors of the Manager: then it is written down as there still.
    """
    left = [_remove(exposure, item) for item in exposure.held(HeldKind.SNAPSHOT)]
    return any(left)


def try_to_remove_snapshots(exposure: Exposure) -> None:
    """The same; what comes of it is told, and fails nothing: the janitor goes on with what stays."""
    try:
        removed = remove_snapshots(exposure)
    except OverkeepError as error:
        exposure.tell(Kind.SNAPSHOT_STAYS, f"The Manager did not remove the snapshot of the backup. {error}")
    else:
        if removed:
            text = "The Manager did not remove the snapshot of the backup at its end; asked once more, it did"
            exposure.tell(Kind.SNAPSHOT_REMOVED, text)


def _remove(exposure: Exposure, item: Held) -> bool:
    engine = exposure.ports.engine
    left = _settled(exposure, item) is not None
    if left:
        engine.delete_snapshot(item.vm_id, item.ref)
        if (status := _settled(exposure, item)) is not None:
            words = engine.explain(item.ref, item.vm_id) or f"its status is {status!r}."
            raise SnapshotStays(snapshot=item.ref, vm=item.vm_id, words=words)
    exposure.ports.store.held.release(item)
    return left


def _settled(exposure: Exposure, item: Held) -> str | None:
    """The status of a snapshot once the Manager does not work on it any more; None when it is gone."""
    seen: list[str | None] = []

    def probe() -> bool | None:
        seen.append(exposure.ports.engine.snapshot_status(item.vm_id, item.ref))
        return None if seen[-1] == "locked" else True

    exposure.await_engine(
        probe, seconds=exposure.ports.patience.merge, act="merge the snapshot of a backup", what=item.ref
    )
    return seen[-1]
