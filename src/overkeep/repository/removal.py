# SPDX-License-Identifier: GPL-3.0-or-later
"""Points that end, and the images that nobody names any more (docs/format/1.md, "Removing points")."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from overkeep.blocks.errors import on_target
from overkeep.blocks.files import sync_folder
from overkeep.errors import Conflict
from overkeep.logs import fields
from overkeep.repository import documents, layout
from overkeep.repository.manifest import point_value
from overkeep.repository.pins import require_unpinned

_IMAGE = ".qcow2"

log = logging.getLogger(__name__)


def remove_point(root: Path, workload_id: str, vm_id: str, *, point_id: str) -> None:
    """Let a point end, durably; its images stay, as those above them may need them. One that is gone is no error.

    Raises `Conflict` for a draft, and `PointPinned`.
    """
    folder = layout.located(root, layout.point(workload_id, vm_id, point_id))
    _sweep(folder.parent)
    with on_target(folder):
        if not folder.exists():
            return
    if documents.read_bytes(folder / layout.MANIFEST) is None:
        raise Conflict(what=f"Restore point {point_id} is a draft", todo="abandon it instead")
    require_unpinned(folder, point_id)
    with on_target(folder):
        folder.rename(folder.with_name(layout.removed_name(point_id)))
    sync_folder(folder.parent)
    log.info("point removed %s", fields(point=point_id, vm=vm_id))
    _sweep(folder.parent)


def _sweep(points: Path) -> None:
    """Remove the folders of points that have ended; what cannot be removed harms nobody."""
    with on_target(points):
        try:
            names = [entry.name for entry in points.iterdir() if layout.is_removed(entry.name)]
        except FileNotFoundError:
            return
    for name in names:
        try:
            for path in (points / name).iterdir():
                path.unlink(missing_ok=True)
            (points / name).rmdir()
        except OSError as error:
            log.info("folder stays %s", fields(path=points / name, reason=error))


def unnamed_images(root: Path, workload_id: str, vm_id: str, *, disk_id: str) -> tuple[str, ...]:
    """The images of a disk that no manifest names and no draft owns: they are to be merged away.

    Whatever cannot be read is raised: an image that a damaged manifest may name is never among them.
    """
    folder = layout.located(root, layout.disk(workload_id, vm_id, disk_id))
    images = set(_images(folder))  # first: the folder of a draft is there before its images are
    points = layout.located(root, layout.points(workload_id, vm_id))
    named = set(_named(points, disk_id)) if images else set()
    return tuple(sorted(name for name in images - named if not _has_point(points, name)))


def _named(points: Path, disk_id: str) -> Iterator[str]:
    for point_id in layout.folder_names(points):
        path = points / point_id / layout.MANIFEST
        document = documents.read(path, "point")
        image = point_value(document, path).image(disk_id) if document is not None else None
        if image is not None:
            yield image.file


def _has_point(points: Path, image: str) -> bool:
    """Whether there is a point or draft of that name: asked for by itself, as a listing may be old on NFS."""
    path = points / image.removesuffix(_IMAGE)
    with on_target(path):
        return path.exists()


def _images(folder: Path) -> Iterator[str]:
    with on_target(folder):
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries]
        except FileNotFoundError:
            return
    yield from (name for name in names if name.endswith(_IMAGE) and layout.is_id(name.removesuffix(_IMAGE)))
