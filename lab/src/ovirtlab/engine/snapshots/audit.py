# SPDX-License-Identifier: GPL-3.0-or-later
"""Events that tell what became of a snapshot."""

from __future__ import annotations

from ovirtlab.engine.context import Context
from ovirtlab.engine.events import Severity
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.records import Snapshot

CREATION_STARTED = 45
PREVIEW_STARTED = 46
CREATED = 68
NOT_CREATED = 69
PREVIEWED = 71
COMMIT_STARTED = 94
COMMITTED = 95
NOT_PREVIEWED = 99
NOT_LIVE = 170
WITHOUT_MEMORY = 173
REMOVAL_STARTED = 342
REMOVED = 356
NOT_REMOVED = 357
PARTIALLY_REMOVED = 359
DISK_REMOVAL_STARTED = 373
DISK_REMOVED = 375
DISK_NOT_REMOVED = 376
UNDO_STARTED = 650
UNDONE = 651

_TEXTS: dict[int, tuple[Severity, str]] = {
    CREATION_STARTED: ("normal", "Snapshot '{snapshot}' creation for VM '{vm}' was initiated by {user}."),
    PREVIEW_STARTED: ("normal", "Snapshot-Preview {snapshot} for VM {vm} was initiated by {user}."),
    CREATED: ("normal", "Snapshot '{snapshot}' creation for VM '{vm}' has been completed."),
    NOT_CREATED: ("error", "Failed to complete snapshot '{snapshot}' creation for VM '{vm}'."),
    PREVIEWED: ("normal", "Snapshot-Preview {snapshot} for VM {vm} has been completed."),
    COMMIT_STARTED: ("normal", "Committing a Snapshot-Preview for VM {vm} was initialized by {user}."),
    COMMITTED: ("normal", "Committing a Snapshot-Preview for VM {vm} has been completed."),
    NOT_PREVIEWED: ("error", "Failed to complete Snapshot-Preview {snapshot} for VM {vm}."),
    NOT_LIVE: (
        "warning",
        "Failed to create live snapshot '{snapshot}' for VM '{vm}'. VM restart is recommended. Note that using the "
        "created snapshot might cause data inconsistency.",
    ),
    WITHOUT_MEMORY: ("error", "Failed to save memory as part of Snapshot {snapshot} for VM {vm} (User: {user})."),
    REMOVAL_STARTED: ("normal", "Snapshot '{snapshot}' deletion for VM '{vm}' was initiated by {user}."),
    REMOVED: ("normal", "Snapshot '{snapshot}' deletion for VM '{vm}' has been completed."),
    NOT_REMOVED: ("error", "Failed to delete snapshot '{snapshot}' for VM '{vm}'."),
    PARTIALLY_REMOVED: (
        "warning",
        "Due to partial snapshot removal, Snapshot '{snapshot}' of VM '{vm}' now contains only the following disks: "
        "'{disks}'.",
    ),
    DISK_REMOVAL_STARTED: (
        "normal",
        "Disk '{disks}' from Snapshot(s) '{snapshot}' of VM '{vm}' deletion was initiated by {user}.",
    ),
    DISK_REMOVED: (
        "normal",
        "Disk '{disks}' from Snapshot(s) '{snapshot}' of VM '{vm}' deletion has been completed (User: {user}).",
    ),
    DISK_NOT_REMOVED: (
        "error",
        "Failed to complete deletion of Disk '{disks}' from snapshot(s) '{snapshot}' of VM '{vm}' (User: {user}).",
    ),
    UNDO_STARTED: ("normal", "Undoing a Snapshot-Preview for VM {vm} was initialized by {user}."),
    UNDONE: ("normal", "Undoing a Snapshot-Preview for VM {vm} has been completed."),
}


def tell(context: Context, snapshot: Snapshot, code: int, *, cause: Cause, disks: str = "") -> None:
    """Write the event `code` about a snapshot, or about its `disks` (names)."""
    if snapshot.quiet:
        return
    severity, text = _TEXTS[code]
    vm = context.state.vms[snapshot.vm_id]
    context.state.events.add(
        code,
        severity,
        text.format(snapshot=snapshot.description, vm=vm.name, user=cause.name, disks=disks),
        correlation_id=cause.correlation_id,
        vm=vm.id,
        user=cause.user.id,
    )
