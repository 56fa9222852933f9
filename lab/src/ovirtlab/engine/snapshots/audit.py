# SPDX-License-Identifier: GPL-3.0-or-later
"""Events that tell what became of a snapshot."""

from __future__ import annotations

from ovirtlab.engine.context import Context
from ovirtlab.engine.entities import Vm
from ovirtlab.engine.events import Severity
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.records import Snapshot

CREATION_STARTED = 45
PREVIEW_STARTED = 46
RESTORED = 47
CREATED = 68
NOT_CREATED = 69
PREVIEWED = 71
NOT_PREVIEWED = 72
WITHOUT_MEMORY = 173
REMOVAL_STARTED = 342
REMOVED = 356
NOT_REMOVED = 357
PARTIALLY_REMOVED = 359

_TEXTS: dict[int, tuple[Severity, str]] = {
    CREATION_STARTED: ("normal", "Snapshot '{snapshot}' creation for VM '{vm}' was initiated by {user}."),
    PREVIEW_STARTED: ("normal", "Snapshot-Preview '{snapshot}' for VM '{vm}' was initiated by {user}."),
    RESTORED: ("normal", "VM '{vm}' restored from Snapshot by {user}."),
    CREATED: ("normal", "Snapshot '{snapshot}' creation for VM '{vm}' has been completed."),
    NOT_CREATED: ("error", "Failed to complete snapshot '{snapshot}' creation for VM '{vm}'."),
    PREVIEWED: ("normal", "Snapshot-Preview '{snapshot}' for VM '{vm}' has been completed."),
    NOT_PREVIEWED: ("error", "Failed to complete Snapshot-Preview '{snapshot}' for VM '{vm}'."),
    WITHOUT_MEMORY: ("warning", "Failed to save memory as part of Snapshot {snapshot} for VM {vm} (User: {user})."),
    REMOVAL_STARTED: ("normal", "Snapshot '{snapshot}' deletion for VM '{vm}' was initiated by {user}."),
    REMOVED: ("normal", "Snapshot '{snapshot}' deletion for VM '{vm}' has been completed."),
    NOT_REMOVED: ("error", "Failed to delete snapshot '{snapshot}' for VM '{vm}'."),
    PARTIALLY_REMOVED: (
        "warning",
        "Due to partial snapshot support, Snapshot '{snapshot}' of VM '{vm}' has been left with the disks that could "
        "not be merged.",
    ),
}


def tell(context: Context, vm: Vm, snapshot: Snapshot, code: int, *, cause: Cause) -> None:
    """Write the event `code` about a snapshot."""
    severity, text = _TEXTS[code]
    context.state.events.add(
        code,
        severity,
        text.format(snapshot=snapshot.description, vm=vm.name, user=cause.name),
        correlation_id=cause.correlation_id,
        vm=vm.id,
        user=cause.user.id,
    )
