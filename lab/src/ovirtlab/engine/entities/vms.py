# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs, and the templates they are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ovirtlab.engine.entities.disks import DiskAttachment
from ovirtlab.engine.entities.networks import Nic
from ovirtlab.host.api import VmDefinition

CONSOLES = ("spice", "vnc")


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
