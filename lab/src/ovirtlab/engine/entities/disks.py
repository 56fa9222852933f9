# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks, and how they hang on VMs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

DiskStatus = Literal["ok", "locked", "illegal"]
DiskFormat = Literal["raw", "cow"]
DiskBackup = Literal["none", "incremental"]


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
