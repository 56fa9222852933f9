# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that a restore makes."""

from __future__ import annotations

import logging
from typing import Any

from ovirtsdk4 import types

from overkeep.engine.api import DiskSpec
from overkeep.engine.errors import DiskInUse, EngineRefused, NotFoundInEngine
from overkeep.engine.ovirt import values
from overkeep.engine.ovirt.session import Session
from overkeep.engine.ovirt.waits import Patience
from overkeep.logs import fields
from overkeep.model.inventory import DiskFormat

_log = logging.getLogger(__name__)
_BLOCK_STORAGE = {"iscsi", "fcp"}
_READY_SECONDS = 3600.0  # a preallocated disk of some TiB takes its time


class Disks:
    """Makes, looks at and deletes disks; each act may be repeated."""

    def __init__(self, session: Session, *, patience: Patience) -> None:
        self._session = session
        self._patience = patience

    def create(self, spec: DiskSpec) -> None:
        """Make a disk unless it is there, and wait until the Manager has finished it."""
        act, what = f"make disk {spec.name} ({spec.id})", f"disk {spec.name}"
        if not self._is_there(spec):
            try:
                with self._session.system(act, what=f"storage domain {spec.storage_domain_id}") as system:
                    block = _is_on_blocks(system, spec.storage_domain_id)
                    system.disks_service().add(_body(spec, block=block), headers={"Correlation-Id": spec.id})
            except EngineRefused:
                if not self._is_there(spec):
                    raise  # otherwise a request of ours that was cut off had arrived after all
            _log.info("disk made %s", fields(disk=spec.id, size=spec.size, storage_domain=spec.storage_domain_id))

        def look() -> tuple[str | None, str]:
            status = self.status(spec.id)
            if status is None:
                raise NotFoundInEngine(act=act, what=what, words="the disk vanished while it was made")
            # `illegal` is how a disk looks whose upload was begun and broken off: it is there, and can be filled
            return (status, status) if status != "locked" else (None, status)

        self._patience.until(look, act, what=what, seconds=_READY_SECONDS)

    def status(self, disk_id: str) -> str | None:
        """Return the Manager's word for the state of a disk, None when there is no such disk."""
        found = self._get(disk_id)
        return None if found is None else values.word(found.status) or "ok"

    def delete(self, disk_id: str) -> None:
        """Delete a disk; a missing one is success. Does not wait."""
        try:
            with self._session.system(f"delete disk {disk_id}", what=f"disk {disk_id}") as system:
                system.disks_service().disk_service(disk_id).remove()
        except NotFoundInEngine:
            return
        _log.info("disk deleted %s", fields(disk=disk_id))

    def _is_there(self, spec: DiskSpec) -> bool:
        found = self._get(spec.id)
        if found is None:
            return False
        if (found.description or "") != spec.description:
            raise DiskInUse(disk=spec.name, words="another one already has its id", act="make a disk")
        return True

    def _get(self, disk_id: str) -> Any:
        try:
            with self._session.system(f"show disk {disk_id}", what=f"disk {disk_id}") as system:
                return system.disks_service().disk_service(disk_id).get()
        except NotFoundInEngine:
            return None


def _is_on_blocks(system: Any, domain_id: str) -> bool:
    storage = system.storage_domains_service().storage_domain_service(domain_id).get().storage
    return storage is not None and values.word(storage.type) in _BLOCK_STORAGE


def _body(spec: DiskSpec, *, block: bool) -> Any:
    """Write what the Manager takes: on block storage raw is never sparse, and a thin QCOW2 does not grow by itself
    while it is filled through an image transfer, so its room is made ready."""
    thin_on_blocks = block and spec.sparse and spec.format is DiskFormat.COW
    return types.Disk(
        id=spec.id,
        name=spec.name,
        description=spec.description,
        format=types.DiskFormat.COW if spec.format is DiskFormat.COW else types.DiskFormat.RAW,
        provisioned_size=spec.size,
        initial_size=(spec.initial_size if spec.initial_size is not None else spec.size) if thin_on_blocks else None,
        sparse=spec.sparse and not (block and spec.format is DiskFormat.RAW),
        backup=types.DiskBackup.INCREMENTAL if spec.tracks_changes else types.DiskBackup.NONE,
        storage_domains=[types.StorageDomain(id=spec.storage_domain_id)],
    )
