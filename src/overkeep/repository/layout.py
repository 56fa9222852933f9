# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things lie in the tree (docs/format/1.md), and which names are safe to be there."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from overkeep.blocks.errors import on_target
from overkeep.blocks.files import PARTIAL, sync_folder
from overkeep.repository.errors import BadName, UnsafePath

IDENTITY = "overkeep.json"
WORKLOAD = "workload.json"
MANIFEST = "point.json"
OVF = "vm.ovf"
CONFIGURATION = "vm.json"
DRAFT = "draft.json"
MERGE = "merge.json"
VERIFICATION = "verification.json"
PIN = "pin.json"

_REMOVED = ".removed"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def checked_id(kind: str, name: str) -> str:
    """Return `name`; raise `BadName` when it cannot be the id of a `kind`."""
    if not _ID.fullmatch(name):
        raise BadName(kind=kind, name=name)
    return name


def is_id(name: str) -> bool:
    """Whether `name` may be an id."""
    return _ID.fullmatch(name) is not None


def workloads() -> PurePosixPath:
    """Folder of all workloads; this and all paths here are relative to the root."""
    return PurePosixPath("workloads")


def workload(workload_id: str) -> PurePosixPath:
    """Folder of a workload."""
    return workloads() / checked_id("workload", workload_id)


def vms(workload_id: str) -> PurePosixPath:
    """Folder of the VMs of a workload."""
    return workload(workload_id) / "vms"


def points(workload_id: str, vm_id: str) -> PurePosixPath:
    """Folder of the restore points of a VM."""
    return vms(workload_id) / checked_id("VM", vm_id) / "points"


def point(workload_id: str, vm_id: str, point_id: str) -> PurePosixPath:
    """Folder of a restore point."""
    return points(workload_id, vm_id) / checked_id("restore point", point_id)


def disks(workload_id: str, vm_id: str) -> PurePosixPath:
    """Folder of the disks of a VM."""
    return vms(workload_id) / checked_id("VM", vm_id) / "disks"


def disk(workload_id: str, vm_id: str, disk_id: str) -> PurePosixPath:
    """Folder of the images of a disk."""
    return disks(workload_id, vm_id) / checked_id("disk", disk_id)


def removed_name(point_id: str) -> str:
    """Name that the folder of a point has once the point has ended, and until the folder is gone; not an id."""
    return f".{checked_id('restore point', point_id)}{_REMOVED}"


def is_removed(name: str) -> bool:
    """Whether this is the name of the folder of a point that has ended."""
    return name.startswith(".") and name.endswith(_REMOVED)


def image_name(point_id: str) -> str:
    """Name of the image of a point, in the folder of each of its disks."""
    return f"{checked_id('restore point', point_id)}.qcow2"


def point_files(point_id: str) -> tuple[str, ...]:
    """All names that a point may have in the folder of a disk, unfinished ones first."""
    names = (image_name(point_id), f"{point_id}.sums")
    return (*(name + PARTIAL for name in names), *names)


def located(root: Path, relative: PurePosixPath) -> Path:
    """Return the path of `relative` under `root`; raise `UnsafePath` when a symbolic link leads out of its way.

    What is not there yet is no link.
    """
    path = str(root)
    for part in relative.parts:
        path = f"{path}/{part}"
        with on_target(path):
            try:
                mode = os.stat(path, follow_symlinks=False).st_mode  # noqa: PTH116 - a Path costs more than the look
            except (FileNotFoundError, NotADirectoryError):
                break
        if stat.S_ISLNK(mode):
            raise UnsafePath(path=root / relative)
    return root / relative


def make_folders(root: Path, relative: PurePosixPath) -> Path:
    """Make the folder and those above it that are not there, durably; return its path."""
    path = located(root, relative)
    _make_folder(root, path)
    return path


def _make_folder(root: Path, path: Path) -> None:
    """Make a folder below `root`; mostly all above it are there, and each look is a call to the server."""
    with on_target(path):
        try:
            path.mkdir()
        except FileExistsError:
            return
        except FileNotFoundError:
            if path.parent == root:
                raise
            _make_folder(root, path.parent)
            with suppress(FileExistsError):
                path.mkdir()
    sync_folder(path.parent)


def workloads_with(root: Path, vm_id: str) -> Iterator[str]:
    """Yield the ids of the workloads that have a folder of a VM's points, sorted.

    Every backup asks, and most of hundreds of workloads have none: here no more is done for these than to ask for it.
    """
    above, below = str(root / workloads()), str(points("w", vm_id).relative_to(workload("w")))
    for name in folder_names(root / workloads()):
        path = f"{above}/{name}/{below}"
        with on_target(path):
            try:
                os.stat(path, follow_symlinks=False)  # noqa: PTH116 - a Path costs more than the look
            except FileNotFoundError:
                continue
        yield name


def folder_names(folder: Path) -> Iterator[str]:
    """Yield the names of the folders in `folder` that may be ids, sorted; nothing when it does not exist.

    Any other failure is raised: a listing that failed is never taken for an empty one.
    """
    with on_target(folder):
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if is_id(entry.name) and entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return
    yield from sorted(names)
