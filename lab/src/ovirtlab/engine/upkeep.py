# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine does by itself: take up old work when it starts, and forget finished backups and transfers."""

from __future__ import annotations

from datetime import datetime, timedelta

from ovirtlab.engine.backups.commands import fail_unmonitored
from ovirtlab.engine.context import Context
from ovirtlab.engine.transfers.commands import continue_all


def begin(context: Context) -> None:
    """Called once when the engine starts, before it answers requests; needs a running event loop."""
    fail_unmonitored(context)
    continue_all(context)
    context.background.every(
        context.state.settings.cleanup_rate, lambda: _sweep(context), name="cleanup of finished backups and transfers"
    )


def forget_finished(context: Context) -> None:
    """Drop what ended long enough ago: failures are kept twice as long as successes."""
    state, settings = context.state, context.state.settings
    kept = {"succeeded": settings.succeeded_backup_cleanup, "failed": settings.failed_backup_cleanup}
    for backup in list(state.backups.values()):
        ended = backup.phase in kept and not backup.abandoned
        if ended and _older(context, backup.modification_date, kept[backup.phase]):
            del state.backups[backup.id]
    for transfer in list(state.transfers.values()):
        succeeded = transfer.phase == "finished_success"
        kept_for = settings.succeeded_transfer_cleanup if succeeded else settings.failed_transfer_cleanup
        if transfer.ended is not None and _older(context, transfer.ended, kept_for):
            del state.transfers[transfer.id]


async def _sweep(context: Context) -> None:
    forget_finished(context)


def _older(context: Context, moment: datetime, seconds: float) -> bool:
    return context.clock.now() - moment > timedelta(seconds=seconds)
