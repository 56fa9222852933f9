# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening access to disks in the Manager, and closing everything that a job opened there, on every exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from overkeep.controller.activities.steps import Watch
from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import Held, HeldKind
from overkeep.engine.api import BackupSession, Transfer, TransferRequest
from overkeep.engine.errors import BackupFailed, Busy, TransferFailed
from overkeep.mover.errors import MoverUnreachable, OrderUnknown

BACKUP_OVER = ("succeeded", "failed", "gone")
_Value = TypeVar("_Value")
_ACCESS_LOST = ("cancelled", "finalizing", "finished", "gone")


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What one job opened in the Manager for one VM."""

    watch: Watch
    vm_id: str

    @property
    def ports(self) -> Ports:
        """The outside world."""
        return self.watch.ports

    def note(self, kind: HeldKind, ref: str, *, disk_id: str = "", host_id: str = "") -> Held:
        """Write down what is about to be opened."""
        item = Held(job_id=self.watch.job_id, kind=kind, ref=ref, vm_id=self.vm_id, disk_id=disk_id, host_id=host_id)
        self.ports.store.held.add(item)
        return item

    def tell(
        self, kind: Kind, text: str, *, point_id: str = "", target: str = "", key: str = "", **fields: Any
    ) -> None:
        """Make an event about the VM in the job; one with a key once, however often a step is repeated."""
        about = About(job_id=self.watch.job_id, vm_id=self.vm_id, point_id=point_id, target=target)
        self.ports.store.events.add(Draft(kind=kind, text=text, about=about, key=key, fields=fields))

    def held(self, kind: HeldKind, *, among: Sequence[Held] | None = None) -> tuple[Held, ...]:
        """What is written down and not closed; `among` what was read before with `all_held`."""
        if among is None:
            return self.ports.store.held.of(self.watch.job_id, self.vm_id, kind=kind)
        return tuple(item for item in among if item.kind is kind)

    def all_held(self) -> tuple[Held, ...]:
        """What is written down and not closed, of all kinds in one read."""
        return self.ports.store.held.of(self.watch.job_id, self.vm_id)

    def await_engine(self, probe: Callable[[], _Value | None], *, seconds: float, act: str, what: str) -> _Value:
        """Wait for something that the Manager does (`Watch.until`)."""
        with self.watch.spent.waiting():
            return self.watch.until(probe, seconds=seconds, act=act, what=what)

    def await_ready(self, backup_id: str, *, vm_name: str) -> BackupSession:
        """Wait until a backup is ready to be read; raise `BackupFailed` with the Manager's reason when it fails."""
        engine = self.ports.engine

        def probe() -> BackupSession | None:
            session = engine.backup(self.vm_id, backup_id)
            if session.phase in BACKUP_OVER or session.phase.startswith("finaliz"):
                words = engine.explain(backup_id, self.vm_id) or f"it went to phase {session.phase!r}."
                raise BackupFailed(backup_id=backup_id, vm=vm_name, words=words)
            return session if session.phase == "ready" else None

        return self.await_engine(
            probe, seconds=self.ports.patience.ready, act=f"start the backup of VM {vm_name!r}", what=backup_id
        )

    def open(self, request: TransferRequest, *, disk_name: str) -> Transfer:
        """Open access to a disk and wait until it is usable; one that is open already is returned."""
        self.note(HeldKind.ACCESS, request.disk_id, disk_id=request.disk_id)
        engine = self.ports.engine
        transfer_id = self.watch.persist(lambda: engine.start_transfer(request), seconds=self.ports.patience.retry)
        self.note(HeldKind.TRANSFER, transfer_id, disk_id=request.disk_id)

        def probe() -> Transfer | None:
            transfer = engine.transfer(transfer_id)
            if lost(transfer):
                words = engine.explain(transfer_id, request.disk_id) or f"it went to phase {transfer.phase!r}."
                raise TransferFailed(disk=disk_name, words=words)
            return transfer if transfer.phase == "transferring" and transfer.ticket else None

        return self.await_engine(
            probe, seconds=self.ports.patience.ready, act=f"open access to disk {disk_name!r}", what=transfer_id
        )

    def end_orders(self, *, among: Sequence[Held] | None = None) -> None:
        """Stop the movers' work; one that cannot be reached stops by itself when its lease is over."""
        for item in self.held(HeldKind.ORDER, among=among):
            self.end_order(item)

    def end_order(self, item: Held) -> None:
        """Stop one order and wait until nothing writes for it any more."""
        mover = self.ports.movers.at(item.host_id)
        try:
            status = mover.cancel(item.ref)
            if not status.state.terminal:
                self.watch.until(
                    lambda: mover.wait(item.ref, after=0, timeout=0).state.terminal or None,
                    seconds=self.ports.patience.ready,
                    act=f"stop order {item.ref}",
                    what=mover.host,
                )
        except OrderUnknown:
            pass  # it never got there
        except MoverUnreachable:
            self.watch.pause(self.ports.patience.lease)
        self.ports.store.held.release(item)

    def end_transfers(
        self, *, success: bool, backup_id: str | None, among: Sequence[Held] | None = None
    ) -> tuple[Transfer, ...]:
        """Close access to all disks and wait until the Manager has closed it; return the last states.

        `backup_id` is the backup that they were opened in, empty when none of this job is open, and None for disks that
        the job made.
        """
        intended, opened = self.held(HeldKind.ACCESS, among=among), self.held(HeldKind.TRANSFER, among=among)
        known = {item.ref for item in opened}
        for item in intended:
            for transfer in self._unknown_transfers(item.disk_id, backup_id):
                if transfer.id not in known:
                    opened = (*opened, self.note(HeldKind.TRANSFER, transfer.id, disk_id=item.disk_id))
        for item in opened:  # all are asked first: the Manager takes its time over each
            self._ask_to_end(item, success=success)
        ended = tuple(self._await_end(item) for item in opened)
        for item in intended:
            self.ports.store.held.release(item)
        return ended

    def end_transfer(self, item: Held, *, success: bool) -> Transfer:
        """Close one transfer and return its last state."""
        self._ask_to_end(item, success=success)
        return self._await_end(item)

    def _ask_to_end(self, item: Held, *, success: bool) -> None:
        engine = self.ports.engine
        if not engine.transfer(item.ref).over:
            (engine.finalize_transfer if success else engine.cancel_transfer)(item.ref)

    def _await_end(self, item: Held) -> Transfer:
        engine = self.ports.engine
        transfer = self.await_engine(
            lambda: _if_over(engine.transfer(item.ref)),
            seconds=self.ports.patience.ready,
            act=f"close access to disk {item.disk_id}",
            what=item.ref,
        )
        self.ports.store.held.release(item)
        return transfer

    def _unknown_transfers(self, disk_id: str, backup_id: str | None) -> tuple[Transfer, ...]:
        """Transfers that were opened just before a crash. Once our backup is over, any on its disks is another's."""
        engine = self.ports.engine
        if backup_id is not None and (not backup_id or engine.backup(self.vm_id, backup_id).phase in BACKUP_OVER):
            return ()
        return tuple(t for t in engine.transfers() if t.disk_id == disk_id and not t.over)

    def end_backup(self, item: Held, *, among: Sequence[Held] = ()) -> None:
        """Finalise a backup and wait until it is over, with its checkpoint and its snapshot written down.

        The Manager tells of the checkpoint only while the backup is ready, and who ends it may die right after; and it
        calls the backup a success also when it could not merge the snapshot.
        """
        engine = self.ports.engine
        # The Manager fails a backup that is finalised before it is ready, and takes longer over it.
        seen = self.await_engine(
            lambda: _if_settled(engine.backup(self.vm_id, item.ref)),
            seconds=self.ports.patience.ready,
            act="get the backup ready, so that it can be ended",
            what=item.ref,
        )
        known = {(one.kind, one.ref) for one in among}
        for kind, ref in ((HeldKind.CHECKPOINT, seen.checkpoint_id), (HeldKind.SNAPSHOT, seen.snapshot_id)):
            if ref and (kind, ref) not in known:
                self.note(kind, ref)
        if seen.phase not in BACKUP_OVER:
            if seen.phase == "ready":
                self._finalize(seen)
            patience = self.ports.patience
            self.await_engine(
                lambda: engine.backup(self.vm_id, item.ref).phase in BACKUP_OVER or None,
                seconds=patience.ready if seen.snapshot_id is None else patience.merge,
                act="end the backup",
                what=item.ref,
            )
        self.ports.store.held.release(item)

    def _finalize(self, seen: BackupSession) -> None:
        """Ask the Manager to end a backup; an access that nobody knows of is closed first when it stands in the way.

        One that was stopped between writing down that it opens an access and opening it does so when it wakes, after
        others have found nothing and written down that it is closed.
        """
        engine = self.ports.engine
        try:
            engine.finalize_backup(self.vm_id, seen.id)
        except Busy:
            strays = [stray for disk_id in seen.modes for stray in self._unknown_transfers(disk_id, seen.id)]
            if not strays:
                raise
            for stray in strays:
                item = self.note(HeldKind.TRANSFER, stray.id, disk_id=stray.disk_id)
                self.ports.store.held.reopen(item)
                self.end_transfer(item, success=False)
            engine.finalize_backup(self.vm_id, seen.id)


def lost(transfer: Transfer) -> bool:
    """Whether a transfer will never be usable again."""
    return transfer.phase.startswith(_ACCESS_LOST)


def _if_over(transfer: Transfer) -> Transfer | None:
    return transfer if transfer.over else None


def _if_settled(session: BackupSession) -> BackupSession | None:
    return session if session.phase not in ("initializing", "starting") else None
