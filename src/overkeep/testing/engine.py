# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-memory twin of the Manager: keeps its locks and phases, and fails on the n-th call when it is told to."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from overkeep.engine import ovf
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
from overkeep.engine.errors import (
    AmbiguousName,
    Busy,
    CheckpointInvalid,
    DiskInUse,
    EngineRefused,
    EventNumberTaken,
    GuestNotFrozen,
    GuestNotThawed,
    NameInUse,
    NoSuchVm,
    NotFoundInEngine,
    NotReadyInTime,
    VmLocked,
)
from overkeep.errors import OverkeepError
from overkeep.model.inventory import Disk, DiskFormat, Host, Place, Vm, VmStatus
from overkeep.model.points import BackupKind, Mode
from overkeep.model.selection import Candidate
from overkeep.testing.engine_world import EngineWorld, MemoryBackup, MemoryTransfer

_P = ParamSpec("_P")
_R = TypeVar("_R")

_NEXT_BACKUP = {"initializing": "starting", "starting": "ready", "finalizing": "succeeded"}
_NEXT_TRANSFER = {
    "initializing": "transferring",
    "resuming": "transferring",
    "finalizing_success": "finished_success",
    "finalizing_cleanup": "finished_cleanup",
    "finished_cleanup": "finished_failure",
}


