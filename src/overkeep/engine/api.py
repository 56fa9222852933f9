# SPDX-License-Identifier: GPL-3.0-or-later
"""The port to the Manager: every act a workflow needs, each safe to repeat."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from overkeep.model.inventory import DiskFormat, Host, Place, Vm
from overkeep.model.points import BackupKind, Mode
from overkeep.model.selection import Candidate


@dataclass(frozen=True, kw_only=True)
class VmConfiguration:
    """What is kept of a VM besides its disks: the Manager's OVF and a JSON document of what OVF leaves out."""

    ovf: str
    document: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class BackupRequest:
    """A backup to be started; `id` is chosen by the caller, so that starting twice starts one.

    With `require_consistency` a legacy backup of a running VM fails unless its host could freeze the guest for the
    moment of its start; a hybrid one does not look at it. Managers that do not have hybrid backups make legacy ones.
    """

    id: str
    vm_id: str
    disk_ids: tuple[str, ...]
    from_checkpoint: str | None
    description: str
    require_consistency: bool = False
    kind: BackupKind = BackupKind.LEGACY


@dataclass(frozen=True, kw_only=True)
class BackupSession:
    """A backup as the Manager sees it; `phase` is the Manager's word, `gone` when it knows the id no longer.

    `description` is that of the request. `host_id` is that of a legacy backup of a running VM; `snapshot_id` that of a
    hybrid backup, also when it has ended.
    """

    id: str
    phase: str
    description: str = ""
    checkpoint_id: str | None = None
    host_id: str | None = None
    snapshot_id: str | None = None
    modes: Mapping[str, Mode] = field(default_factory=dict)

    @property
    def kind(self) -> BackupKind:
        """What the Manager makes of it, whatever it was asked for."""
        return BackupKind.LEGACY if self.snapshot_id is None else BackupKind.HYBRID


@dataclass(frozen=True, kw_only=True)
class TransferRequest:
    """Access to one disk: a download inside a backup, or an upload into a disk."""

    disk_id: str
    upload: bool
    backup_id: str | None = None
    host_id: str | None = None
    inactivity_timeout: int = 3600


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """An image transfer; `ticket` is its ticket on the host's ovirt-imageio while it is transferring."""

    id: str
    disk_id: str
    phase: str
    host_id: str = ""
    ticket: str = ""

    @property
    def over(self) -> bool:
        """Whether the Manager is done with it; after `finished_cleanup` there is still something to do."""
        return self.phase in ("finished_success", "finished_failure", "gone")


@dataclass(frozen=True, kw_only=True)
class DiskSpec:
    """A disk to be made; `id` is chosen by the caller. `size` is virtual, in bytes.

    `description` is our mark: a disk of this id counts as ours only when it bears the same description.
    """

    id: str
    name: str
    size: int
    format: DiskFormat
    sparse: bool
    tracks_changes: bool
    storage_domain_id: str
    description: str
    initial_size: int | None = None  # bytes made ready for a thin disk on block storage; None: room for all of it


@dataclass(frozen=True, kw_only=True)
class VmSpec:
    """A VM to be made from a kept OVF, as a copy with new ids; disks are attached as mapped.

    `description` is our mark while the VM is being made, and what the finished VM is described with: a VM of this name
    counts as ours only when it bears the same description. It should name the job.
    """

    name: str
    ovf: str
    cluster_id: str
    description: str
    disks: tuple[AttachSpec, ...]
    nics: tuple[NicSpec, ...]


@dataclass(frozen=True, kw_only=True)
class AttachSpec:
    """How a restored disk hangs on its VM."""

    disk_id: str
    interface: str
    bootable: bool


@dataclass(frozen=True, kw_only=True)
class NicSpec:
    """A network interface of a restored VM; an empty `mac` asks for a new one."""

    name: str
    interface: str
    vnic_profile_id: str
    mac: str = ""


