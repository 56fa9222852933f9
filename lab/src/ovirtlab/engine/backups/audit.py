# SPDX-License-Identifier: GPL-3.0-or-later
"""Events that tell what became of a backup; clients find them by the backup's id in the text."""

from __future__ import annotations

from ovirtlab.engine.context import Context
from ovirtlab.engine.events import Severity
from ovirtlab.engine.records import Backup

STARTED = 10790
FULL_NEEDED = 10791
FAILED = 10792
SUCCEEDED = 10793
FINALIZED = 10794
NOT_FINALIZED = 10795
STOPPED = 10796
SCRATCH_STARTED = 10799
SCRATCH_SUCCEEDED = 10805
SCRATCH_FAILED = 10806
LEFTOVER = 10813
UNMONITORED = 10814

_TEXTS: dict[int, tuple[Severity, str]] = {
    STARTED: ("normal", "Backup {backup} for VM {vm} started (User: {user})."),
    FULL_NEEDED: (
        "error",
        "Incremental backup {backup} for VM {vm} failed. Full backup is now needed (User: {user}).",
    ),
    FAILED: ("error", "Backup {backup} for VM {vm} failed (User: {user})."),
    SUCCEEDED: ("normal", "Backup {backup} for VM {vm} completed successfully (User: {user})."),
    FINALIZED: ("normal", "Backup {backup} for VM {vm} finalized (User: {user})."),
    NOT_FINALIZED: ("error", "Backup {backup} for VM {vm} failed to finalize (User: {user})."),
    STOPPED: ("normal", "Backup {backup} for VM {vm} stopped (User: {user})."),
    SCRATCH_STARTED: (
        "normal",
        "Scratch disk creation for VM {vm} backup {backup} disk {disk} started (User: {user}).",
    ),
    SCRATCH_SUCCEEDED: (
        "normal",
        "Scratch disk creation for VM {vm} backup {backup} disk {disk} succeeded (User: {user}).",
    ),
    SCRATCH_FAILED: (
        "error",
        "Failed to create scratch disk for VM {vm} disk {disk} to use in backup {backup} (User: {user}).",
    ),
    LEFTOVER: (
        "warning",
        "Possible failure while removing a snapshot that was generated automatically during backup of VM '{vm}'. "
        "The snapshot may be removed manually",
    ),
    UNMONITORED: (
        "error",
        "Backup {backup} for VM {vm} was marked as failed since it is no longer monitored, cleanup may be required.",
    ),
}


def tell(context: Context, backup: Backup, code: int, *, disk_id: str = "") -> None:
    """Write the event `code` about a backup."""
    severity, text = _TEXTS[code]
    vm = context.state.vms.get(backup.vm_id)
    context.state.events.add(
        code,
        severity,
        text.format(backup=backup.id, vm=vm.name if vm else backup.vm_id, user=backup.origin.user_name, disk=disk_id),
        correlation_id=backup.origin.correlation_id,
        vm=backup.vm_id,
        user=backup.origin.user_id,
        host=backup.host_id,
        disk=disk_id,
    )
