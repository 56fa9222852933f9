# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Manager has: VMs, their disks and network interfaces, as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class DiskFormat(StrEnum):
    """How the Manager keeps a disk: `cow` is QCOW2 and can track changed blocks, `raw` cannot."""

    RAW = "raw"
    COW = "cow"


class VmStatus(StrEnum):
    """The statuses that matter to decisions; any other status of the Manager is `other`."""

    UP = "up"
    DOWN = "down"
    PAUSED = "paused"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk as attached to one VM; `size` is virtual, in bytes."""

    id: str
    name: str
    size: int
    format: DiskFormat
    sparse: bool = True
    tracks_changes: bool = False
    interface: str = "virtio_scsi"
    bootable: bool = False
    active: bool = True
    storage: str = "image"  # image, lun, cinder, managed_block_storage
    shareable: bool = False
    transient: bool = False
    storage_domain_id: str = ""
    storage_domain: str = ""
    locked: bool = False


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A virtual network interface of a VM."""

    id: str
    name: str
    mac: str
    interface: str = "virtio"
    vnic_profile_id: str = ""
    vnic_profile: str = ""
    network: str = ""


@dataclass(frozen=True, kw_only=True)
class Vm:
    """A VM with what backup and restore need of it."""

    id: str
    name: str
    status: VmStatus
    cluster_id: str
    cluster: str
    host_id: str = ""
    hosted_engine: bool = False
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a VM is, by names: the host that runs it, empty when none does, and the storage domains of its disks."""

    host: str = ""
    domains: tuple[str, ...] = ()

    @classmethod
    def of(cls, host: str, disks: Iterable[Disk]) -> Place:
        """The place of a VM that a host runs and that has these disks."""
        return cls(host=host, domains=tuple(sorted({disk.storage_domain for disk in disks if disk.storage_domain})))


@dataclass(frozen=True, kw_only=True)
class Host:
    """A hypervisor."""

    id: str
    name: str
    address: str
    status: str