class Engine(Protocol):
    """The Manager. Errors are those of `overkeep.engine.errors`; nothing of the SDK crosses this port."""

    def test(self) -> str:
        """Log in and return the product version of the Manager."""

    def vm(self, vm_id: str) -> Vm: ...
    def find_vm(self, name_or_id: str) -> Vm:
        """Return the VM of an id, or else of a name; raise `NoSuchVm` or `AmbiguousName`."""

    def vms(self) -> tuple[Vm, ...]:
        """All VMs, without disks and NICs."""

    def places(self, vm_ids: Sequence[str]) -> Mapping[str, Place]:
        """Where VMs are, by id; those that are gone are left out."""

    def candidates(self, tags: Collection[str]) -> tuple[Candidate, ...]:
        """What rules look at in all VMs; `tags` are patterns of tags, which find the VMs of tags below them as well."""

    def hosts(self) -> tuple[Host, ...]: ...
    def hosts_seeing(self, storage_domain_id: str) -> tuple[Host, ...]:
        """The hosts that are up in a data center in which this storage domain is active."""

    def configuration(self, vm_id: str) -> VmConfiguration:
        """OVF and document; waits while the Manager withholds the OVF, at most a minute."""

    def checkpoints(self, vm_id: str) -> tuple[str, ...]:
        """Ids of the valid checkpoints of a VM, oldest first."""

    def delete_checkpoint(self, vm_id: str, checkpoint_id: str) -> None:
        """Remove a checkpoint and wait until it is gone; a missing one is success."""

    def freeze(self, vm_id: str) -> None:
        """Hold the file systems of a running guest still until `thaw`; raise `GuestNotFrozen` when it cannot.

        Not to be repeated: a guest that holds still does not take it again.
        """

    def thaw(self, vm_id: str) -> None:
        """Let the guest go on; one that does not hold still, or does not run, is success.

        Raises `GuestNotThawed` when the guest does not answer.
        """

    def start_backup(self, request: BackupRequest) -> None: ...
    def backup(self, vm_id: str, backup_id: str) -> BackupSession: ...
    def backups(self, vm_id: str) -> tuple[BackupSession, ...]: ...
    def finalize_backup(self, vm_id: str, backup_id: str) -> None:
        """End a backup; one that has ended or is gone is success. Does not wait."""

    def snapshot_status(self, vm_id: str, snapshot_id: str) -> str | None:
        """`ok`, `locked` while it is made or merged away, or None when there is no such snapshot."""

    def delete_snapshot(self, vm_id: str, snapshot_id: str) -> None:
        """Have a snapshot merged away; a missing one is success. Does not wait: look at its status."""

    def start_transfer(self, request: TransferRequest) -> str:
        """Start a transfer and return its id; an unfinished one on the same disk made by us is taken up again.

        Does not wait: poll `transfer` until its phase is `transferring`. A paused upload is resumed.
        """

    def transfer(self, transfer_id: str) -> Transfer:
        """State of a transfer; phase `gone` when the Manager knows the id no longer."""

    def transfers(self) -> tuple[Transfer, ...]: ...
    def finalize_transfer(self, transfer_id: str) -> None: ...
    def cancel_transfer(self, transfer_id: str) -> None: ...

    def create_disk(self, spec: DiskSpec) -> None:
        """Make a disk and wait until it is usable; an existing one of this id with our description is success."""

    def disk_status(self, disk_id: str) -> str | None:
        """`ok`, `locked`, `illegal`, or None when there is no such disk."""

    def delete_disk(self, disk_id: str) -> None: ...

    def create_vm(self, spec: VmSpec) -> str:
        """Make the VM with its NICs and disks, wait until it is down, return its id; repeat-safe by name and mark.

        An error after the VM came to be carries its id in `fields["vm_id"]`, so that the caller can undo it.
        """

    def find_marked_vm(self, name: str, description: str) -> str | None:
        """Return the id of the VM of this name that bears our mark, also a half-made one; None when there is none."""

    def start_vm(self, vm_id: str) -> None: ...
    def delete_vm(self, vm_id: str, *, detach_only: bool) -> None:
        """Remove a VM that is down, wait until it is gone; a missing one is success. `detach_only` keeps its disks."""

    def storage_domains(self, *, cluster_id: str | None = None) -> Mapping[str, str]:
        """Names to ids of the data domains that are up; of the cluster's data center only, when one is given."""

    def clusters(self) -> Mapping[str, str]:
        """Names to ids."""

    def vnic_profiles(self, *, cluster_id: str | None = None) -> Mapping[str, str]:
        """`profile/network` names to ids; of the cluster's data center only, when one is given.

        Give one: every data center has a network named `ovirtmgmt`.
        """

    def post_event(self, severity: str, text: str, *, number: int, vm_id: str | None = None) -> None:
        """Write an event into the Manager's log, under a number below 2**31; may be repeated.

        One that is there under the number with the same text is success; with another text `EventNumberTaken`.
        """

    def explain(self, *ids: str) -> str:
        """What the Manager last wrote about a backup, transfer, disk or VM that went wrong; empty when nothing.

        The newest events of severity warning or worse that name one of `ids`, or carry it as correlation id.
        """

    def close(self) -> None:
        """Log out and let go of all connections."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The user behind a token, as the Manager knows him; `admin` when he has the role SuperUser on the system."""

    user_id: str
    name: str
    admin: bool


class ObjectKind(StrEnum):
    """What a permission may be given on, as far as it matters here; the value is the word for users."""

    VM = "VM"
    CLUSTER = "cluster"
    STORAGE_DOMAIN = "storage domain"


class Access(Protocol):
    """Who calls, and what he may do: the Manager's answers to the caller's own token."""

    def authenticate(self, token: str) -> Identity:
        """Return who the token belongs to; raise `overkeep.errors.Unauthorized` when the Manager does not know it."""

    def permits(self, token: str, object_id: str, *, of: ObjectKind = ObjectKind.VM) -> frozenset[str]:
        """Return the caller's permits on an object in the Manager's lower-case words (`backup_disk`, `create_vm`, ...).

        Those that he has through what the object lies in count. Empty when he has none or may not see the object.
        """

    def vms(self, token: str) -> frozenset[str]:
        """Return the ids of the VMs that the Manager shows to the caller; on all others he has no permit."""
