# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's watch over a transfer: one step for each poll, chosen by the transfer's phase."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ovirtlab.engine import disks, jobs
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import DiskStatus
from ovirtlab.engine.records import ImageTransfer
from ovirtlab.engine.timers import Pace
from ovirtlab.engine.transfers import audit, session
from ovirtlab.host.api import HostError

log = logging.getLogger(__name__)

Step = Callable[[Context, ImageTransfer], Awaitable[None]]

PAUSED = frozenset({"paused_system", "paused_user"})
_RUNNING = frozenset({"initializing", "transferring", "resuming"})


def enter(context: Context, transfer: ImageTransfer, phase: str) -> None:
    """Change the phase; a finished transfer stays as it is."""
    if transfer.has_ended:
        return
    log.info("Transfer %s of disk %s: %s -> %s", transfer.id, transfer.disk_id, transfer.phase, phase)
    transfer.phase = phase


async def run(context: Context, transfer: ImageTransfer) -> None:
    """Poll a transfer until it has ended; the poll after the one that gave it its result ends it."""
    pace = Pace(context.state.settings)
    while not transfer.result:
        await context.clock.sleep(pace.next())
        await advance(context, transfer)
    await context.clock.sleep(context.state.settings.poll_first)
    await _end(context, transfer)


async def advance(context: Context, transfer: ImageTransfer) -> None:
    """Do what the transfer's phase asks for; one poll."""
    step = _STEPS.get(transfer.phase)
    if step is not None:
        await step(context, transfer)


async def begin(context: Context, transfer: ImageTransfer, *, preferred_host: str, opened: asyncio.Event) -> None:
    """Start the session, tell `opened` that it is there or has failed, then poll until the end."""
    try:
        await _open(context, transfer, preferred_host=preferred_host)
    finally:
        opened.set()
    await run(context, transfer)


async def _open(context: Context, transfer: ImageTransfer, *, preferred_host: str) -> None:
    try:
        await session.start(context, transfer, preferred_host=preferred_host)
    except session.SessionError as error:
        log.info("Transfer %s has no session: %s", transfer.id, error)
        if error.code == audit.NO_HOST:
            audit.tell(context, transfer, error.code)
            set_status(context, transfer, "ok")
            _fail(transfer)
            return
        stopped_by_system(context, transfer, error.code)
    if transfer.phase == "initializing":
        enter(context, transfer, "transferring")


def stopped_by_system(context: Context, transfer: ImageTransfer, code: int) -> None:
    """What the engine does on trouble: an upload is paused, a download is given up; a client's order stands."""
    audit.tell(context, transfer, code)
    if transfer.phase in _RUNNING:
        enter(context, transfer, "paused_system" if transfer.direction == "upload" else "cancelled_system")


async def _transferring(context: Context, transfer: ImageTransfer) -> None:
    await _renew_if_due(context, transfer)
    if transfer.phase != "transferring":
        return
    ticket = await session.status(context, transfer)
    if transfer.phase != "transferring":
        return  # an order came in meanwhile
    if ticket is None:
        stopped_by_system(context, transfer, audit.TICKET_MISSING)
        return
    was_active = transfer.active
    transfer.active = bool(ticket.get("active"))
    transfer.transferred = int(ticket.get("transferred") or 0)
    if not was_active and _complete(transfer):
        enter(context, transfer, "finalizing_success")
    elif _idle_too_long(transfer, ticket):
        _time_out(context, transfer)


async def _renew_if_due(context: Context, transfer: ImageTransfer) -> None:
    """Extend the ticket in time; the second failure in a row stops the transfer."""
    if context.clock.seconds() < transfer.expires - context.state.settings.ticket_refresh_allowance:
        return
    if await session.renew(context, transfer):
        transfer.renewal_missed = False
    elif not transfer.renewal_missed:
        transfer.renewal_missed = True
    else:
        transfer.renewal_missed = False
        stopped_by_system(context, transfer, audit.RENEWAL_FAILED)


def _complete(transfer: ImageTransfer) -> bool:
    """A download whose every byte was sent and that nobody reads any more."""
    whole = transfer.size and transfer.transferred == transfer.size
    return transfer.direction == "download" and bool(whole) and not transfer.active


def _idle_too_long(transfer: ImageTransfer, ticket: Mapping[str, Any]) -> bool:
    limit = transfer.inactivity_timeout
    return limit > 0 and int(ticket.get("idle_time") or 0) > limit and not transfer.active


