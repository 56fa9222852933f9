# SPDX-License-Identifier: GPL-3.0-or-later
"""Events that tell what became of an image transfer."""

from __future__ import annotations

from ovirtlab.engine.context import Context
from ovirtlab.engine.events import Severity
from ovirtlab.engine.records import ImageTransfer

INITIATED = 1031
SUCCEEDED = 1032
CANCELLED = 1033
FAILED = 1034
RENEWAL_FAILED = 1064
TICKET_MISSING = 1065
NO_HOST = 1067
NO_SERVER = 1068
NO_TICKET = 1069
UPLOAD_TIMED_OUT = 1071
DOWNLOAD_TIMED_OUT = 1072
PAUSED_BY_USER = 1073
RESUMED_BY_USER = 1074
NO_PROXY = 1075
CANCELLED_ON_TIMEOUT = 1076
PAUSED_ON_TIMEOUT = 1077

_STOPPED = "Transfer was stopped by system. Reason: "
_TEXTS: dict[int, tuple[Severity, str]] = {
    INITIATED: ("normal", "Image {type} with disk {disk} was initiated by {user}."),
    SUCCEEDED: ("normal", "Image {type} with disk {disk} succeeded."),
    CANCELLED: ("normal", "Image {type} with disk {disk} was cancelled."),
    FAILED: ("error", "Image {type} with disk {disk} failed."),
    RENEWAL_FAILED: ("error", f"{_STOPPED}failure in transfer image ticket renewal."),
    TICKET_MISSING: ("error", f"{_STOPPED}missing transfer image ticket."),
    NO_HOST: ("error", f"{_STOPPED}Could not find a suitable host for image data transfer."),
    NO_SERVER: ("error", f"{_STOPPED}failed to create a signed image ticket."),
    NO_TICKET: ("error", f"{_STOPPED}failed to add host image ticket."),
    UPLOAD_TIMED_OUT: ("error", "Upload was paused by system. Reason: timeout due to transfer inactivity."),
    DOWNLOAD_TIMED_OUT: ("error", "Download was canceled by system. Reason: timeout due to transfer inactivity."),
    PAUSED_BY_USER: ("normal", "Image transfer was paused by user ({user})."),
    RESUMED_BY_USER: ("normal", "Image transfer was resumed by user ({user})."),
    NO_PROXY: ("warning", "Failed to add proxy image ticket, transferring via proxy_url is not available."),
    CANCELLED_ON_TIMEOUT: (
        "error",
        "The transfer was canceled by the system according to the timeout policy. Reason: client inactivity timeout.",
    ),
    PAUSED_ON_TIMEOUT: (
        "warning",
        "The transfer was paused by the system according to the timeout policy. Reason: client inactivity timeout.",
    ),
}


def tell(context: Context, transfer: ImageTransfer, code: int) -> None:
    """Write the event `code` about a transfer."""
    severity, text = _TEXTS[code]
    disk = context.state.disks.get(transfer.disk_id)
    context.state.events.add(
        code,
        severity,
        text.format(
            type=transfer.direction.capitalize(),
            disk=disk.alias if disk else transfer.disk_id,
            user=transfer.origin.user_name,
        ),
        correlation_id=transfer.origin.correlation_id,
        user=transfer.origin.user_id,
        host=transfer.host_id,
        disk=transfer.disk_id,
    )
