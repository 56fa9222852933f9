# SPDX-License-Identifier: GPL-3.0-or-later
"""The things the engine keeps of its inventory, one mutable dataclass each; sizes in bytes, times in UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ovirtlab.host.api import VmDefinition

DiskStatus = Literal["ok", "locked", "illegal"]
DiskFormat = Literal["raw", "cow"]
DiskBackup = Literal["none", "incremental"]
CONSOLES = ("spice", "vnc")


@dataclass(kw_only=True)
class DataCenter:
    id: str
    name: str
    description: str = ""
    comment: str = ""
    status: str = "up"
    level: tuple[int, int] = (4, 7)
    local: bool = False
    spm_host_id: str = ""  # the host that was chosen to manage the storage; empty for any
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClusterUpgrade:
    """That somebody upgrades the hosts of a cluster one after the other, and how far that is."""

    correlation_id: str
    percent: int = 0


@dataclass(kw_only=True)
class Cluster:
    """`level` is the compatibility level; it decides between live and hybrid backups, among others."""

    id: str
    name: str
    data_center_id: str
    description: str = ""
    comment: str = ""
    level: tuple[int, int] = (4, 7)
    cpu_type: str = "Intel Nehalem Family"
    mac_pool_id: str = ""
    upgrade: ClusterUpgrade | None = None  # while one is under way
    migration_mbps: int = 0  # how much a migration may take of the network, in megabits a second; 0 for all there is
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class FenceAgent:
    """How a host could be fenced; the lab keeps it and never uses it."""

    id: str
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class HostEntity:
    """What the engine knows of a host; the host itself is `Context.hosts[id]`."""

    id: str
    name: str
    address: str
    hw_id: str
    cluster_id: str
    imageio_port: int
    status: str = "up"
    external_status: str = "ok"
    comment: str = ""
    updates: tuple[str, ...] = ()  # packages that a check would find
    update_available: bool = False  # whether the last check has found any
    checking: bool = False
    fence_agents: dict[str, FenceAgent] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    kept: dict[str, Any] = field(default_factory=dict)  # properties that are shown again, without effect


@dataclass(kw_only=True)
class StorageDomain:
    """A file domain; `path` is where its volumes lie (`images/<disk id>/<image id>`)."""

    id: str
    name: str
    data_center_id: str
    path: Path
    type: str = "data"
    status: str = "active"
    master: bool = False
    size: int = 1 << 42
    description: str = ""
    comment: str = ""
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Disk:
    """An image disk. `image_id` is its active volume; `status` is what clients see, locks stand in the lock table."""

    id: str
    image_id: str
    alias: str
    provisioned_size: int
    storage_domain_id: str
    path: Path
    description: str = ""
    actual_size: int = 0
    format: DiskFormat = "cow"
    sparse: bool = True
    backup: DiskBackup = "none"
    status: DiskStatus = "ok"
    content_type: str = "data"
    shareable: bool = False
    wipe_after_delete: bool = False
    propagate_errors: bool = False
    profile_id: str = ""  # empty for the first profile of its domain
    kept: dict[str, Any] = field(default_factory=dict)
    creation_date: datetime | None = None
    copies: dict[str, Path] = field(default_factory=dict)  # of a template's disk, on other domains, by their ids
    volumes: list[str] = field(default_factory=list)  # snapshot layers below `image_id`, oldest first
    troubled: dict[str, DiskStatus] = field(default_factory=dict)  # the status of those layers that are not ok

    @property
    def domain_ids(self) -> tuple[str, ...]:
        """All domains that have it; more than one only when it is a template's."""
        return (self.storage_domain_id, *self.copies)

    def lock_volumes(self) -> None:
        """Lock all its volumes, whatever their status was: the engine writes one status over the whole chain."""
        self.status = "locked"
        self.troubled = dict.fromkeys(self.volumes, "locked")

    def unlock_volumes(self) -> None:
        """Unlock those of its volumes that are locked; illegal ones stay so."""
        if self.status == "locked":
            self.status = "ok"
        self.troubled = {image_id: status for image_id, status in self.troubled.items() if status != "locked"}

    @property
    def volume_format(self) -> Literal["raw", "qcow2"]:
        return "qcow2" if self.format == "cow" else "raw"

    @property
    def total_size(self) -> int:
        return self.actual_size


