# SPDX-License-Identifier: GPL-3.0-or-later
"""What the movers are ordered to copy: from an access into an image for a backup, and back for a restore."""

from __future__ import annotations

from dataclasses import dataclass

from overkeep.controller.activities.copying import Task
from overkeep.controller.targets.target import Target
from overkeep.controller.workflows.assembly import backup_progress, restore_progress
from overkeep.engine.api import Transfer, TransferRequest
from overkeep.model.plan import DiskPlan
from overkeep.model.points import Changes, RestorePoint
from overkeep.model.policy import Copying
from overkeep.model.restore import DiskRestore
from overkeep.mover.orders import Access, CopyOrder, Image
from overkeep.repository.repository import Draft


@dataclass(frozen=True, kw_only=True)
class Into:
    """The draft that a backup goes into, on its target."""

    target: Target
    draft: Draft


def backup_task(item: DiskPlan, *, running: bool, into: Into, backup_id: str, copying: Copying, lease: float) -> Task:
    """The copy of one disk of a VM, which may be `running`, exposed by a backup, into an image of a draft."""
    draft = into.draft
    sink = Image(
        target=into.target.name,
        repository=into.target.repository.id,
        folder=draft.folder(item.disk.id),
        name=draft.image_name,
        backing=item.backing,
    )

    def order(transfer: Transfer, host: str, fence: int) -> CopyOrder:
        return CopyOrder(
            host=host,
            source=Access(ticket=transfer.ticket),
            sink=sink,
            dirty=item.changes is Changes.TRACKED,
            compare=item.changes is Changes.COMPARED,
            compression=copying.compression,
            level=copying.level,
            cluster=copying.cluster_size,
            bandwidth=copying.bandwidth,
            read_back=copying.read_back,
            lease=lease,
            fence=fence,
        )

    request = TransferRequest(disk_id=item.disk.id, upload=False, backup_id=backup_id)
    domain = "" if running else item.disk.storage_domain_id
    return Task(progress=backup_progress(item, "waiting"), request=request, storage_domain_id=domain, order=order)


def restore_task(disk: DiskRestore, *, target: Target, point: RestorePoint, lease: float) -> Task:
    """The copy of one disk image of a restore point into a new disk."""
    source = Image(
        target=target.name,
        repository=target.repository.id,
        folder=target.repository.folder(point, disk.image.disk_id),
        name=disk.image.file,
    )

    def order(transfer: Transfer, host: str, fence: int) -> CopyOrder:
        sink = Access(ticket=transfer.ticket)
        return CopyOrder(host=host, source=source, sink=sink, lease=lease, fence=fence)

    request = TransferRequest(disk_id=disk.id, upload=True)
    return Task(
        progress=restore_progress(disk, "waiting"),
        request=request,
        storage_domain_id=disk.storage_domain_id,
        order=order,
    )
