# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository: its workloads, restore points, chains and drafts."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from overkeep.blocks.errors import (
    ImageDamaged,
    ImageUnreadable,
    ImageUnsupported,
    TargetMissing,
    UnsafeImage,
    on_target,
)
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.unreadable import read_twice
from overkeep.errors import NotFound
from overkeep.logs import fields
from overkeep.model.points import Pin, RestorePoint
from overkeep.repository import documents, layout
from overkeep.repository.draft import Draft
from overkeep.repository.errors import ChainBroken, DocumentDamaged, RepositoryTooNew
from overkeep.repository.identity import Identity, create_identity, read_identity
from overkeep.repository.manifest import (
    Member,
    WorkloadRecord,
    point_value,
    workload_document,
    workload_value,
)
from overkeep.repository.pins import read_pin, remove_pin, require_unpinned, write_pin
from overkeep.repository.removal import remove_point, unnamed_images
from overkeep.units import utc_now

__all__ = ["DamagedPoint", "Draft", "Member", "Repository", "StoredConfiguration", "WorkloadRecord"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StoredConfiguration:
    """The configuration of a VM at a point: OVF, and what OVF leaves out."""

    ovf: str
    document: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class DamagedPoint:
    """A point whose manifest cannot be read."""

    workload_id: str
    vm_id: str
    point_id: str
    reason: str


class Repository:
    """The tree under `root`. Nothing is read before it is asked for; no state is kept but the identity.

    Every method raises the typed errors of the target (`overkeep.blocks.errors`) and of the repository.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def identity(self) -> Identity:
        """What `overkeep.json` says, read once; raises `RepositoryMissing` or `RepositoryTooNew`."""
        return read_identity(self.root)

    @property
    def id(self) -> str:
        """UUID of the repository."""
        return self.identity.id

    def open(self) -> Repository:
        """Check that there is a repository that this release can read; return this one."""
        self.__dict__["identity"] = read_identity(self.root)
        return self

    def create(self) -> Repository:
        """Make a repository if there is none; return this one."""
        self.__dict__["identity"] = create_identity(self.root)
        return self

    def put_workload(
        self, workload_id: str, *, name: str, members: Mapping[str, str], policy: Mapping[str, Any] | None = None
    ) -> None:
        """Write a workload, in place of what is there of it; fields that are not ours are kept.

        `members` are the names of its VMs by their ids; without `policy` the one that is there stays.
        """
        folder = layout.make_folders(self.root, layout.workload(workload_id))
        path = folder / layout.WORKLOAD
        previous = documents.read(path, "workload") or {}
        record = WorkloadRecord(
            id=workload_id,
            name=name,
            members=tuple(Member(id=vm_id, name=vm_name) for vm_id, vm_name in members.items()),
            policy=previous.get("policy", {}) if policy is None else policy,
        )
        documents.write(path, workload_document(record, previous))

    def workload(self, workload_id: str) -> WorkloadRecord:
        """Read a workload; raises `NotFound` when it is not there."""
        path = layout.located(self.root, layout.workload(workload_id)) / layout.WORKLOAD
        document = documents.read(path, "workload")
        if document is None:
            raise NotFound(kind="workload", name=workload_id, how="overkeep workload list")
        return workload_value(document, path)

    def workloads(self) -> tuple[WorkloadRecord, ...]:
        """Read all workloads, by id; damaged ones are left out with a warning."""
        found = []
        for workload_id in layout.folder_names(self.root / layout.workloads()):
            try:
                found.append(self.workload(workload_id))
            except NotFound:
                continue  # points of a workload whose document is not there yet
            except (DocumentDamaged, RepositoryTooNew) as error:
                log.warning("workload left out %s", fields(workload=workload_id, reason=error))
        return tuple(found)

    def begin(self, workload_id: str, vm_id: str, *, point_id: str, job_id: str) -> Draft:
        """Begin a point, or continue the draft of the same job; raises `Conflict` when it is another job's."""
        draft = self.draft(workload_id, vm_id, point_id=point_id, job_id=job_id)
        draft.begin()
        return draft

    def draft(self, workload_id: str, vm_id: str, *, point_id: str, job_id: str) -> Draft:
        """Return the draft that a job began, without touching the target; for steps that are replayed."""
        return Draft(self.root, workload_id, vm_id, point_id=point_id, job_id=job_id, created=utc_now())

    def points(self, workload_id: str | None = None, vm_id: str | None = None) -> tuple[RestorePoint, ...]:
        """Read the points of a VM in a workload, newest last; without one of them, of all.

        Drafts are not points. Points with a damaged manifest are left out with a warning; `damaged` tells them.
        """
        return self.survey(workload_id, vm_id)[0]

    def damaged(self, workload_id: str | None = None, vm_id: str | None = None) -> tuple[DamagedPoint, ...]:
        """Tell the points whose manifest cannot be read, and why."""
        return self.survey(workload_id, vm_id)[1]

    def survey(
        self, workload_id: str | None = None, vm_id: str | None = None
    ) -> tuple[tuple[RestorePoint, ...], tuple[DamagedPoint, ...]]:
        """What `points` and `damaged` tell, with one look at each."""
        found: list[RestorePoint] = []
        damaged: list[DamagedPoint] = []
        for item in self._looks(workload_id, vm_id):
            if isinstance(item, RestorePoint):
                found.append(item)
            else:
                _warn(item)
                damaged.append(item)
        return tuple(sorted(found, key=lambda point: (point.created, point.id))), tuple(damaged)

    def point(self, workload_id: str, vm_id: str, point_id: str) -> RestorePoint:
        """Read one point; raises `NotFound` when it does not exist (a draft does not)."""
        path = layout.located(self.root, layout.point(workload_id, vm_id, point_id)) / layout.MANIFEST
        document = documents.read(path, "point")
        if document is None:
            raise NotFound(kind="restore point", name=point_id, how="overkeep points")
        return point_value(document, path)

    def look(self, workload_id: str, vm_id: str, point_id: str) -> RestorePoint | DamagedPoint | None:
        """One point, or what is known of it when its manifest cannot be read; None when it does not exist."""
        try:
            return self.point(workload_id, vm_id, point_id)
        except NotFound:
            return None
        except (DocumentDamaged, RepositoryTooNew) as error:
            return DamagedPoint(workload_id=workload_id, vm_id=vm_id, point_id=point_id, reason=str(error))

    def exists(self, workload_id: str, vm_id: str, point_id: str) -> bool:
        """Whether there is a point; its manifest is asked for by itself, as a listing may be old on NFS."""
        folder = layout.located(self.root, layout.point(workload_id, vm_id, point_id))
        return documents.read_bytes(folder / layout.MANIFEST) is not None

    def find(self, point_id: str, places: Collection[tuple[str, str]] | None = None) -> tuple[RestorePoint, ...]:
        """The points of an id, of whatever VM; only those `places`, workloads and VMs, are looked at if they are given.

        No manifest of another point is read. One that is damaged is left out with a warning.
        """
        if not layout.is_id(point_id):
            return ()
        found = []
        for workload_id, vm_id in self._places() if places is None else places:
            item = self.look(workload_id, vm_id, point_id)
            if isinstance(item, RestorePoint):
                found.append(item)
            elif item is not None:
                _warn(item)
        return tuple(found)

    def workload_ids(self) -> Iterator[str]:
        """The workloads of which something is here, sorted."""
        return layout.folder_names(self.root / layout.workloads())

    def places(self, workload_id: str) -> Iterator[tuple[str, str]]:
        """The VMs of a workload, each with the id of a point or draft of it, sorted. No manifest is read."""
        return ((vm, point) for _, vm, point in self._folders(workload_id, None))

    def configuration(self, point: RestorePoint) -> StoredConfiguration:
        """Read the configuration of the VM at a point."""
        folder = layout.located(self.root, layout.point(point.workload_id, point.vm_id, point.id))
        ovf = documents.read_bytes(folder / layout.OVF)
        document = documents.read(folder / layout.CONFIGURATION, "vm")
        if ovf is None or document is None:
            missing = layout.OVF if ovf is None else layout.CONFIGURATION
            raise DocumentDamaged(path=folder / missing, reason="it is not there")
        try:
            return StoredConfiguration(ovf=ovf.decode(), document=document["document"])
        except UnicodeDecodeError as error:
            raise DocumentDamaged(path=folder / layout.OVF, reason="it is not UTF-8") from error

    def folder(self, point: RestorePoint, disk_id: str) -> str:
        """Folder of a disk's images relative to the root, as orders to movers name it."""
        return str(layout.disk(point.workload_id, point.vm_id, disk_id))

    def chain(self, point: RestorePoint, disk_id: str) -> tuple[str, ...]:
        """Return the file names of a disk's chain, the image itself first, after checking the headers of all.

        Raises `NotFound` when the point does not hold the disk, and `ChainBroken`.
        """
        image = point.image(disk_id)
        if image is None:
            raise NotFound(kind="disk", name=disk_id, how="overkeep points --json")
        folder = layout.located(self.root, layout.disk(point.workload_id, point.vm_id, disk_id))
        try:
            reader = read_twice(lambda: ChainReader(folder, image.file), folder, image.file)
        except (ImageDamaged, ImageUnreadable, ImageUnsupported, UnsafeImage, TargetMissing) as error:
            raise ChainBroken(disk=image.name, point=point.id, reason=error) from error
        reader.close()
        if reader.size != image.virtual_size:
            reason = f"its image has {reader.size} bytes, the manifest says {image.virtual_size}"
            raise ChainBroken(disk=image.name, point=point.id, reason=reason)
        return reader.names

    def remove_point(self, workload_id: str, vm_id: str, *, point_id: str) -> None:
        """Let a point end (`removal.remove_point`)."""
        remove_point(self.root, workload_id, vm_id, point_id=point_id)

    def pin(self, point: RestorePoint) -> Pin | None:
        """Why a point must stay; None when it need not."""
        return read_pin(self._point_folder(point))

    def require_unpinned(self, point: RestorePoint) -> None:
        """Raise `PointPinned` while a point must stay."""
        require_unpinned(self._point_folder(point), point.id)

    def put_pin(self, point: RestorePoint, pin: Pin) -> None:
        """Let a point stay until `remove_pin`; raises `NotFound` when it has ended, also meanwhile."""
        with self._while_there(point) as folder:
            write_pin(folder, pin)

    def remove_pin(self, point: RestorePoint) -> None:
        """Let a point go again; raises `NotFound` when it has ended, also meanwhile."""
        with self._while_there(point) as folder:
            remove_pin(folder)

    @contextmanager
    def _while_there(self, point: RestorePoint) -> Iterator[Path]:
        """The folder of a point that is there before and after what is done in it; else raise `NotFound`.

        A removal looks for a pin, then renames the folder: whoever pins between the two must hear of it.
        """
        self.point(point.workload_id, point.vm_id, point.id)
        try:
            yield self._point_folder(point)
        except TargetMissing:
            self.point(point.workload_id, point.vm_id, point.id)
            raise
        self.point(point.workload_id, point.vm_id, point.id)

    def _point_folder(self, point: RestorePoint) -> Path:
        return layout.located(self.root, layout.point(point.workload_id, point.vm_id, point.id))

    def unnamed_images(self, workload_id: str, vm_id: str) -> Mapping[str, tuple[str, ...]]:
        """The images of each disk of a VM that are to be merged away, by disk (`removal.unnamed_images`).

        Disks without such images are left out.
        """
        disks = layout.folder_names(layout.located(self.root, layout.disks(workload_id, vm_id)))
        found = {disk: unnamed_images(self.root, workload_id, vm_id, disk_id=disk) for disk in disks}
        return {disk: images for disk, images in found.items() if images}

    def drafts(self) -> tuple[Draft, ...]:
        """Find all drafts, whoever's they are; `abandon` those whose job is dead."""
        return tuple(self._drafts())

    def _folders(self, workload_id: str | None, vm_id: str | None) -> Iterator[tuple[str, str, str]]:
        """Yield workload, VM and id of every point folder, drafts included."""
        for workload in self._workloads_of(workload_id, vm_id):
            for vm in _chosen(self.root / layout.vms(workload), vm_id):
                folder = layout.located(self.root, layout.points(workload, vm))
                for point in layout.folder_names(folder):
                    yield workload, vm, point

    def _workloads_of(self, workload_id: str | None, vm_id: str | None) -> Iterator[str]:
        if workload_id is None and vm_id is not None:
            return layout.workloads_with(self.root, vm_id)
        return _chosen(self.root / layout.workloads(), workload_id)

    def _looks(self, workload_id: str | None, vm_id: str | None) -> Iterator[RestorePoint | DamagedPoint]:
        for workload, vm, point in self._folders(workload_id, vm_id):
            item = self.look(workload, vm, point)
            if item is not None:
                yield item

    def _places(self) -> Iterator[tuple[str, str]]:
        for workload in self.workload_ids():
            for vm in layout.folder_names(self.root / layout.vms(workload)):
                yield workload, vm

    def _drafts(self) -> Iterator[Draft]:
        for workload, vm, point in self._folders(None, None):
            folder = self.root / layout.point(workload, vm, point)
            if documents.read_bytes(folder / layout.MANIFEST) is not None:
                continue
            try:
                job_id, created = _owner(folder)
            except TargetMissing:  # it was abandoned, or a point that ended, since it was listed
                continue
            yield Draft(self.root, workload, vm, point_id=point, job_id=job_id, created=created)


def _warn(item: DamagedPoint) -> None:
    log.warning("point left out %s", fields(point=item.point_id, vm=item.vm_id, reason=item.reason))


def _chosen(folder: Path, name: str | None) -> Iterator[str]:
    return iter((name,)) if name is not None else layout.folder_names(folder)


def _owner(folder: Path) -> tuple[str, dt.datetime]:
    """Whose draft a folder is and since when; without a readable `draft.json`, nobody's, since it was changed."""
    try:
        document = documents.read(folder / layout.DRAFT, "draft")
    except DocumentDamaged:
        document = None
    if document is not None:
        return document["job_id"], dt.datetime.fromisoformat(document["created"])
    with on_target(folder):
        return "", dt.datetime.fromtimestamp(folder.stat().st_mtime, dt.UTC)
