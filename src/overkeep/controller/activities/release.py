# SPDX-License-Identifier: GPL-3.0-or-later
"""What must happen on every exit of a job: close all access, end the backup, remove what is of no use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.activities.freezing import thaw_held
from overkeep.controller.activities.steps import State, Watch
from overkeep.controller.activities.stopwatch import Stopwatch
from overkeep.controller.events import Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import Held, HeldKind
from overkeep.errors import OverkeepError

_log = logging.getLogger(__name__)


def patiently(exposure: Exposure, act: Callable[[], None]) -> State:
    """Run `act` until it succeeds, for hours if need be; return `open` with a sentence when it never does.

    Every error is tried again: what keeps the Manager from closing a backup today may be gone in an hour, and a
    backup that is not closed keeps the VM's disks locked.
    """
    watch = exposure.watch

    def tell(error: OverkeepError) -> None:
        text = f"Closing what is open in the Manager is tried again: {error}"
        exposure.tell(Kind.VM_RELEASE_RETRIED, text, code=error.code)

    def guarded() -> None:
        try:
            act()
        except OverkeepError:
            raise
        except Exception as error:
            _log.exception("job %s: the release of VM %s failed unexpectedly", watch.job_id, exposure.vm_id)
            raise OverkeepError(reason="the release of a job failed") from error

    try:
        watch.persist(guarded, seconds=watch.ports.patience.release, on=OverkeepError, tell=tell)
    except OverkeepError as error:
        _log.error("job %s could not release VM %s: %s", watch.job_id, exposure.vm_id, error)
        return {"open": f"Something of this job is still open in the Manager ({error}); it is tried again later."}
    return {}


def release_backup(exposure: Exposure, *, success: bool) -> None:
    """Thaw the guest, close transfers and the backup.

    Without `success` its checkpoint goes too, as no data belong to it.
    """
    held = exposure.all_held()
    frozen = _thaw(exposure, held)
    backups = exposure.held(HeldKind.BACKUP, among=held)
    exposure.end_orders(among=held)
    exposure.end_transfers(success=success, backup_id=backups[-1].ref if backups else "", among=held)
    for item in backups:
        exposure.end_backup(item, among=held)
    if not success:
        for item in exposure.held(HeldKind.CHECKPOINT):
            _drop_checkpoint(exposure, item)
    if frozen:
        raise frozen


def drop_old_checkpoints(
    exposure: Exposure, present: Sequence[str], *, keep: Collection[str | None], known: Collection[str], strays: bool
) -> None:
    """Delete the VM's checkpoints that are ours, but those in `keep`. `known` are those of its restore points.

    `present` are those that the Manager has. With `strays` also those that were written down and are of no point: not
    while a target is away that may have it. Checkpoints of other programs are left alone.
    """
    engine = exposure.ports.engine
    noted = exposure.ports.store.held.checkpoints(exposure.vm_id)
    held = {item.ref: item for item in noted if strays or item.ref in known}
    for checkpoint in present:
        if checkpoint not in keep and (checkpoint in known or checkpoint in held):
            with exposure.watch.spent.waiting():
                engine.delete_checkpoint(exposure.vm_id, checkpoint)
    for ref, item in held.items():
        if ref not in keep:
            exposure.ports.store.held.release(item)


def release_restore(exposure: Exposure) -> None:
    """Remove exactly what a restore made: its uploads, its VM, its disks."""
    engine = exposure.ports.engine
    exposure.end_orders()
    exposure.end_transfers(success=False, backup_id=None)
    for item in exposure.held(HeldKind.VM_NAME):  # the controller died before the Manager gave the VM's id
        if vm_id := engine.find_marked_vm(item.ref, exposure.ports.mark(exposure.watch.job_id)):
            exposure.note(HeldKind.VM, vm_id)
    for item in exposure.held(HeldKind.VM):
        engine.delete_vm(item.ref, detach_only=True)
        exposure.ports.store.held.release(item)
    for item in exposure.held(HeldKind.VM_NAME):
        exposure.ports.store.held.release(item)
    for item in exposure.held(HeldKind.DISK):
        if engine.disk_status(item.ref) is not None:
            engine.delete_disk(item.ref)
        exposure.ports.store.held.release(item)


def watch_release(ports: Ports, job_id: str, vm_id: str, *, spent: Stopwatch | None = None) -> Exposure:
    """The exposure of a job's VM for its release, which no cancel interrupts; its waits count as those of `spent`."""
    watch = Watch(ports=ports, job_id=job_id, heeds_cancel=False, spent=spent or Stopwatch())
    return Exposure(watch=watch, vm_id=vm_id)


def _thaw(exposure: Exposure, held: Sequence[Held]) -> OverkeepError | None:
    """Thaw the guest; a failure is returned, so that nothing else stays open for its sake."""
    try:
        thaw_held(exposure, among=held)
    except OverkeepError as error:
        return error
    return None


def _drop_checkpoint(exposure: Exposure, item: Held) -> None:
    with exposure.watch.spent.waiting():
        exposure.ports.engine.delete_checkpoint(exposure.vm_id, item.ref)
    exposure.ports.store.held.release(item)
