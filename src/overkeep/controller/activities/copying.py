# SPDX-License-Identifier: GPL-3.0-or-later
"""Ordering the copies of a VM's disks from the movers of the hosts that have them open, and following them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from overkeep.controller.activities.exposure import Exposure, lost
from overkeep.controller.activities.steps import PASSING, JobCancelled, Watch
from overkeep.controller.events import Kind
from overkeep.controller.records import DiskProgress, Held, HeldKind
from overkeep.engine.api import Transfer, TransferRequest
from overkeep.engine.errors import NotReadyInTime
from overkeep.errors import OverkeepError
from overkeep.mover.api import Mover
from overkeep.mover.errors import MoverUnreachable, OrderDiffers, OrderUnknown
from overkeep.mover.imageio import TicketBroken, TicketCancelled, TicketUnknown
from overkeep.mover.orders import CopyOrder, CopyResult, OrderState, OrderStatus

_DEAD_TICKET = (TicketUnknown.code, TicketCancelled.code, TicketBroken.code)  # no copy works with it any more
_FOLLOW = 1.5  # seconds a long poll lasts here: a cancel is to be seen within two
_WRITE_EVERY = 1.0  # seconds between two writes of a disk's progress


class CopyFailed(OverkeepError):
    """A mover could not copy a disk; the sentence is the mover's."""

    code = "copy-failed"
    template = "Disk {disk!r} could not be copied: {reason}"
    status = 502

    def __init__(self, *, disk: str, cause: str, reason: str, retry: bool) -> None:
        super().__init__(disk=disk, reason=reason)
        # of the mover's error, not of this class alone
        self.code = cause or type(self).code  # type: ignore[misc]
        self.retry = retry  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One disk to be copied. `order` makes the order for a transfer, the host's name and a fence."""

    progress: DiskProgress
    request: TransferRequest
    storage_domain_id: str  # of a disk that any host can open; empty for one that a VM runs with
    order: Callable[[Transfer, str, int], CopyOrder]

    @property
    def disk_id(self) -> str:
        """The disk in the Manager."""
        return self.request.disk_id


@dataclass(frozen=True, kw_only=True)
class _Copying:
    """The copies of one VM; the first that fails makes the others give up."""

    exposure: Exposure
    gave_up: threading.Event = field(default_factory=threading.Event)

    @property
    def watch(self) -> Watch:
        return self.exposure.watch


def copy_all(exposure: Exposure, tasks: Sequence[Task]) -> Mapping[str, CopyResult]:
    """Copy all disks at the same time and return what each did, by the id of the task's disk.

    Raises the first error; the orders of the other disks are then cancelled. May be repeated: orders that are known
    to the movers are followed, not given again.
    """
    group = _Copying(exposure=exposure)
    if len(tasks) == 1:  # most VMs have one disk, which needs no thread
        return {tasks[0].disk_id: _copy(group, tasks[0])}
    with ThreadPoolExecutor(max_workers=len(tasks), thread_name_prefix="copy") as pool:
        running = {pool.submit(_copy, group, task): task for task in tasks}
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        if any(future.exception() for future in done):
            group.gave_up.set()
    errors = [error for future in running if (error := future.exception())]
    if errors:
        raise next((error for error in errors if not isinstance(error, _GaveUp)), errors[0])
    return {task.disk_id: future.result() for future, task in running.items()}


class _GaveUp(OverkeepError):
    """Another disk failed; never shown, because that one's error is."""

    code = "gave-up"
    template = "The copy was ended because that of another disk failed."


def _copy(group: _Copying, task: Task) -> CopyResult:
    """Copy one disk, with a new attempt after each failure that a retry may cure."""
    left = group.watch.ports.patience.attempts
    dead: Transfer | None = None
    while True:
        left -= 1
        try:
            if dead is not None:
                _part_with(group, task, dead)
                dead = None
            transfer = _access(group.exposure, task)
            return _attempt(group, task, transfer)
        except OverkeepError as error:
            # a mover that takes no order has been waited for already
            if not error.retry or isinstance(error, MoverUnreachable) or left == 0 or group.gave_up.is_set():
                raise
            text = f"Disk {task.progress.name!r} is copied again: {error.fields.get('reason', error)}"
            group.exposure.tell(Kind.DISK_COPIED_AGAIN, text, disk_id=task.disk_id, code=error.code)
            if error.code in _DEAD_TICKET:
                dead = transfer
        group.watch.pause(group.watch.ports.patience.poll)


def _part_with(group: _Copying, task: Task, dead: Transfer) -> None:
    """Wait until the Manager has noticed that the host knows a ticket no longer; else close its transfer.

    Until then the Manager would give the same ticket again, and all attempts would be used up on it. An upload is
    closed as a good one, because with one that is cancelled goes its disk; that its data are not there yet matters to
    nobody but this job, which opens the next access at once.
    """
    exposure, engine = group.exposure, group.exposure.ports.engine

    def noticed() -> bool | None:
        if group.gave_up.is_set():
            raise _GaveUp
        seen = engine.transfer(dead.id)
        return seen.phase != "transferring" or seen.ticket != dead.ticket or None

    act = f"give up the access to disk {task.progress.name!r}"
    try:
        group.watch.until(noticed, seconds=group.watch.ports.patience.ticket, act=act, what=dead.id)
    except NotReadyInTime:
        text = f"The Manager did not notice that access to disk {task.progress.name!r} was lost; it is closed"
        exposure.tell(Kind.DISK_ACCESS_LOST, text, disk_id=task.disk_id)
        for item in exposure.held(HeldKind.TRANSFER):
            if item.ref == dead.id:
                exposure.end_transfer(item, success=task.request.upload)


