# SPDX-License-Identifier: GPL-3.0-or-later
"""Orders about image transfers: start one, and extend, pause, resume, cancel or finalize it."""

from __future__ import annotations

import asyncio

from ovirtlab.engine.context import Context
from ovirtlab.engine.faults import BadRequest, conflict, invalid
from ovirtlab.engine.locks import Lock
from ovirtlab.engine.records import ImageTransfer
from ovirtlab.engine.state import State
from ovirtlab.engine.transfers import audit, polling, rules, session
from ovirtlab.engine.transfers.rules import TransferRequest


async def start(context: Context, request: TransferRequest) -> ImageTransfer:
    """Begin a transfer and set up its session; clients that count on it find the addresses in the first answer.

    Without a session the order fails with no word of why, and the transfer goes on to where trouble leads it.
    """
    state = context.state
    locks = _take_locks(state, request)
    try:
        rules.check(state, request)
    except BaseException:
        for lock in locks:
            lock.release()
        raise
    transfer = _record(context, request)
    transfer.locks = locks
    polling.set_status(context, transfer, "locked")
    opened = asyncio.Event()
    work = polling.begin(context, transfer, preferred_host=request.host_id, opened=opened)
    context.background.spawn(work, name=f"transfer {transfer.id}")
    await opened.wait()
    audit.tell(context, transfer, audit.INITIATED)
    if not transfer.expires:
        raise BadRequest("[]")
    return transfer


def pause(context: Context, transfer: ImageTransfer) -> None:
    """Pause an upload; only that."""
    if transfer.direction == "download":
        raise invalid(
            "Cannot pause image download as it's handled by the client. "
            "Note that it can be canceled if you wish to stop it."
        )
    polling.enter(context, transfer, "paused_user")


def resume(context: Context, transfer: ImageTransfer) -> None:
    """Go on with a transfer that is paused; `Conflict` for any other."""
    if transfer.phase not in polling.PAUSED:
        raise conflict("Cannot resume image transfer as it's not in a paused state.")
    polling.enter(context, transfer, "resuming")


def cancel(context: Context, transfer: ImageTransfer) -> None:
    """Give up; the target of an upload is removed."""
    polling.enter(context, transfer, "cancelled_user")


def finalize(context: Context, transfer: ImageTransfer) -> None:
    """End well."""
    polling.enter(context, transfer, "finalizing_success")


def continue_all(context: Context) -> None:
    """Take up the watch over transfers that were under way when the engine stopped; their commands are stored."""
    for transfer in context.state.transfers.values():
        if transfer.phase == "initializing":
            work = polling.begin(context, transfer, preferred_host=transfer.host_id, opened=asyncio.Event())
        elif not transfer.has_ended:
            work = polling.run(context, transfer)
        else:
            continue
        context.background.spawn(work, name=f"transfer {transfer.id}")


def _take_locks(state: State, request: TransferRequest) -> list[Lock]:
    exclusive, shared = rules.needed_locks(state, request)
    if not exclusive and not shared:
        return []
    why = f"Disk {state.disks[request.disk_id].alias} is being transferred."
    return [state.locks.take(exclusive=exclusive, shared=shared, why=why, action=rules.CANNOT)]


def _record(context: Context, request: TransferRequest) -> ImageTransfer:
    state = context.state
    timeout = request.inactivity_timeout
    transfer = ImageTransfer(
        id=state.new_id(),
        disk_id=request.disk_id,
        direction=request.direction,
        format=request.format or state.disks[request.disk_id].format,
        timeout_policy=request.timeout_policy,
        inactivity_timeout=state.settings.client_inactivity_timeout if timeout is None else timeout,
        shallow=request.shallow,
        backup_id=request.backup_id,
        image_id=rules.image_of(state, request),
        backend=session.backend(state, request),
        created=state.clock.now(),
        origin=request.origin,
    )
    state.transfers[transfer.id] = transfer
    return transfer