def _call(method: Callable[Concatenate[MemoryEngine, _P], _R]) -> Callable[Concatenate[MemoryEngine, _P], _R]:
    """Make a method of the port one call: alone at a time, recorded, and failing when it was told to."""

    @functools.wraps(method)
    def counted(self: MemoryEngine, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self._lock:
            self.calls.append(method.__name__)
            with self._faulty(method.__name__):
                return method(self, *args, **kwargs)

    return counted


class MemoryEngine(EngineWorld, Engine):
    """The port; what tests do to it is in `EngineWorld`. May be used by several threads."""

    @_call
    def test(self) -> str:
        return "4.5.7"

    @_call
    def vm(self, vm_id: str) -> Vm:
        return self._seen(vm_id)

    @_call
    def find_vm(self, name_or_id: str) -> Vm:
        found = [vm.id for vm in self._vms.values() if vm.id == name_or_id]
        found = found or [vm.id for vm in self._vms.values() if vm.name == name_or_id]
        if not found:
            raise NoSuchVm(name=name_or_id)
        if len(found) > 1:
            raise AmbiguousName(count=len(found), name=name_or_id, ids=", ".join(found))
        return self._seen(found[0])

    @_call
    def vms(self) -> tuple[Vm, ...]:
        return tuple(dataclasses.replace(vm, disks=(), nics=()) for vm in self._vms.values())

    @_call
    def places(self, vm_ids: Sequence[str]) -> Mapping[str, Place]:
        names = {host.id: host.name for host in self.known_hosts}
        known = [self._vms[vm_id] for vm_id in vm_ids if vm_id in self._vms]
        return {vm.id: Place.of(names.get(vm.host_id, ""), vm.disks) for vm in known}

    @_call
    def candidates(self, tags: Collection[str]) -> tuple[Candidate, ...]:
        return tuple(
            Candidate(
                id=vm.id,
                name=vm.name,
                cluster=vm.cluster,
                tags=frozenset(tag for tag in tags if fnmatch.filter(self._tags.get(vm.id, ()), tag)),
                properties=self._properties.get(vm.id, {}),
            )
            for vm in self._vms.values()
        )

    @_call
    def hosts(self) -> tuple[Host, ...]:
        return tuple(self.known_hosts)

    @_call
    def hosts_seeing(self, storage_domain_id: str) -> tuple[Host, ...]:
        if storage_domain_id not in self.known_domains.values():
            return ()
        blind = self.blind_hosts.get(storage_domain_id, ())
        return tuple(host for host in self.known_hosts if host.status == "up" and host.id not in blind)

    @_call
    def configuration(self, vm_id: str) -> VmConfiguration:
        vm = self._seen(vm_id)
        if any(disk.locked for disk in vm.disks):
            raise NotReadyInTime(act=f"give the OVF of VM {vm_id}", what=f"VM {vm_id}", seconds=60, seen="no OVF")
        return VmConfiguration(ovf=self._ovfs[vm_id], document=_document(vm))

    @_call
    def checkpoints(self, vm_id: str) -> tuple[str, ...]:
        self._vm(vm_id)
        return tuple(self._checkpoints.get(vm_id, ()))

    @_call
    def delete_checkpoint(self, vm_id: str, checkpoint_id: str) -> None:
        if checkpoint_id in self._checkpoints.get(vm_id, ()):
            self._refuse_if_locked(vm_id, f"delete checkpoint {checkpoint_id}")
            del self._checkpoints[vm_id][checkpoint_id]
            if checkpoint_id in self._useless and self._vms[vm_id].status is VmStatus.UP:
                self._checkpoints[vm_id].clear()  # its host cannot be told of it, and the Manager gives all of them up

    @_call
    def freeze(self, vm_id: str) -> None:
        act = f"freeze the file systems of VM {vm_id}"
        if self._vm(vm_id).status is not VmStatus.UP:
            raise Busy(act=act, words="The VM is not up.")
        if vm_id in self.mute or vm_id in self.frozen:
            words = "Guest agent non responsive." if vm_id in self.mute else "Unable to freeze guest filesystems."
            raise GuestNotFrozen(act=act, words=words)
        self.frozen.add(vm_id)
        self.guest_log.append(("freeze", vm_id))

    @_call
    def thaw(self, vm_id: str) -> None:
        vm = self._vms.get(vm_id)
        if vm is None or vm.status is VmStatus.DOWN:
            self.frozen.discard(vm_id)
            return
        if vm_id in self.mute:
            act = f"thaw the file systems of VM {vm_id}"
            raise GuestNotThawed(act=act, vm_id=vm_id, words="Guest agent non responsive.")
        self.frozen.discard(vm_id)
        self.guest_log.append(("thaw", vm_id))

    @_call
    def start_backup(self, request: BackupRequest) -> None:
        if request.id in self._backups:
            return
        vm, act = self._vm(request.vm_id), f"back up VM {request.vm_id}"
        self._refuse_if_locked(vm.id, act)
        disks = {disk.id: disk for disk in vm.disks if disk.id in request.disk_ids}
        if set(request.disk_ids) - set(disks):
            raise EngineRefused(act=act, words="Cannot backup VM. The disk does not belong to it.")
        if vm.status not in (VmStatus.UP, VmStatus.DOWN):
            raise Busy(act=act, words="Cannot backup VM. The Virtual Machine should be in Up or Down status.")
        known = self._checkpoints.setdefault(vm.id, {})
        base = known.get(request.from_checkpoint, frozenset()) if request.from_checkpoint else frozenset()
        if request.from_checkpoint and request.from_checkpoint not in known:
            raise CheckpointInvalid(act=act, words=f"Checkpoint ID {request.from_checkpoint} doesn't exist.")
        tracked = frozenset(disk.id for disk in disks.values() if disk.format is DiskFormat.COW)
        modes = {disk_id: Mode.INCREMENTAL if disk_id in base & tracked else Mode.FULL for disk_id in request.disk_ids}
        hybrid = request.kind is BackupKind.HYBRID and self.makes_hybrid
        checkpoint = str(uuid.uuid4()) if tracked or hybrid else None
        if checkpoint:
            known[checkpoint] = tracked
        backup = self._backups[request.id] = MemoryBackup(request, checkpoint, modes)
        if hybrid:
            backup.snapshot_id = self.take_snapshot(vm.id)

    @_call
    def backup(self, vm_id: str, backup_id: str) -> BackupSession:
        backup = self._backups.get(backup_id)
        if backup is None or backup.request.vm_id != vm_id:
            return BackupSession(id=backup_id, phase="gone")
        shown = self._session(backup)
        if backup.phase == "starting" and vm_id in self.slow:
            return shown
        was, backup.phase = backup.phase, _NEXT_BACKUP.get(backup.phase, backup.phase)
        if was == "starting":
            self._begin(backup)
        elif was == "finalizing" and backup.snapshot_id is not None:
            self._merge(backup.snapshot_id)
        return shown

    @_call
    def backups(self, vm_id: str) -> tuple[BackupSession, ...]:
        return tuple(self._session(backup) for backup in self._backups.values() if backup.request.vm_id == vm_id)

    @_call
    def finalize_backup(self, vm_id: str, backup_id: str) -> None:
        backup = self._backups.get(backup_id)
        if backup is None or backup.phase in ("finalizing", "succeeded", "failed"):
            return
        act = f"end backup {backup_id} of VM {vm_id}"
        if backup.phase != "ready":
            raise Busy(act=act, words=f"the backup is {backup.phase}")
        if any(transfer.open and transfer.request.backup_id == backup_id for transfer in self._transfers.values()):
            raise Busy(act=act, words="There is an active image transfer for VM backup.")
        backup.phase = "finalizing"

    @_call
    def snapshot_status(self, vm_id: str, snapshot_id: str) -> str | None:
        snapshot = self._snapshots.get(snapshot_id)
        if snapshot is None or vm_id not in self._vms:
            return None
        shown = snapshot.status
        if shown == "locked":
            self._merge(snapshot_id)
        return shown

    @_call
    def delete_snapshot(self, vm_id: str, snapshot_id: str) -> None:
        if vm_id in self._vms and snapshot_id in self._snapshots:
            self._refuse_if_locked(vm_id, f"remove snapshot {snapshot_id}")
            self._snapshots[snapshot_id].status = "locked"

    @_call
    def start_transfer(self, request: TransferRequest) -> str:
        act = f"open access to disk {request.disk_id}"
        for transfer_id, transfer in self._transfers.items():
            if transfer.open and transfer.request.disk_id == request.disk_id:
                if transfer.request.upload is not request.upload:
                    raise VmLocked(act=act, words="Cannot transfer Virtual Disk: Disk is locked.")
                if transfer.phase == "paused_system":
                    transfer.resume()
                return transfer_id
        if request.backup_id:
            backup = self._backups.get(request.backup_id)
            if backup is None or backup.phase != "ready":
                raise Busy(act=act, words="Cannot transfer Virtual Disk. The VM backup is not ready, try again.")
        elif self._status(request.disk_id) is None:
            raise NotFoundInEngine(act=act, what=f"disk {request.disk_id}", words="")
        if request.upload:
            self._illegal.add(request.disk_id)
        transfer_id = str(uuid.uuid4())
        self._transfers[transfer_id] = MemoryTransfer(request, self._host_for(request), self._first_phase(request))
        return transfer_id

    def _first_phase(self, request: TransferRequest) -> str:
        backup = self._backups.get(request.backup_id or "")
        tracked = backup is not None and backup.modes.get(request.disk_id) is Mode.INCREMENTAL
        return "finished_failure" if tracked and request.disk_id in self._broken else "initializing"

    @_call
    def transfer(self, transfer_id: str) -> Transfer:
        transfer = self._transfers.get(transfer_id)
        if transfer is None:
            return Transfer(id=transfer_id, disk_id="", phase="gone")
        shown = _shown(transfer_id, transfer)
        transfer.phase = _NEXT_TRANSFER.get(transfer.phase, transfer.phase)
        if transfer.phase == "finished_success":
            self._illegal.discard(transfer.request.disk_id)
        return shown

    @_call
    def transfers(self) -> tuple[Transfer, ...]:
        return tuple(_shown(transfer_id, transfer) for transfer_id, transfer in self._transfers.items())

    @_call
    def finalize_transfer(self, transfer_id: str) -> None:
        transfer = self._transfers.get(transfer_id)
        if transfer is not None and transfer.open:
            transfer.phase = "finalizing_success"

    @_call
    def cancel_transfer(self, transfer_id: str) -> None:
        transfer = self._transfers.get(transfer_id)
        if transfer is not None and transfer.open:
            transfer.phase = "finalizing_cleanup"
            if transfer.request.upload:
                self._drop_disk(transfer.request.disk_id)

    @_call
    def create_disk(self, spec: DiskSpec) -> None:
        if self._status(spec.id) is not None:
            if self._marks.get(spec.id, "") != spec.description:
                raise DiskInUse(disk=spec.name, words="another one already has its id", act="make a disk")
            return
        names = {domain_id: name for name, domain_id in self.known_domains.items()}
        if spec.storage_domain_id not in names:
            what = f"storage domain {spec.storage_domain_id}"
            raise NotFoundInEngine(act=f"make disk {spec.name}", what=what, words="")
        self._marks[spec.id] = spec.description
        self._floating[spec.id] = Disk(
            id=spec.id,
            name=spec.name,
            size=spec.size,
            format=spec.format,
            sparse=spec.sparse,
            tracks_changes=spec.tracks_changes,
            storage_domain_id=spec.storage_domain_id,
            storage_domain=names[spec.storage_domain_id],
        )

    @_call
    def disk_status(self, disk_id: str) -> str | None:
        return self._status(disk_id)

    @_call
    def delete_disk(self, disk_id: str) -> None:
        if self._status(disk_id) == "locked":
            raise VmLocked(act=f"delete disk {disk_id}", words="Cannot remove Virtual Disk: Disk is locked.")
        self._drop_disk(disk_id)

    @_call
    def create_vm(self, spec: VmSpec) -> str:
        namesake = next((vm for vm in self._vms.values() if vm.name == spec.name), None)
        if namesake is not None and self._marks.get(namesake.id, "") != spec.description:
            raise NameInUse(name=spec.name, act="make a VM", words="the name is in use")
        if spec.cluster_id not in self.known_clusters.values():
            what = f"cluster {spec.cluster_id}"
            raise NotFoundInEngine(act=f"make VM {spec.name}", what=what, words="")
        text = ovf.of_new_vm(
            spec.ovf, description=spec.description, storage_domain_ids=set(self.known_domains.values())
        )
        vm = namesake or Vm(
            id=str(uuid.uuid4()),
            name=spec.name,
            status=VmStatus.DOWN,
            cluster_id=spec.cluster_id,
            cluster=next(name for name, known in self.known_clusters.items() if known == spec.cluster_id),
        )
        self._marks[vm.id] = spec.description
        self._ovfs[vm.id] = text
        self._vms[vm.id] = vm
        try:
            self._complete(vm, spec)
        except OverkeepError as error:
            error.fields["vm_id"] = vm.id
            raise
        return vm.id

    @_call
    def find_marked_vm(self, name: str, description: str) -> str | None:
        return next((vm.id for vm in self.named(name) if self._marks.get(vm.id, "") == description), None)

    @_call
    def start_vm(self, vm_id: str) -> None:
        vm = self._vm(vm_id)
        if vm.status is not VmStatus.UP:
            if any(backup.locks for backup in self._active(vm_id)) or vm_id in self._held:
                self._refuse_if_locked(vm_id, f"start VM {vm_id}")
            self._vms[vm_id] = dataclasses.replace(vm, status=VmStatus.UP, host_id=self.known_hosts[0].id)

    @_call
    def delete_vm(self, vm_id: str, *, detach_only: bool) -> None:
        vm = self._vms.get(vm_id)
        if vm is None:
            return
        self._refuse_if_locked(vm_id, f"delete VM {vm_id}")
        if vm.status is not VmStatus.DOWN:
            raise EngineRefused(act=f"delete VM {vm_id}", words="Cannot remove VM. VM is running.")
        del self._vms[vm_id]
        if detach_only:
            self._floating |= {disk.id: disk for disk in vm.disks}

    @_call
    def storage_domains(self, *, cluster_id: str | None = None) -> Mapping[str, str]:
        return dict(self.known_domains)

    @_call
    def clusters(self) -> Mapping[str, str]:
        return dict(self.known_clusters)

    @_call
    def vnic_profiles(self, *, cluster_id: str | None = None) -> Mapping[str, str]:
        return dict(self.known_profiles)

    @_call
    def post_event(self, severity: str, text: str, *, number: int, vm_id: str | None = None) -> None:
        if vm_id is not None and vm_id not in self._vms:
            raise EngineRefused(act="write an event", words=f"The vm {vm_id} does not exist.")
        there = self._numbers.get(number)
        if there is None:
            self._numbers[number] = text
            self.events.append((severity, text, vm_id))
        elif there != text:
            raise EventNumberTaken(number=number)

    @_call
    def explain(self, *ids: str) -> str:
        return " ".join(self.told[wanted] for wanted in ids if wanted in self.told)

    @_call
    def close(self) -> None:
        """Nothing is open."""


def _shown(transfer_id: str, transfer: MemoryTransfer) -> Transfer:
    return Transfer(
        id=transfer_id,
        disk_id=transfer.request.disk_id,
        phase=transfer.phase,
        host_id=transfer.host_id,
        ticket=transfer.ticket if transfer.phase == "transferring" else "",
    )


def _document(vm: Vm) -> dict[str, object]:
    return {
        "version": 1,
        "vm": {"id": vm.id, "name": vm.name},
        "cluster": {"id": vm.cluster_id, "name": vm.cluster},
        "nics": [
            {
                "name": nic.name,
                "mac": nic.mac,
                "interface": nic.interface,
                "vnic_profile": {"id": nic.vnic_profile_id, "name": nic.vnic_profile},
                "network": {"name": nic.network},
            }
            for nic in vm.nics
        ],
    }
