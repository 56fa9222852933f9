# SPDX-License-Identifier: GPL-3.0-or-later
"""What the in-memory Manager knows, what tests do to it from outside, and the rules it keeps."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from overkeep.engine.api import BackupRequest, BackupSession, NicSpec, TransferRequest, VmSpec
from overkeep.engine.errors import NotFoundInEngine, VmLocked
from overkeep.model.inventory import Disk, Host, Nic, Vm, VmStatus
from overkeep.model.points import Mode

EMPTY_OVF = (
    '<ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/"><References/>'
    '<Content ovf:id="out"><Name>x</Name></Content></ovf:Envelope>'
)


@dataclass
class MemoryBackup:
    """A backup; the checkpoint is the one it makes."""

    request: BackupRequest
    checkpoint_id: str | None
    modes: dict[str, Mode]
    phase: str = "initializing"
    snapshot_id: str | None = None

    @property
    def active(self) -> bool:
        """Whether it holds its disks."""
        return self.phase not in ("succeeded", "failed")

    @property
    def locks(self) -> bool:
        """Whether its disks are locked: not those of one that reads a snapshot."""
        return self.active and self.snapshot_id is None


@dataclass
class MemorySnapshot:
    """What a backup froze of a VM."""

    vm_id: str
    status: str = "ok"


def _new_id() -> str:
    return str(uuid.uuid4())


@dataclass
class MemoryTransfer:
    """A transfer, on its host; it gets another ticket when it is resumed."""

    request: TransferRequest
    host_id: str
    phase: str = "initializing"
    ticket: str = field(default_factory=_new_id)

    def resume(self) -> None:
        """Go on after a pause."""
        self.phase, self.ticket = "resuming", _new_id()

    @property
    def open(self) -> bool:
        """Whether it has not been ended."""
        return self.phase in ("initializing", "resuming", "transferring", "paused_system")


@dataclass
class Fault:
    """An error that waits for its call."""

    error: BaseException
    calls_left: int
    after: bool


class EngineWorld:
    """A Manager with one host, one cluster and one storage domain, to which tests add VMs with `add_vm`.

    A look at a backup or a transfer moves it one phase on, as a poll of the Manager would find it. `calls` names the
    calls of the port in their order; `events` are those written into the Manager's log.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.events: list[tuple[str, str, str | None]] = []
        self._numbers: dict[int, str] = {}  # of the events, with their texts
        self.told: dict[str, str] = {}  # id -> what `explain` says of it
        self.known_hosts = [Host(id="host-1", name="host1", address="127.0.0.1", status="up")]
        self.known_clusters = {"Default": "cluster-1"}
        self.known_domains = {"data1": "domain-1"}
        self.blind_hosts: dict[str, set[str]] = {}  # storage domain -> hosts that do not reach it
        self.known_profiles = {"ovirtmgmt/ovirtmgmt": "profile-1"}
        self.mute: set[str] = set()  # VMs whose guests have no agent
        self.slow: set[str] = set()  # VMs whose backups stay in their beginning
        self.makes_hybrid = True  # newer Managers do
        self.failing_merges: dict[str, int] = {}  # VM -> how many merges of its snapshots fail
        self.frozen: set[str] = set()  # VMs whose guests hold still
        self.guest_log: list[tuple[str, str]] = []  # `freeze`, `thaw` and `begin` of a backup, with the VM
        self._lock = threading.RLock()
        self._faults: dict[str, list[Fault]] = {}
        self._vms: dict[str, Vm] = {}
        self._ovfs: dict[str, str] = {}
        self._tags: dict[str, tuple[str, ...]] = {}
        self._properties: dict[str, dict[str, str]] = {}
        self._marks: dict[str, str] = {}  # id of a disk or VM -> description
        self._floating: dict[str, Disk] = {}
        self._illegal: set[str] = set()
        self._broken: set[str] = set()  # disks whose bitmaps are of no use
        self._useless: set[str] = set()  # checkpoints that rely on such bitmaps
        self._held: dict[str, str] = {}  # VM locked by somebody else -> words
        self._checkpoints: dict[str, dict[str, frozenset[str]]] = {}
        self._backups: dict[str, MemoryBackup] = {}
        self._snapshots: dict[str, MemorySnapshot] = {}
        self._transfers: dict[str, MemoryTransfer] = {}
        self._macs = (f"56:6f:00:00:{number >> 8:02x}:{number & 255:02x}" for number in itertools.count())

    # what tests do to it

    def add_vm(self, vm: Vm, *, ovf_text: str = EMPTY_OVF) -> Vm:
        """Put a VM there, with its disks."""
        self._vms[vm.id], self._ovfs[vm.id] = vm, ovf_text
        return vm

    def describe(self, vm_id: str, *, tags: tuple[str, ...] = (), **properties: str) -> None:
        """Give a VM tags, with those above them, and custom properties."""
        self._tags[vm_id], self._properties[vm_id] = tags, properties

    def set_status(self, vm_id: str, status: VmStatus) -> None:
        """Change the status of a VM from outside."""
        self._vms[vm_id] = dataclasses.replace(self._vms[vm_id], status=status)

    def hold(self, vm_id: str, words: str) -> None:
        """Lock a VM as another operation of the Manager does."""
        self._held[vm_id] = words

    def let_go(self, vm_id: str) -> None:
        """End that operation."""
        self._held.pop(vm_id, None)

    def lose_checkpoints(self, vm_id: str) -> None:
        """Forget the checkpoints of a VM, as a failed redefinition does."""
        self._checkpoints.pop(vm_id, None)

    def untrack(self, disk_id: str) -> None:
        """Let no checkpoint hold a disk any more, as detaching it and attaching it again does."""
        for checkpoints in self._checkpoints.values():
            for checkpoint_id, disks in checkpoints.items():
                checkpoints[checkpoint_id] = disks - {disk_id}

    def break_bitmaps(self, disk_id: str) -> None:
        """Let the bitmaps of a disk be of no use, as a crash does: it cannot be opened with changes any more."""
        self._broken.add(disk_id)
        for checkpoints in self._checkpoints.values():
            self._useless |= {checkpoint_id for checkpoint_id, disks in checkpoints.items() if disk_id in disks}

    def mend_bitmaps(self) -> None:
        """Let bitmaps made from now on be good again."""
        self._broken.clear()

    def set_phase(self, thing_id: str, phase: str) -> None:
        """Put a backup or transfer into a phase: `failed`, `paused_system`, `finished_failure`, ..."""
        thing = self._backups.get(thing_id) or self._transfers[thing_id]
        thing.phase = phase

    def remove_vm(self, vm_id: str) -> None:
        """Take a VM away with its disks, whatever state it is in."""
        del self._vms[vm_id]

    def purge(self, thing_id: str) -> None:
        """Forget a backup or transfer, as the Manager does some time after its end."""
        self._backups.pop(thing_id, None)
        self._transfers.pop(thing_id, None)

    def add_checkpoint(self, vm_id: str, checkpoint_id: str) -> None:
        """Put a checkpoint there that somebody else made."""
        self._checkpoints.setdefault(vm_id, {})[checkpoint_id] = frozenset()

    def fail(self, method: str, error: BaseException, *, on: int = 1, times: int = 1, after: bool = False) -> None:
        """Let the `on`-th call of `method` from now raise, and those that follow until it was `times`.

        With `after` the effect stays, as if the answer was lost. `complete_vm`, the second half of `create_vm` in
        which a VM gets its interfaces and disks, can fail as well.
        """
        self._faults.setdefault(method, []).extend(Fault(error, on + more, after) for more in range(times))

    def heal(self) -> None:
        """Forget all faults that have not happened yet."""
        self._faults.clear()

    def take_snapshot(self, vm_id: str) -> str:
        """Freeze what a VM holds, as a backup or somebody else does; return the id."""
        snapshot_id = _new_id()
        self._snapshots[snapshot_id] = MemorySnapshot(vm_id)
        return snapshot_id

    # what tests look at; none of it counts as a call

    def open_backups(self) -> tuple[BackupRequest, ...]:
        """What was asked for of each backup that holds its disks."""
        return tuple(backup.request for backup in self._backups.values() if backup.active)

    def open_transfers(self) -> tuple[str, ...]:
        """The ids of transfers that have not been ended."""
        return tuple(transfer_id for transfer_id, transfer in self._transfers.items() if transfer.open)

    def snapshots_left(self) -> tuple[str, ...]:
        """The VMs that snapshots of backups hang on."""
        return tuple(snapshot.vm_id for snapshot in self._snapshots.values())

    def floating_disks(self) -> tuple[str, ...]:
        """The ids of disks that belong to no VM."""
        return tuple(self._floating)

    def disk_ids(self) -> frozenset[str]:
        """The ids of all disks."""
        return frozenset(disk.id for vm in self._vms.values() for disk in vm.disks) | frozenset(self._floating)

    def checkpoints_made(self) -> dict[str, tuple[str, ...]]:
        """The checkpoints of each VM that has any, oldest first."""
        return {vm_id: tuple(known) for vm_id, known in self._checkpoints.items() if known}

    def named(self, name: str) -> tuple[Vm, ...]:
        """The VMs of a name."""
        return tuple(vm for vm in self._vms.values() if vm.name == name)

    @contextmanager
    def _faulty(self, method: str) -> Iterator[None]:
        """Do something that fails before or after its effect when it was told to."""
        fault = self._due(method)
        if fault is not None and not fault.after:
            raise fault.error
        yield
        if fault is not None:
            raise fault.error

    def _due(self, method: str) -> Fault | None:
        due = None
        for fault in list(self._faults.get(method, ())):
            fault.calls_left -= 1
            if fault.calls_left == 0:
                self._faults[method].remove(fault)
                due = due or fault
        return due

    def _vm(self, vm_id: str) -> Vm:
        if vm_id not in self._vms:
            raise NotFoundInEngine(act=f"show VM {vm_id}", what=f"VM {vm_id}", words="")
        return self._vms[vm_id]

    def _seen(self, vm_id: str) -> Vm:
        vm = self._vm(vm_id)
        locked = {disk_id for backup in self._active(vm_id) if backup.locks for disk_id in backup.request.disk_ids}
        locked |= {transfer.request.disk_id for transfer in self._transfers.values() if transfer.open}
        disks = (dataclasses.replace(disk, locked=disk.locked or disk.id in locked) for disk in vm.disks)
        return dataclasses.replace(vm, disks=tuple(disks))

    def _status(self, disk_id: str) -> str | None:
        owner = next((vm for vm in self._vms.values() if any(disk.id == disk_id for disk in vm.disks)), None)
        if owner is None and disk_id not in self._floating:
            return None
        if any(transfer.open and transfer.request.disk_id == disk_id for transfer in self._transfers.values()):
            return "locked"
        backups = self._active(owner.id) if owner is not None else []
        if any(backup.locks and disk_id in backup.request.disk_ids for backup in backups):
            return "locked"
        return "illegal" if disk_id in self._illegal else "ok"

    def _active(self, vm_id: str) -> list[MemoryBackup]:
        return [backup for backup in self._backups.values() if backup.request.vm_id == vm_id and backup.active]

    def _refuse_if_locked(self, vm_id: str, act: str) -> None:
        if self._active(vm_id):
            raise VmLocked(act=act, words="The VM is during a backup operation.")
        if vm_id in self._held:
            raise VmLocked(act=act, words=self._held[vm_id])

    def _begin(self, backup: MemoryBackup) -> None:
        """What the host does when a backup of a running VM starts: it freezes the guest, if it can, and thaws it."""
        vm_id = backup.request.vm_id
        vm = self._vms.get(vm_id)
        if vm is None or vm.status is not VmStatus.UP:
            return
        cannot = vm_id in self.mute or vm_id in self.frozen
        if cannot and backup.request.require_consistency and backup.snapshot_id is None:
            backup.phase = "failed"
            if backup.checkpoint_id:
                self._checkpoints[vm_id].pop(backup.checkpoint_id, None)
        else:
            self.guest_log.append(("begin", vm_id))
        if vm_id not in self.mute and vm_id in self.frozen:
            self.frozen.discard(vm_id)
            self.guest_log.append(("thaw", vm_id))

    def _session(self, backup: MemoryBackup) -> BackupSession:
        ready, legacy = backup.phase == "ready", backup.snapshot_id is None
        vm = self._vms.get(backup.request.vm_id)
        return BackupSession(
            id=backup.request.id,
            phase=backup.phase,
            description=backup.request.description,
            checkpoint_id=backup.checkpoint_id if ready else None,
            host_id=(vm.host_id or None) if legacy and vm and vm.status is VmStatus.UP else None,
            snapshot_id=backup.snapshot_id,
            modes=dict(backup.modes) if ready else {},
        )

    def _merge(self, snapshot_id: str) -> None:
        """Merge a snapshot away, unless it cannot be."""
        snapshot = self._snapshots.get(snapshot_id)
        if snapshot is None:
            return
        if left := self.failing_merges.get(snapshot.vm_id):
            self.failing_merges[snapshot.vm_id], snapshot.status = left - 1, "ok"
        else:
            del self._snapshots[snapshot_id]

    def _host_for(self, request: TransferRequest) -> str:
        owner = next((vm for vm in self._vms.values() if any(d.id == request.disk_id for d in vm.disks)), None)
        running_on = owner.host_id if owner is not None and owner.status is VmStatus.UP else ""
        return running_on or request.host_id or self.known_hosts[0].id

    def _drop_disk(self, disk_id: str) -> None:
        self._floating.pop(disk_id, None)
        self._illegal.discard(disk_id)
        for vm in self._vms.values():
            if any(disk.id == disk_id for disk in vm.disks):
                self._vms[vm.id] = dataclasses.replace(vm, disks=tuple(d for d in vm.disks if d.id != disk_id))

    def _complete(self, vm: Vm, spec: VmSpec) -> None:
        with self._faulty("complete_vm"):
            self._hang(vm, spec)

    def _hang(self, vm: Vm, spec: VmSpec) -> None:
        names = {nic.name for nic in vm.nics}
        nics = vm.nics + tuple(self._nic(nic) for nic in spec.nics if nic.name not in names)
        disks = vm.disks
        for attach in spec.disks:
            if attach.disk_id in {disk.id for disk in disks}:
                continue
            if attach.disk_id not in self._floating:
                what = f"VM {spec.name} or a part of it"
                raise NotFoundInEngine(act=f"complete VM {spec.name}", what=what, words="")
            disk = self._floating.pop(attach.disk_id)
            disks += (dataclasses.replace(disk, interface=attach.interface, bootable=attach.bootable),)
        self._vms[vm.id] = dataclasses.replace(vm, nics=nics, disks=disks)

    def _nic(self, nic: NicSpec) -> Nic:
        label = next((name for name, known in self.known_profiles.items() if known == nic.vnic_profile_id), "/")
        profile, _, network = label.partition("/")
        return Nic(
            id=str(uuid.uuid4()),
            name=nic.name,
            mac=nic.mac or next(self._macs),
            interface=nic.interface,
            vnic_profile_id=nic.vnic_profile_id,
            vnic_profile=profile,
            network=network,
        )
