# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot of a hybrid backup: made at its start, read by its transfers, and merged away at its end."""

from __future__ import annotations

import asyncio
import logging

from ovirtlab.engine import jobs
from ovirtlab.engine.backups import audit
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Fault
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.records import Backup
from ovirtlab.engine.snapshots import creating, merging
from ovirtlab.engine.snapshots.creating import SnapshotRequest

log = logging.getLogger(__name__)

DESCRIPTION = "Auto-generated for Backup VM"
_NOT_BEGUN = 117


def begin(context: Context, vm: Vm, backup: Backup) -> None:
    """Start to snapshot the disks of a backup; its checkpoint begins in the new volumes.

    Raises the fault of the rule that stands against it.
    """
    request = SnapshotRequest(
        description=DESCRIPTION, disk_ids=tuple(backup.modes), bitmap=backup.pending_checkpoint_id
    )
    creation = creating.begin(context, vm, request, cause=_cause(context, backup))
    backup.snapshot_id = creation.snapshot.id
    context.background.undertake(creating.run(context, creation), name=f"snapshot of backup {backup.id}")


def tell_refused(context: Context, backup: Backup) -> None:
    """Write that the snapshot of a backup could not be begun."""
    vm = context.state.vms[backup.vm_id]
    text = f"Failed to create Snapshot {DESCRIPTION} for VM {vm.name} (User: {backup.origin.user_name})."
    context.state.events.add(
        _NOT_BEGUN, "error", text, correlation_id=backup.origin.correlation_id, vm=vm.id, user=backup.origin.user_id
    )


def made(context: Context, backup: Backup) -> bool | None:
    """Whether the snapshot is there; None as long as that is not known."""
    snapshot = context.state.snapshots.get(backup.snapshot_id)
    if snapshot is None:
        return False
    return None if snapshot.status == "locked" else True


async def remove(context: Context, backup: Backup) -> None:
    """Merge the snapshot away; one that stays is only told of, as the backup has its data."""
    state = context.state
    snapshot = state.snapshots.get(backup.snapshot_id)
    if snapshot is None:
        return
    try:
        removal = merging.begin_of_backup(context, state.vm(backup.vm_id), snapshot, cause=_cause(context, backup))
        act = context.background.undertake(merging.run(context, removal), name=f"removal of snapshot {snapshot.id}")
        removed = await asyncio.shield(act)
    except Fault as fault:
        log.info("Snapshot %s of backup %s stays: %s", snapshot.id, backup.id, fault)
        removed = False
    if not removed:
        audit.tell(context, backup, audit.LEFTOVER)


def _cause(context: Context, backup: Backup) -> Cause:
    return jobs.cause_of(context.state, backup.origin)