@dataclass(kw_only=True)
class DiskAttachment:
    """How a disk hangs on a VM; its id is the disk's id. `target` is the device name in the running VM.

    With a `snapshot_id` it is the disk as a snapshot of another VM has frozen it.
    """

    disk_id: str
    vm_id: str
    interface: str = "virtio_scsi"
    bootable: bool = False
    active: bool = True
    read_only: bool = False
    pass_discard: bool = False
    uses_scsi_reservation: bool = False
    target: str = ""
    snapshot_id: str = ""


@dataclass(kw_only=True)
class Nic:
    """A network card of a VM, or of a template: that one has an address only when somebody gave it one."""

    id: str
    vm_id: str
    name: str
    mac: str
    interface: str = "virtio"
    vnic_profile_id: str = ""
    plugged: bool = True
    linked: bool = True


@dataclass(frozen=True, kw_only=True)
class NumaNode:
    """A virtual NUMA node; `memory` in MiB, `cores` by index. The lab's QEMU is not told."""

    id: str
    index: int
    memory: int = 0
    cores: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunOnce:
    """Settings that a VM was started with and that count until it is down again; empty ones are the VM's own.

    `initialization` is what its guest would be set up with, by `initialization_type` (cloud_init, sysprep, ignition or
    none): the lab's guest does not look at it.
    """

    os_type: str = ""
    os_kernel: str = ""
    os_initrd: str = ""
    os_cmdline: str = ""
    initialization_type: str = ""
    initialization: Any = None


@dataclass(kw_only=True)
class Vm:
    """A VM. `status` follows the host through callbacks; `host_id` is set while it runs.

    What boots in it stands in the OS command line (`lab.guest=none`, `lab.agent=0`), which the OVF carries into
    restored VMs. `clone` names the saved state that belongs to its untouched disks, until its first start.
    """

    id: str
    name: str
    cluster_id: str
    memory: int
    description: str = ""
    comment: str = ""
    status: str = "down"
    status_detail: str = ""
    host_id: str = ""
    home_host_id: str = ""
    clone: str = ""
    attachments: dict[str, DiskAttachment] = field(default_factory=dict)
    snapshot_disks: dict[str, DiskAttachment] = field(default_factory=dict)  # of other VMs' disks, by the disk's id
    nics: dict[str, Nic] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    bios_type: str = "q35_sea_bios"
    machine: str = ""
    os_type: str = "other_linux"
    os_kernel: str = ""
    os_initrd: str = ""
    os_cmdline: str = ""
    cores: int = 1
    sockets: int = 1
    threads: int = 1
    origin: str = "ovirt"
    vm_type: str = "server"
    template_id: str = "00000000-0000-0000-0000-000000000000"
    creator_id: str = ""
    custom_properties: dict[str, str] = field(default_factory=dict)
    delete_protected: bool = False
    level: tuple[int, int] | None = None
    creation_time: datetime | None = None
    start_time: datetime | None = None
    stop_time: datetime | None = None
    stop_reason: str = ""
    generation: int = 1
    cd_disk_id: str = ""
    affinity: Literal["migratable", "user_migratable", "pinned"] = "migratable"
    allowed_hosts: tuple[str, ...] = ()  # ids of the only hosts it may run on; empty for all
    boot_devices: tuple[str, ...] = ("hd",)
    boot_menu: bool = False
    once: RunOnce | None = None
    migration_progress: int = 0  # percent
    migration_cancelled: bool = False
    suspended: VmDefinition | None = None  # how it goes on where it was
    memory_disks: tuple[str, ...] = ()  # ids of the disks that hold the memory of a suspended VM
    next_run: dict[str, Any] = field(default_factory=dict)  # changes that wait for the VM to go down, by attribute
    numa_nodes: list[NumaNode] = field(default_factory=list)
    consoles: list[str] = field(default_factory=lambda: list(CONSOLES))
    kept: dict[str, Any] = field(default_factory=dict)  # properties that are shown again, without effect

    @property
    def guest(self) -> Literal["none", "linux"]:
        """What the host boots: the lab's Linux, unless the command line says that there is no guest."""
        return "none" if "lab.guest=none" in self._booted_cmdline else "linux"

    @property
    def agent(self) -> bool:
        """Whether the guest runs an agent."""
        return "lab.agent=0" not in self._booted_cmdline

    @property
    def _booted_cmdline(self) -> list[str]:
        return ((self.once and self.once.os_cmdline) or self.os_cmdline).split()

    @property
    def hung(self) -> tuple[DiskAttachment, ...]:
        """All that hangs on it: its disks and those of snapshots."""
        return (*self.attachments.values(), *self.snapshot_disks.values())

    @property
    def pinned_hosts(self) -> tuple[str, ...]:
        """The hosts that it is bound to and never leaves."""
        return self.allowed_hosts if self.affinity == "pinned" else ()

    @property
    def image_locked(self) -> bool:
        return self.status == "image_locked"


