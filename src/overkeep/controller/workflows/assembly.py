# SPDX-License-Identifier: GPL-3.0-or-later
"""From a plan and what the Manager and the movers said to the values of a restore point, and what is told of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace

from overkeep.controller.events import About, Kind
from overkeep.controller.events import Draft as Event
from overkeep.controller.records import DiskProgress
from overkeep.engine.api import BackupSession
from overkeep.model.plan import BackupPlan, DiskPlan, compared
from overkeep.model.points import Changes, DiskImage, Mode, RestorePoint
from overkeep.model.restore import DiskRestore
from overkeep.mover.orders import CopyResult


def as_given(plan: BackupPlan, session: BackupSession) -> BackupPlan:
    """The plan as the Manager carries it out: of a disk whose changes it does not give after all, they are found."""
    return replace(plan, disks=tuple(_disk_as_given(item, session) for item in plan.disks))


def _disk_as_given(item: DiskPlan, session: BackupSession) -> DiskPlan:
    if item.changes is Changes.TRACKED and session.modes.get(item.disk.id) is not Mode.INCREMENTAL:
        return compared(item, "the Manager does not have the changes of this disk")
    return item


def make_point(
    plan: BackupPlan,
    results: Mapping[str, CopyResult],
    *,
    point_id: str,
    workload_id: str,
    job_id: str,
    created: dt.datetime,
    checkpoint_id: str | None,
    file: str,
) -> RestorePoint:
    """The restore point of a VM whose disks were all copied, each into an image named `file`."""
    return RestorePoint(
        id=point_id,
        workload_id=workload_id,
        vm_id=plan.vm.id,
        vm_name=plan.vm.name,
        created=created,
        job_id=job_id,
        mode=plan.mode,
        checkpoint_id=checkpoint_id,
        images=tuple(_image(item, results[item.disk.id], file) for item in plan.disks),
    )


def _image(item: DiskPlan, result: CopyResult, file: str) -> DiskImage:
    disk = item.disk
    return DiskImage(
        disk_id=disk.id,
        name=disk.name,
        file=file,
        backing=item.backing,
        mode=item.mode,
        reason=item.reason,
        virtual_size=result.virtual_size,
        stored=result.stored,
        covered=result.covered,
        moved=result.moved,
        format=disk.format,
        interface=disk.interface,
        bootable=disk.bootable,
        changes=item.changes,
        since_full=0 if item.mode is Mode.FULL else item.since_full,
        sparse=disk.sparse,
        tracks_changes=disk.tracks_changes,
        storage_domain_id=disk.storage_domain_id,
        storage_domain=disk.storage_domain,
    )


def backup_progress(item: DiskPlan, state: str) -> DiskProgress:
    """Where a disk of a backup is before its order runs."""
    total = 0 if item.changes is Changes.TRACKED else item.disk.size
    return DiskProgress(
        disk_id=item.disk.id, name=item.disk.name, mode=item.mode, reason=item.reason, state=state, total=total
    )


def restore_progress(disk: DiskRestore, state: str) -> DiskProgress:
    """Where a disk of a restore is before its order runs."""
    reason = f"from {disk.image.file}"
    return DiskProgress(disk_id=disk.id, name=disk.name, mode="restore", reason=reason, state=state, total=disk.size)


def point_made(point: RestorePoint, *, target: str) -> Event:
    """The event that tells of a new restore point on a target."""
    moved, stored = (sum(getattr(image, name) for image in point.images) for name in ("moved", "stored"))
    return Event(
        kind=Kind.POINT_MADE,
        text=f"VM {point.vm_name!r} has restore point {point.id}",
        about=About(
            job_id=point.job_id,
            workload_id=point.workload_id,
            vm_id=point.vm_id,
            vm_name=point.vm_name,
            point_id=point.id,
            target=target,
        ),
        key=f"{Kind.POINT_MADE}/{point.vm_id}/{point.id}",
        fields={"mode": point.mode, "moved": moved, "stored": stored},
    )