def _time_out(context: Context, transfer: ImageTransfer) -> None:
    """Nobody used the transfer for too long: pause or cancel it, as its policy says."""
    policy = transfer.timeout_policy
    if policy == "legacy":
        policy = "pause" if transfer.direction == "upload" else "cancel"
        code = audit.UPLOAD_TIMED_OUT if transfer.direction == "upload" else audit.DOWNLOAD_TIMED_OUT
    else:
        code = audit.PAUSED_ON_TIMEOUT if policy == "pause" else audit.CANCELLED_ON_TIMEOUT
    audit.tell(context, transfer, code)
    enter(context, transfer, "paused_system" if policy == "pause" else "cancelled_system")


async def _resuming(context: Context, transfer: ImageTransfer) -> None:
    set_status(context, transfer, "locked")
    audit.tell(context, transfer, audit.RESUMED_BY_USER)
    await _renew_if_due(context, transfer)
    if transfer.phase == "resuming":
        enter(context, transfer, "transferring")


async def _paused_by_user(context: Context, transfer: ImageTransfer) -> None:
    """Said at each poll."""
    audit.tell(context, transfer, audit.PAUSED_BY_USER)


async def _cancelled_by_user(context: Context, transfer: ImageTransfer) -> None:
    _outcome(transfer, audit.CANCELLED)
    enter(context, transfer, "finalizing_cleanup")


async def _cancelled_by_system(context: Context, transfer: ImageTransfer) -> None:
    _outcome(transfer, audit.CANCELLED)
    enter(context, transfer, "finalizing_failure")


async def _finalize_success(context: Context, transfer: ImageTransfer) -> None:
    """End well: an upload is verified first, and fails when the host finds anything wrong with the volume."""
    if not await session.stop(context, transfer):
        return
    if transfer.direction == "upload" and not await _verified(context, transfer):
        set_status(context, transfer, "illegal")
        enter(context, transfer, "finalizing_failure")
        return
    set_status(context, transfer, "ok")
    transfer.result = "succeeded"


async def _finalize_failure(context: Context, transfer: ImageTransfer) -> None:
    """Give up, for good even when the session does not stop: then its ticket, its server and the locked disk stay."""
    await _clean_up(context, transfer)
    _fail(transfer)


async def _finalize_cleanup(context: Context, transfer: ImageTransfer) -> None:
    if await _clean_up(context, transfer):
        enter(context, transfer, "finished_cleanup")


async def _cleaned_up(context: Context, transfer: ImageTransfer) -> None:
    _fail(transfer)


async def _clean_up(context: Context, transfer: ImageTransfer) -> bool:
    if not await session.stop(context, transfer):
        return False
    set_status(context, transfer, "illegal" if transfer.direction == "upload" else "ok")
    return True


def _fail(transfer: ImageTransfer) -> None:
    transfer.result = "failed"


async def _verified(context: Context, transfer: ImageTransfer) -> bool:
    disk = context.state.disks[transfer.disk_id]
    path = session.volume(context, transfer)
    try:
        await context.hosts[transfer.host_id].verify_volume(path, disk.volume_format)
        disk.actual_size = path.stat().st_blocks * 512
    except (HostError, OSError) as error:
        log.info("The volume that transfer %s wrote is not good: %s", transfer.id, error)
        return False
    return True


def set_status(context: Context, transfer: ImageTransfer, status: DiskStatus) -> None:
    """Change the status of what is transferred. A disk is `ok` again while the backup that it is read for goes on."""
    disk = context.state.disks.get(transfer.disk_id)
    if transfer.image_id:
        transfer.image_locked = status == "locked"
    elif disk is not None:
        disk.status = status


def _outcome(transfer: ImageTransfer, code: int) -> None:
    transfer.outcome = transfer.outcome or code


async def _end(context: Context, transfer: ImageTransfer) -> None:
    """Free the locks and tell the outcome. The disk of a failed upload goes, even one that had been there before."""
    disk = context.state.disks.get(transfer.disk_id)
    failed = transfer.result == "failed"
    if failed and transfer.direction == "upload" and disk is not None and disk.status != "locked":
        await disks.delete(context, disk, cause=jobs.cause_of(context.state, transfer.origin))
    _outcome(transfer, audit.FAILED if failed else audit.SUCCEEDED)
    for lock in transfer.locks:
        lock.release()
    transfer.locks.clear()
    transfer.active = False
    transfer.ended = context.clock.now()
    enter(context, transfer, "finished_failure" if failed else "finished_success")
    audit.tell(context, transfer, transfer.outcome)


_STEPS: dict[str, Step] = {
    "transferring": _transferring,
    "resuming": _resuming,
    "paused_user": _paused_by_user,
    "cancelled_user": _cancelled_by_user,
    "cancelled_system": _cancelled_by_system,
    "finalizing_success": _finalize_success,
    "finalizing_failure": _finalize_failure,
    "finalizing_cleanup": _finalize_cleanup,
    "finished_cleanup": _cleaned_up,
}