@dataclass(kw_only=True)
class Network:
    id: str
    name: str
    data_center_id: str
    description: str = ""
    comment: str = ""
    mtu: int = 0
    vlan: int | None = None
    label: str = ""
    clusters: dict[str, bool] = field(default_factory=dict)  # whether it is required there, by cluster id
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class VnicProfile:
    id: str
    name: str
    network_id: str
    description: str = ""
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class MacPool:
    id: str
    name: str
    start: str
    end: str
    description: str = ""
    default: bool = False
    allow_duplicates: bool = False
    more: tuple[tuple[str, str], ...] = ()  # ranges after the first


@dataclass(kw_only=True)
class Template:
    """A template with copies of a VM's disks; versions of one template share `base_id`. Blank has neither."""

    id: str
    name: str
    description: str = ""
    comment: str = ""
    status: str = "ok"
    cluster_id: str = ""
    base_id: str = ""
    version: int = 1
    version_name: str = ""
    memory: int = 1 << 30
    attachments: dict[str, DiskAttachment] = field(default_factory=dict)
    nics: dict[str, Nic] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # what VMs made from it begin with, by attribute
    creation_time: datetime | None = None
    tags: set[str] = field(default_factory=set)


@dataclass(kw_only=True)
class Tag:
    id: str
    name: str
    description: str = ""
    parent_id: str = ""


@dataclass(kw_only=True)
class Role:
    id: str
    name: str
    administrative: bool
    permits: frozenset[str]
    description: str = ""
    mutable: bool = False
    shows_children: bool = True  # whether its holder sees the VMs, disks and networks in the object


@dataclass(kw_only=True)
class User:
    """`principal` is the login without the profile: `admin@internal` has the principal `admin`, domain below."""

    id: str
    name: str
    domain: str
    password: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    group_ids: tuple[str, ...] = ()
    tags: set[str] = field(default_factory=set)
    ssh_keys: dict[str, str] = field(default_factory=dict)  # public keys for serial consoles, by id

    @property
    def login(self) -> str:
        return f"{self.name}@{self.domain}"


@dataclass(kw_only=True)
class Group:
    """A group of the directory."""

    id: str
    name: str
    domain: str
    tags: set[str] = field(default_factory=set)


@dataclass(kw_only=True)
class Directory:
    """Whom the SSO knows, by id; the engine has only those of them that were added to it."""

    users: dict[str, User] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)


@dataclass(kw_only=True)
class Permission:
    """A role of a user or a group on an object; `on` is (kind, id) with kind `system` for the whole system."""

    id: str
    user_id: str = ""
    group_id: str = ""
    role_id: str
    on: tuple[str, str]
