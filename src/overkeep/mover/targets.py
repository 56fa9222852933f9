# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of an order's image: on the right mount, in the right repository, inside of it, and free to be written."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from overkeep.blocks.errors import on_target
from overkeep.errors import OverkeepError
from overkeep.mover.orders import Image, MergeOrder, VerifyOrder
from overkeep.repository import layout
from overkeep.repository.identity import read_identity
from overkeep.repository.mounts import Mounts, require_writable

Place = Image | MergeOrder | VerifyOrder
"""What names a target, its repository and a folder in it."""


class RepositoryDiffers(OverkeepError):
    """The target holds another repository than the controller means."""

    code = "repository-differs"
    template = (
        "Target {target!r} at {path} holds the repository {found} and the controller means {meant}; "
        "the wrong export is mounted, correct the target's `source`."
    )


class ImageExists(OverkeepError):
    """The image is there already."""

    code = "image-exists"
    template = "The image {path} exists already ({reason}) and is not replaced; back the VM up again as a new point."


class Targets:
    """The repositories that orders may name. Raises the typed errors of `Mounts` and of the block plane, too."""

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts

    def existing_folder(self, place: Place) -> Path:
        """The folder of images that are read."""
        root = self._root(place)
        return layout.located(root, PurePosixPath(place.folder))

    def changeable_folder(self, disk: Place) -> Path:
        """The folder of images that are there and are changed."""
        root = self._root(disk)
        require_writable(root)
        return layout.located(root, PurePosixPath(disk.folder))

    def writable_folder(self, image: Image) -> Path:
        """The folder of an image that is written, made with its parents when it is not there."""
        root, folder = self._root(image), PurePosixPath(image.folder)
        require_writable(root)
        layout.located(root, folder)  # before anything is made: not one folder behind a link
        return layout.make_folders(root, folder)

    def _root(self, place: Place) -> Path:
        root = self._mounts.ensure(place.target, repository=place.repository)
        found = read_identity(root).id
        if found != place.repository:
            raise RepositoryDiffers(target=place.target, path=root, found=found, meant=place.repository)
        return root


def manifest_of(folder: Path, image: str) -> Path:
    """The manifest of the point that an image in the folder of a disk was made for."""
    return folder.parent.parent / "points" / Path(image).stem / layout.MANIFEST


def require_replaceable(folder: Path, image: Image, *, fence: int, finished: int) -> None:
    """Raise `ImageExists` when the image is there and this attempt may not replace it.

    `finished` is the fence of the order that was done at this sink on this mover, 0 if none was. A later attempt of
    the same job replaces what an earlier one wrote before a crash; an image of a committed point is never replaced.
    """
    path = folder / image.name
    manifest = manifest_of(folder, image.name)
    with on_target(path):
        if not path.exists():
            return
        committed = manifest.exists()
    if committed:
        raise ImageExists(path=path, reason="it belongs to a committed restore point")
    if fence <= max(1, finished):
        raise ImageExists(path=path, reason=f"the attempt with fence {max(1, finished)} made it, this one has {fence}")
