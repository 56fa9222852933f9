# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of VMs, as far as backups leave some."""

from __future__ import annotations

import logging

from overkeep.engine.errors import NotFoundInEngine
from overkeep.engine.ovirt import values
from overkeep.engine.ovirt.session import Session
from overkeep.logs import fields

_log = logging.getLogger(__name__)


class Snapshots:
    """Looks at snapshots and has them merged away."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def status(self, vm_id: str, snapshot_id: str) -> str | None:
        """Return its status in the Manager's word, None when it or its VM is gone."""
        act = f"show snapshot {snapshot_id} of VM {vm_id}"
        try:
            with self._session.system(act, what=f"snapshot {snapshot_id}") as system:
                snapshots = system.vms_service().vm_service(vm_id).snapshots_service()
                return values.word(snapshots.snapshot_service(snapshot_id).get().snapshot_status) or "unknown"
        except NotFoundInEngine:
            return None

    def delete(self, vm_id: str, snapshot_id: str) -> None:
        """Start its removal."""
        act = f"remove snapshot {snapshot_id} of VM {vm_id}"
        try:
            with self._session.system(act, what=f"snapshot {snapshot_id}") as system:
                system.vms_service().vm_service(vm_id).snapshots_service().snapshot_service(snapshot_id).remove()
        except NotFoundInEngine:
            return
        _log.info("snapshot removal begun %s", fields(snapshot=snapshot_id, vm=vm_id))
