# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup sessions and checkpoints of VMs."""

from __future__ import annotations

import logging
from typing import Any

from ovirtsdk4 import types

from overkeep.engine.api import BackupRequest, BackupSession
from overkeep.engine.errors import BackupFailed, Busy, EngineRefused, NotFoundInEngine
from overkeep.engine.ovirt import values
from overkeep.engine.ovirt.session import Session
from overkeep.engine.ovirt.waits import Patience
from overkeep.logs import fields
from overkeep.model.points import BackupKind, Mode

_log = logging.getLogger(__name__)
_BEGINNING = ("initializing", "starting")
_OVER = ("finalizing", "succeeded", "failed", "gone")
_CHECKPOINT_SECONDS = 300.0
_DESCRIPTION_LIMIT = 1024  # the Manager refuses more


class Backups:
    """Starts, looks at and ends backups; each act may be repeated."""

    def __init__(self, session: Session, *, patience: Patience) -> None:
        self._session = session
        self._patience = patience

    def start(self, request: BackupRequest) -> None:
        """Start a backup unless the Manager knows its id already.

        `legacy` in the query asks for a pull backup of the running VM (or of a VM that is down), which leaves no
        snapshot to be merged; without it Managers take a snapshot, at compatibility level 4.7 and later. One that
        cannot be taken leaves a backup of this id that has failed: then `BackupFailed` has the Manager's reason.
        """
        if self.show(request.vm_id, request.id).phase != "gone":
            return
        backup = types.Backup(
            id=request.id,
            description=request.description[:_DESCRIPTION_LIMIT],
            from_checkpoint_id=request.from_checkpoint,
            disks=[types.Disk(id=disk_id) for disk_id in request.disk_ids],
        )
        try:
            with self._session.system(f"back up VM {request.vm_id}", what=f"VM {request.vm_id}") as system:
                _service(system, request.vm_id).add(
                    backup,
                    require_consistency=request.require_consistency,
                    headers={"Correlation-Id": request.id},
                    query={"legacy": "true"} if request.kind is BackupKind.LEGACY else {},
                )
        except EngineRefused as error:
            phase = self.show(request.vm_id, request.id).phase
            if phase == "gone":
                raise  # otherwise a request of ours that was cut off had arrived after all
            if phase == "failed" and request.kind is BackupKind.HYBRID:
                words = error.fields["words"]
                raise BackupFailed(backup_id=request.id, vm=request.vm_id, words=words) from error
        _log.info("backup started %s", fields(backup=request.id, vm=request.vm_id, disks=len(request.disk_ids)))

    def show(self, vm_id: str, backup_id: str) -> BackupSession:
        """Return a backup; its phase is `gone` when the Manager knows it no longer (or never did)."""
        try:
            with self._session.system(f"show backup {backup_id}", what=f"backup {backup_id}") as system:
                service = _service(system, vm_id).backup_service(backup_id)
                session = _session(service.get())
                if session.phase != "ready":
                    return session
                return BackupSession(
                    id=session.id,
                    phase=session.phase,
                    description=session.description,
                    checkpoint_id=session.checkpoint_id,
                    host_id=session.host_id,
                    snapshot_id=session.snapshot_id,
                    modes={disk.id: _mode(disk) for disk in service.disks_service().list()},
                )
        except NotFoundInEngine:
            return BackupSession(id=backup_id, phase="gone")

    def all(self, vm_id: str) -> tuple[BackupSession, ...]:
        """Return the backups of a VM that the Manager still knows, without modes."""
        with self._session.system(f"list backups of VM {vm_id}", what=f"VM {vm_id}") as system:
            return tuple(_session(found) for found in _service(system, vm_id).list())

    def finalize(self, vm_id: str, backup_id: str) -> None:
        """End a backup; raise `Busy` while it is still beginning or a transfer of it is still open.

        A backup that is not ready yet is left alone: the Manager would mark it as failed and might leave its disks
        locked. A beginning ends by itself, in ready or in failed.
        """
        phase = self.show(vm_id, backup_id).phase
        if phase in _OVER:
            return
        act = f"end backup {backup_id} of VM {vm_id}"
        if phase in _BEGINNING:
            raise Busy(act=act, words=f"the backup is {phase}")
        try:
            with self._session.system(act, what=f"backup {backup_id}") as system:
                _service(system, vm_id).backup_service(backup_id).finalize()
        except EngineRefused:
            if self.show(vm_id, backup_id).phase not in _OVER:
                raise
        _log.info("backup ended %s", fields(backup=backup_id, vm=vm_id))

    def checkpoints(self, vm_id: str) -> tuple[str, ...]:
        """Return the ids of the checkpoints of a VM that the Manager does not call invalid, oldest first."""
        with self._session.system(f"list checkpoints of VM {vm_id}", what=f"VM {vm_id}") as system:
            found = system.vms_service().vm_service(vm_id).checkpoints_service().list()
        valid = [checkpoint for checkpoint in found if values.word(checkpoint.state) != "invalid"]
        if all(checkpoint.creation_date is not None for checkpoint in valid):
            valid.sort(key=lambda checkpoint: checkpoint.creation_date)
        return tuple(checkpoint.id for checkpoint in valid)

    def delete_checkpoint(self, vm_id: str, checkpoint_id: str) -> None:
        """Remove a checkpoint and wait until the Manager no longer lists it."""
        act, what = f"delete checkpoint {checkpoint_id} of VM {vm_id}", f"checkpoint {checkpoint_id}"

        def look() -> tuple[bool | None, str]:
            with self._session.system(act, what=what) as system:
                found = system.vms_service().vm_service(vm_id).checkpoints_service().list()
            state = next((values.word(c.state) or "listed" for c in found if c.id == checkpoint_id), None)
            return (True, "gone") if state is None else (None, state)

        try:
            with self._session.system(act, what=what) as system:
                checkpoints = system.vms_service().vm_service(vm_id).checkpoints_service()
                checkpoints.checkpoint_service(checkpoint_id).remove()
            self._patience.until(look, act, what=what, seconds=_CHECKPOINT_SECONDS)
        except NotFoundInEngine:
            return  # the checkpoint or its VM is gone
        _log.info("checkpoint deleted %s", fields(checkpoint=checkpoint_id, vm=vm_id))


def _service(system: Any, vm_id: str) -> Any:
    return system.vms_service().vm_service(vm_id).backups_service()


def _session(found: Any) -> BackupSession:
    phase = values.word(found.phase) or "unknown"
    return BackupSession(
        id=found.id,
        phase=phase,
        description=found.description or "",
        # given earlier it may name a checkpoint that never comes to be
        checkpoint_id=(found.to_checkpoint_id or None) if phase == "ready" else None,
        host_id=values.link_id(found.host) or None,
        snapshot_id=values.link_id(found.snapshot) or None,
    )


def _mode(disk: Any) -> Mode:
    return Mode.INCREMENTAL if values.word(disk.backup_mode) == "incremental" else Mode.FULL
