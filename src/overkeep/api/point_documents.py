# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents about restore points and restores."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from overkeep.api.documents import Document, Name
from overkeep.model.consistency import Reached, Wanted
from overkeep.model.inventory import DiskFormat
from overkeep.model.points import BackupKind, Changes, Mode, RestorePoint

if TYPE_CHECKING:  # the command line reads these documents too, and should not wait for the whole controller
    from overkeep.controller.store.points import Marks


class RestoreIn(Document):
    """A VM to be restored under a new name; `vm` says which when the point's id is that of several VMs.

    `target` says from which one when the point lies on several.
    """

    point: str
    vm: Name | None = None
    target: Name | None = None
    name: Name
    cluster: Name | None = None
    storage_domain: Name | None = None
    keep_macs: bool = False
    start: bool = False
    disks: tuple[Name, ...] | None = None


class VerificationIn(Document):
    """Which points are to be checked, and how much: those of a workload's VM on a target, else on the workload's own.

    `share` of the data of each is read, 0 to 1. After `seconds` nothing more is begun, however many points are left.
    """

    workload: Name
    vm: Name
    target: Name | None = None
    share: float = Field(default=1, gt=0, le=1)
    seconds: float = Field(gt=0, le=86400)


class PinIn(Document):
    """Why a point must stay."""

    reason: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")]


class DiskImageOut(Document):
    """One disk of a restore point; sizes in bytes."""

    disk_id: str
    name: str
    file: str
    backing: str | None
    mode: Mode
    reason: str
    changes: Changes | None
    virtual_size: int
    stored: int
    covered: int
    moved: int
    format: DiskFormat
    interface: str
    bootable: bool
    storage_domain: str


class PinOut(Document):
    """Why a point must stay, who wants it, and since when."""

    reason: str
    by: str
    pinned_at: dt.datetime


class VerificationOut(Document):
    """How the last check of a point went; `share` of its data was read, 0 to 1, and `findings` are sentences."""

    checked_at: dt.datetime
    share: float
    sound: bool
    findings: tuple[str, ...]


class PointOut(Document):
    """One VM at one time, on a target; `pin` when it must stay whatever a retention says.

    `listed`: when all of the target was last read, null for never. `away`: it cannot be read now; the point is shown as
    it was last seen. `verification` is null for a point that was never checked. `consistency` is what
    was reached, and `backup_kind` what the Manager made; they are null when the point does not tell.
    """

    id: str
    target: str
    workload_id: str
    vm_id: str
    vm_name: str
    created: dt.datetime
    job_id: str
    mode: Mode
    checkpoint_id: str | None
    images: tuple[DiskImageOut, ...]
    consistency: Reached | None = None
    consistency_wanted: Wanted | None = None
    backup_kind: BackupKind | None = None
    pin: PinOut | None = None
    listed: dt.datetime | None = None
    away: bool = False
    verification: VerificationOut | None = None


def point_out(
    point: RestorePoint,
    marks: Marks,
    *,
    target: str,
    listed: dt.datetime | None,
    away: bool,
) -> PointOut:
    """The document of a restore point on a target, with what stands beside its manifest."""
    about = {"target": target, "pin": marks.pin, "verification": marks.verification, "listed": listed, "away": away}
    return PointOut.model_validate(vars(point) | about)
