# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests ask the Manager directly, with its own SDK: the judge of what the product left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ovirtsdk4 as sdk
from ovirtsdk4 import types

from demo.deployment import Lab, wait_until

TRANSFER_OVER = ("finished_success", "finished_failure")


class Manager:
    """One connection to the lab's Engine."""

    def __init__(self, lab: Lab) -> None:
        facts = lab.facts
        self._lab = lab
        self.connection = sdk.Connection(
            url=facts["engine_url"], username=facts["username"], password=facts["password"], ca_file=facts["ca_file"]
        )
        self.system = self.connection.system_service()

    def vm(self, name: str) -> Any:
        """The VM of this name, or None."""
        found = self.system.vms_service().list(search=f"name={name}")
        return found[0] if found else None

    def vm_service(self, name: str) -> Any:
        """The SDK's service of the VM of this name."""
        return self.system.vms_service().vm_service(self.vm(name).id)

    def start(self, vm: str) -> None:
        """Start a VM and wait until it is up."""
        service = self.vm_service(vm)
        service.start()
        wait_until(lambda: service.get().status == types.VmStatus.UP, what=f"the start of {vm}")

    def stop(self, vm: str) -> None:
        """Power a VM off and wait until it is down."""
        service = self.vm_service(vm)
        service.stop()
        wait_until(lambda: service.get().status == types.VmStatus.DOWN, what=f"the end of {vm}")

    def disks(self, vm: str) -> list[Any]:
        """The disks of a VM, the bootable one first."""
        attachments = self.vm_service(vm).disk_attachments_service().list()
        attachments.sort(key=lambda a: (not a.bootable, a.id))
        disks = self.system.disks_service()
        return [disks.disk_service(a.disk.id).get() for a in attachments]

    def volume(self, disk: Any) -> Path:
        """The file of a disk on the lab's storage domain."""
        (path,) = (self._lab.directory / "storage").glob(f"**/images/{disk.id}/{disk.image_id}")
        return path

    def locked(self) -> list[str]:
        """Names of the disks that are locked now."""
        return [d.name for d in self.system.disks_service().list() if d.status == types.DiskStatus.LOCKED]

    def open_things(self) -> list[str]:
        """All backups and transfers that have not ended, and locked disks, in words."""
        found = [f"disk {name} is locked" for name in self.locked()]
        for vm in self.system.vms_service().list():
            backups = self.system.vms_service().vm_service(vm.id).backups_service().list()
            found += [f"backup {b.id} of {vm.name}: {b.phase}" for b in backups if str(b.phase) not in _BACKUP_OVER]
        transfers = self.system.image_transfers_service().list()
        return found + [f"transfer {t.id}: {t.phase}" for t in transfers if str(t.phase) not in TRANSFER_OVER]

    def checkpoints(self, vm: str) -> list[str]:
        """Ids of the checkpoints of a VM."""
        return [c.id for c in self.vm_service(vm).checkpoints_service().list()]

    @contextmanager
    def foreign_backup(self, vm: str) -> Iterator[str]:
        """Somebody else's live backup of a VM, ready for as long as the block lasts."""
        backups = self.vm_service(vm).backups_service()
        disks = [types.Disk(id=disk.id) for disk in self.disks(vm)]
        backup = backups.add(types.Backup(disks=disks, description="another program"), query={"legacy": "true"})
        service = backups.backup_service(backup.id)
        ready = types.BackupPhase.READY
        wait_until(lambda: service.get().phase == ready, what="the other backup")
        try:
            yield backup.id
        finally:
            service.finalize()
            over = types.BackupPhase.SUCCEEDED
            wait_until(lambda: service.get().phase == over, what="the end of the other backup")


_BACKUP_OVER = ("succeeded", "failed")
