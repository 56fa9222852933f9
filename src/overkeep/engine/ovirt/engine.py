# SPDX-License-Identifier: GPL-3.0-or-later
"""The port to the Manager, made of its parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType

from overkeep.config import EngineConfig
from overkeep.engine.api import (
    BackupRequest,
    BackupSession,
    DiskSpec,
    Engine,
    Transfer,
    TransferRequest,
    VmConfiguration,
    VmSpec,
)
from overkeep.engine.ovirt.backups import Backups
from overkeep.engine.ovirt.disks import Disks
from overkeep.engine.ovirt.document import Configurations
from overkeep.engine.ovirt.events import Events
from overkeep.engine.ovirt.guests import Guests
from overkeep.engine.ovirt.inventory import Inventory
from overkeep.engine.ovirt.session import Session
from overkeep.engine.ovirt.snapshots import Snapshots
from overkeep.engine.ovirt.transfers import Transfers
from overkeep.engine.ovirt.vms import Vms
from overkeep.engine.ovirt.waits import Patience
from overkeep.model.inventory import Host, Place, Vm
from overkeep.model.selection import Candidate


class OvirtEngine(Engine):
    """oVirt, RHV and OLVM through the SDK; see `overkeep.engine.api.Engine`. May be used by several threads.

    It connects when it is first used. Use as a context manager, or call `close`, to log out.
    """

    def __init__(self, settings: EngineConfig, *, patience: Patience | None = None) -> None:
        patience = patience or Patience()
        self._session = Session(settings)
        self._inventory = Inventory(self._session)
        self._configurations = Configurations(self._session, patience=patience)
        self._backups = Backups(self._session, patience=patience)
        self._snapshots = Snapshots(self._session)
        self._transfers = Transfers(self._session)
        self._disks = Disks(self._session, patience=patience)
        self._vms = Vms(self._session, self._inventory, patience=patience)
        self._guests = Guests(self._session)
        self._events = Events(self._session)

    def __enter__(self) -> OvirtEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def test(self) -> str:
        return self._inventory.version()

    def vm(self, vm_id: str) -> Vm:
        return self._inventory.vm(vm_id)

    def find_vm(self, name_or_id: str) -> Vm:
        return self._inventory.find_vm(name_or_id)

    def vms(self) -> tuple[Vm, ...]:
        return self._inventory.vms()

    def places(self, vm_ids: Sequence[str]) -> Mapping[str, Place]:
        return self._inventory.places(vm_ids)

    def candidates(self, tags: Collection[str]) -> tuple[Candidate, ...]:
        return self._inventory.candidates(tags)

    def hosts(self) -> tuple[Host, ...]:
        return self._inventory.hosts()

    def hosts_seeing(self, storage_domain_id: str) -> tuple[Host, ...]:
        return self._inventory.hosts_seeing(storage_domain_id)

    def configuration(self, vm_id: str) -> VmConfiguration:
        return self._configurations.read(vm_id)

    def checkpoints(self, vm_id: str) -> tuple[str, ...]:
        return self._backups.checkpoints(vm_id)

    def delete_checkpoint(self, vm_id: str, checkpoint_id: str) -> None:
        self._backups.delete_checkpoint(vm_id, checkpoint_id)

    def freeze(self, vm_id: str) -> None:
        self._guests.freeze(vm_id)

    def thaw(self, vm_id: str) -> None:
        self._guests.thaw(vm_id)

    def start_backup(self, request: BackupRequest) -> None:
        self._backups.start(request)

    def backup(self, vm_id: str, backup_id: str) -> BackupSession:
        return self._backups.show(vm_id, backup_id)

    def backups(self, vm_id: str) -> tuple[BackupSession, ...]:
        return self._backups.all(vm_id)

    def finalize_backup(self, vm_id: str, backup_id: str) -> None:
        self._backups.finalize(vm_id, backup_id)

    def snapshot_status(self, vm_id: str, snapshot_id: str) -> str | None:
        return self._snapshots.status(vm_id, snapshot_id)

    def delete_snapshot(self, vm_id: str, snapshot_id: str) -> None:
        self._snapshots.delete(vm_id, snapshot_id)

    def start_transfer(self, request: TransferRequest) -> str:
        return self._transfers.start(request)

    def transfer(self, transfer_id: str) -> Transfer:
        return self._transfers.show(transfer_id)

    def transfers(self) -> tuple[Transfer, ...]:
        return self._transfers.all()

    def finalize_transfer(self, transfer_id: str) -> None:
        self._transfers.finalize(transfer_id)

    def cancel_transfer(self, transfer_id: str) -> None:
        self._transfers.cancel(transfer_id)

    def create_disk(self, spec: DiskSpec) -> None:
        self._disks.create(spec)

    def disk_status(self, disk_id: str) -> str | None:
        return self._disks.status(disk_id)

    def delete_disk(self, disk_id: str) -> None:
        self._disks.delete(disk_id)

    def create_vm(self, spec: VmSpec) -> str:
        return self._vms.create(spec)

    def find_marked_vm(self, name: str, description: str) -> str | None:
        return self._vms.find_marked(name, description=description)

    def start_vm(self, vm_id: str) -> None:
        self._vms.start(vm_id)

    def delete_vm(self, vm_id: str, *, detach_only: bool) -> None:
        self._vms.delete(vm_id, detach_only=detach_only)

    def storage_domains(self, *, cluster_id: str | None = None) -> Mapping[str, str]:
        return self._inventory.storage_domains(cluster_id=cluster_id)

    def clusters(self) -> Mapping[str, str]:
        return self._inventory.clusters()

    def vnic_profiles(self, *, cluster_id: str | None = None) -> Mapping[str, str]:
        return self._inventory.vnic_profiles(cluster_id=cluster_id)

    def post_event(self, severity: str, text: str, *, number: int, vm_id: str | None = None) -> None:
        self._events.post(severity, text, number=number, vm_id=vm_id)

    def explain(self, *ids: str) -> str:
        return self._events.explain(ids)

    def close(self) -> None:
        self._session.close()