def _access(exposure: Exposure, task: Task) -> Transfer:
    """Return the open transfer of the disk; one that died is closed first and opened anew."""
    for item in exposure.held(HeldKind.TRANSFER):
        if item.disk_id == task.disk_id and lost(exposure.ports.engine.transfer(item.ref)):
            exposure.end_transfer(item, success=False)
    request = task.request
    if task.storage_domain_id:
        request = replace(request, host_id=exposure.ports.spread.for_disk(task.storage_domain_id))
    return exposure.open(request, disk_name=task.progress.name)


def _attempt(group: _Copying, task: Task, transfer: Transfer) -> CopyResult:
    mover = group.watch.ports.movers.at(transfer.host_id)
    item, status = _give(group, task, transfer, mover)
    try:
        with group.watch.spent.copying():
            status = _follow(group, task, mover, status)
    except (JobCancelled, _GaveUp):
        group.exposure.end_order(item)
        _show(group, task, status.model_copy(update={"state": OrderState.CANCELLED}))
        raise
    group.watch.ports.store.held.release(item)
    _show(group, task, status)
    if status.state is OrderState.DONE and isinstance(status.result, CopyResult):
        return status.result
    raise CopyFailed(
        disk=task.progress.name,
        cause=status.error_code,
        reason=status.error or f"the order ended as {status.state}.",
        retry=status.retry or status.state is OrderState.INTERRUPTED,
    )


def _give(group: _Copying, task: Task, transfer: Transfer, mover: Mover) -> tuple[Held, OrderStatus]:
    """Return the order that is under way for this access, or give a new one with the next number."""
    exposure = group.exposure
    number = 1
    for item in _earlier(exposure, task):
        number = max(number, _number(item.ref) + 1)
        if item.released:
            continue
        if item.host_id == transfer.host_id and (status := _known(mover, task, item, transfer)):
            return item, status
        exposure.end_order(item)
    order_id = f"{group.watch.job_id}-{exposure.vm_id[:8]}:{task.disk_id}:{number}"
    item = exposure.note(HeldKind.ORDER, order_id, disk_id=task.disk_id, host_id=transfer.host_id)
    order = task.order(transfer, mover.host, number)
    return item, group.watch.persist(
        lambda: mover.put(order_id, order), seconds=group.watch.ports.patience.retry, on=PASSING
    )


def _earlier(exposure: Exposure, task: Task) -> list[Held]:
    found = exposure.ports.store.held.orders(exposure.watch.job_id, task.disk_id)
    return sorted(found, key=lambda item: _number(item.ref))


def _known(mover: Mover, task: Task, item: Held, transfer: Transfer) -> OrderStatus | None:
    """The status of an order that was given before, unless it was for another access or never arrived.

    Giving it again with the same body is how one asks: the mover refuses a body that differs.
    """
    try:
        return mover.put(item.ref, task.order(transfer, mover.host, _number(item.ref)))
    except (OrderDiffers, OrderUnknown, MoverUnreachable):
        return None


def _follow(group: _Copying, task: Task, mover: Mover, status: OrderStatus) -> OrderStatus:
    """Follow an order to its end; each look renews its lease."""
    patience = group.watch.ports.patience
    # A mover that was silent for longer than its lease has stopped: only then may another attempt begin.
    silence = max(patience.mover, patience.lease * 1.5)
    heard, shown = time.monotonic(), 0.0
    while not status.state.terminal:
        group.watch.check()
        if group.gave_up.is_set():
            raise _GaveUp
        if time.monotonic() - shown >= _WRITE_EVERY:
            _show(group, task, status)
            shown = time.monotonic()
        asked = time.monotonic()
        try:
            seen, status = status.seq, mover.wait(status.id, after=status.seq, timeout=_FOLLOW)
            heard = time.monotonic()
            if status.seq == seen and heard - asked < _FOLLOW / 2:  # it answers at once without news
                group.watch.pause(patience.poll)
        except MoverUnreachable as error:
            if time.monotonic() - heard > silence:
                name = task.progress.name
                raise CopyFailed(disk=name, cause=error.code, reason=error.message, retry=True) from error
            group.watch.pause(patience.poll)
    return status


def _show(group: _Copying, task: Task, status: OrderStatus) -> None:
    far = status.progress
    moved = status.result.moved if isinstance(status.result, CopyResult) else far.moved
    total = max(far.total, far.done)
    progress = replace(task.progress, state=str(status.state), done=far.done, total=total, moved=moved)
    group.watch.ports.store.jobs.set_disk(group.watch.job_id, group.exposure.vm_id, progress)


def _number(order_id: str) -> int:
    return int(order_id.rpartition(":")[2])
