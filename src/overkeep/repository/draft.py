# SPDX-License-Identifier: GPL-3.0-or-later
"""Points in the making: begun, filled, and committed by one rename or removed without a trace."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overkeep.blocks.errors import ImageDamaged, ImageUnsupported, TargetMissing, UnsafeImage, on_target
from overkeep.blocks.files import sync_folder
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.errors import Conflict
from overkeep.logs import fields
from overkeep.model.points import DiskImage, RestorePoint
from overkeep.repository import documents, layout, seals
from overkeep.repository.errors import DraftGone, DraftIncomplete
from overkeep.repository.manifest import point_document, point_value

log = logging.getLogger(__name__)

_BEGINNINGS = tuple(f".{name}." for name in (layout.MANIFEST, layout.OVF, layout.CONFIGURATION, layout.DRAFT))


class Draft:
    """A point in the making; every method may be called again by a job that is replayed.

    `job_id` is whose it is, empty when its owner died before writing its name; `created` is since when.
    """

    def __init__(
        self, root: Path, workload_id: str, vm_id: str, *, point_id: str, job_id: str, created: dt.datetime
    ) -> None:
        self._root = root
        self.workload_id = workload_id
        self.vm_id = vm_id
        self.point_id = point_id
        self.job_id = job_id
        self.created = created
        self._folder = root / layout.point(workload_id, vm_id, point_id)

    @property
    def image_name(self) -> str:
        """Name of the image to be written, in the folder of each disk."""
        return layout.image_name(self.point_id)

    @property
    def committed(self) -> bool:
        """Whether the point exists already."""
        return documents.read(self._folder / layout.MANIFEST, "point") is not None

    def folder(self, disk_id: str) -> str:
        """Make the folder of a disk; return its path relative to the root, as orders to movers name it."""
        relative = layout.disk(self.workload_id, self.vm_id, disk_id)
        layout.make_folders(self._root, relative)
        return str(relative)

    def image_folder(self, disk_id: str) -> Path:
        """Make the folder of a disk; return its path."""
        return self._root / self.folder(disk_id)

    def begin(self) -> None:
        """Make the folder and write whose it is; raise `Conflict` when it is another job's."""
        layout.make_folders(self._root, layout.point(self.workload_id, self.vm_id, self.point_id))
        existing = self._existing()
        self._check_owned_by(existing.job_id if existing else self._claim())

    def _check_owned_by(self, owner: str) -> None:
        if owner != self.job_id:
            raise Conflict(
                what=f"Restore point {self.point_id} belongs to job {owner}",
                todo="let that job end, then run the backup again",
            )

    def _claim(self) -> str:
        """Write the owner unless there is one; return who it is."""
        path = self._folder / layout.DRAFT
        claim = {"job_id": self.job_id, "created": self.created.isoformat()}
        if documents.read(path, "draft") is None:
            documents.create(path, {**documents.envelope("draft"), **claim})
        document = documents.read(path, "draft")
        if document is None:
            raise DraftGone(point=self.point_id)
        return str(document["job_id"])

    @property
    def configured(self) -> bool:
        """Whether `write_configuration` has written all."""
        return documents.read_bytes(self._folder / layout.CONFIGURATION) is not None

    def write_configuration(self, ovf: str, document: Mapping[str, Any]) -> None:
        """Write the VM's configuration: its OVF as it is, and what OVF leaves out."""
        self._check_owner()
        documents.write_bytes(self._folder / layout.OVF, ovf.encode())
        content = {**documents.envelope("vm"), "document": dict(document)}
        documents.write(self._folder / layout.CONFIGURATION, content)

    def commit(self, point: RestorePoint) -> RestorePoint:
        """Check everything the manifest names and write the manifest; the point exists once this returns.

        Committing the same point again succeeds, and removes what is left of the draft. Raises `DraftIncomplete` when
        an image or the configuration is not there or not what the manifest says, `DraftGone` when the draft was
        removed, `Conflict` when another point of this id exists.
        """
        existing = self._existing()
        if existing is not None and existing != point:
            raise Conflict(
                what=f"Restore point {self.point_id} was committed already, with other contents",
                todo="run the backup again, which makes a point of its own",
            )
        if existing is None:
            self._check_owner()
            self._check_complete(point)
            manifest = point_document(point, seals.sealed(self._configuration(point)))
            documents.write(self._folder / layout.MANIFEST, manifest)
            log.info("point committed %s", fields(point=point.id, vm=point.vm_id, job=point.job_id, mode=point.mode))
        self._remove(self._folder, *self._half_written(), layout.DRAFT)
        return point

    def abandon(self) -> None:
        """Remove what was made for the point, and nothing else; raise `Conflict` when the point was committed.

        Whatever cannot be listed or removed is raised, and `draft.json` then stays, so that this can be repeated.
        """
        if self.committed:
            raise Conflict(what=f"Restore point {self.point_id} is committed", todo="expire it instead")
        owner = documents.read(self._folder / layout.DRAFT, "draft") if self.job_id else None
        if owner is not None:
            self._check_owned_by(str(owner["job_id"]))
        disks = self._root / layout.disks(self.workload_id, self.vm_id)
        for disk_id in layout.folder_names(disks):
            self._remove(disks / disk_id, *layout.point_files(self.point_id))
            _remove_if_empty(disks / disk_id)
        self._remove_own_folder()

    def _remove_own_folder(self) -> None:
        self._remove(self._folder, layout.OVF, layout.CONFIGURATION, *self._half_written())
        self._remove(self._folder, layout.DRAFT)
        _remove_if_empty(self._folder)
        log.info("draft removed %s", fields(point=self.point_id, vm=self.vm_id, job=self.job_id))

    def _half_written(self) -> list[str]:
        """Documents of the draft that a process was writing when it was killed; others may write of a point later."""
        with on_target(self._folder):
            try:
                names = [entry.name for entry in self._folder.iterdir()]
            except FileNotFoundError:
                return []
        return [name for name in names if name.startswith(_BEGINNINGS) and name.endswith(".tmp")]

    def _remove(self, folder: Path, *names: str) -> None:
        removed = False
        for name in names:
            with on_target(folder / name):
                try:
                    (folder / name).unlink()
                    removed = True
                except FileNotFoundError:
                    continue
        if removed:
            sync_folder(folder)

    def _existing(self) -> RestorePoint | None:
        path = self._folder / layout.MANIFEST
        document = documents.read(path, "point")
        return None if document is None else point_value(document, path)

    def _check_owner(self) -> None:
        document = documents.read(self._folder / layout.DRAFT, "draft")
        if document is None or document["job_id"] != self.job_id:
            raise DraftGone(point=self.point_id)

    def _check_complete(self, point: RestorePoint) -> None:
        if (point.workload_id, point.vm_id, point.id) != (self.workload_id, self.vm_id, self.point_id):
            raise DraftIncomplete(point=point.id, reason=f"it is not the point of draft {self.point_id}")
        if point.job_id != self.job_id:
            raise DraftIncomplete(point=point.id, reason=f"it is of job {point.job_id}, not {self.job_id}")
        for image in point.images:
            self._check_image(point, image)

    def _configuration(self, point: RestorePoint) -> dict[str, bytes]:
        """The files of the VM's configuration, by their names, as they will stay."""
        documents.read(self._folder / layout.CONFIGURATION, "vm")
        found = {name: documents.read_bytes(self._folder / name) for name in (layout.OVF, layout.CONFIGURATION)}
        files = {name: content for name, content in found.items() if content is not None}
        if len(files) < len(found):
            raise DraftIncomplete(point=point.id, reason="the configuration of the VM is not there")
        return files

    def _check_image(self, point: RestorePoint, image: DiskImage) -> None:
        if image.file != self.image_name:
            raise DraftIncomplete(point=point.id, reason=f"its image of disk {image.name!r} is called {image.file}")
        relative = layout.disk(point.workload_id, point.vm_id, image.disk_id)
        folder = layout.located(self._root, relative)
        try:
            sync_folder(folder)  # opening it also makes an NFS client ask the server what a mover has just put there
            reader = ChainReader(folder, image.file)
        except (ImageDamaged, ImageUnsupported, UnsafeImage, TargetMissing) as error:
            raise DraftIncomplete(point=point.id, reason=f"disk {image.name!r}: {error}") from error
        try:
            backing = reader.names[1] if len(reader.names) > 1 else None
            found = (reader.size, backing)
        finally:
            reader.close()
        if found != (image.virtual_size, image.backing):
            expected = f"{image.virtual_size} bytes over {image.backing or 'nothing'}"
            reason = (
                f"the image of disk {image.name!r} has {found[0]} bytes over {backing or 'nothing'}, not {expected}"
            )
            raise DraftIncomplete(point=point.id, reason=reason)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:  # not empty, or gone already; an empty folder that stays harms nobody
        log.debug("folder stays %s", fields(path=folder, reason=error))
