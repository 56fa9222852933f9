# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore points, disk images and chains: what a repository holds, as values."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from overkeep.model.consistency import Reached, Wanted
from overkeep.model.inventory import DiskFormat

LONGEST_CHAIN = 256
"""Images of the longest chain that is made and read; each costs a reader an open file."""


class Mode(StrEnum):
    """How a disk is backed up."""

    FULL = "full"
    INCREMENTAL = "incremental"


class BackupKind(StrEnum):
    """How the Manager lets the disks of a VM be read; the words are those of its API.

    `legacy`: as they are in one moment, from the VM itself when it runs; the VM is locked until the backup ends, and
    nothing of it stays. `hybrid`: from a snapshot, which is merged into the disks at the end; the VM is not locked.
    """

    LEGACY = "legacy"
    HYBRID = "hybrid"


class Changes(StrEnum):
    """How it was found out what to copy of a disk: all of it was, the Manager tracks changes, or it was compared.

    A disk is compared with the last restore point, by reading it whole; what is equal is not kept again.
    """

    ALL = "all"
    TRACKED = "tracked"
    COMPARED = "compared"


@dataclass(frozen=True, kw_only=True)
class DiskImage:
    """One disk of a restore point: a QCOW2 file of a chain.

    `file` and `backing` are bare names in the disk's folder. `stored` is the size of the file's data in bytes,
    `covered` what the extents that were copied cover of the disk (zeroes included),
    `moved` what was read of it. `since_full` is the number of incremental backups of the disk since its
    last full one, this one among them. `changes` and `since_full` are None when the point's writer did not tell.
    """

    disk_id: str
    name: str
    file: str
    backing: str | None
    mode: Mode
    reason: str
    virtual_size: int
    stored: int
    covered: int
    moved: int
    format: DiskFormat
    interface: str
    bootable: bool
    changes: Changes | None = None
    since_full: int | None = None
    sparse: bool = True
    tracks_changes: bool = False
    storage_domain_id: str = ""
    storage_domain: str = ""


@dataclass(frozen=True, kw_only=True)
class RestorePoint:
    """One VM at one time.

    `consistency` is what was reached and `consistency_wanted` what was wanted; `backup_kind` is that of the backup that
    made it. They are None when the point's writer did not tell.
    """

    id: str
    workload_id: str
    vm_id: str
    vm_name: str
    created: dt.datetime
    job_id: str
    mode: Mode
    checkpoint_id: str | None
    images: tuple[DiskImage, ...]
    consistency: Reached | None = None
    consistency_wanted: Wanted | None = None
    backup_kind: BackupKind | None = None

    def image(self, disk_id: str) -> DiskImage | None:
        """The image of a disk, or None when the point does not hold it."""
        return next((image for image in self.images if image.disk_id == disk_id), None)


@dataclass(frozen=True, kw_only=True)
class Pin:
    """Why a point must stay whatever a retention says, who wants it, and since when."""

    reason: str
    by: str
    pinned_at: dt.datetime


def point_id(created: dt.datetime, job_id: str) -> str:
    """Make the id of the point that a job makes: time first, so that names sort in the order of time."""
    return f"{created.astimezone(dt.UTC):%Y%m%dT%H%M%SZ}-{job_id.replace('-', '')[:8]}"
