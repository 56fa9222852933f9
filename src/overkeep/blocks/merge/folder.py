# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of a disk as a merge sees it: which images there are, and how they go."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digests import sums_name
from overkeep.blocks.errors import (
    ImageDamaged,
    ImageShared,
    ImageUnsupported,
    MergeDiffers,
    TargetMissing,
    UnsafeImage,
    on_target,
)
from overkeep.blocks.files import sync_folder
from overkeep.blocks.merge.plan import Run
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.layout import Header
from overkeep.blocks.qcow2.reader import Layer, open_images
from overkeep.blocks.qcow2.view import View

_SUFFIX = ".qcow2"


def header_of(folder: Path, name: str) -> Header:
    """Read the header of one image."""
    image = ImageFile(folder, name)
    image.close()
    return image.header


def backings(folder: Path, unwanted: Collection[str] = ()) -> dict[str, str | None]:
    """The backing names of all images of a folder; an unwanted one that cannot be read has none.

    Any other that cannot be read is raised, as is a listing that fails: nobody knows then what is still needed. Names
    that begin with a dot are of files that other programs keep for themselves.
    """
    with on_target(folder), os.scandir(folder) as listed:
        names = [entry.name for entry in listed if entry.name.endswith(_SUFFIX) and not entry.name.startswith(".")]
    found: dict[str, str | None] = {}
    for name in sorted(names):
        try:
            found[name] = header_of(folder, name).backing
        except TargetMissing:  # it went after it was listed
            continue
        except (ImageDamaged, ImageUnsupported, UnsafeImage):
            if name not in unwanted:
                raise
            found[name] = None
    return found


def unlink(folder: Path, names: Collection[str]) -> None:
    """Unlink images and their digests, in this order; those that are gone are no error."""
    for name in names:
        for path in (folder / sums_name(name), folder / name):
            with on_target(path):
                path.unlink(missing_ok=True)
    if names:
        sync_folder(folder)


def unlink_merged(folder: Path, run: Run) -> None:
    """Unlink the images of a run that were merged into its newest, once nothing names them any more."""
    for name, backing in backings(folder, run.removed).items():
        if name not in run.removed and backing in run.removed:
            raise ImageShared(file=backing, images=f"{run.newest}, {name}")
    unlink(folder, run.removed)


def stored(folder: Path, names: Collection[str]) -> int:
    """Bytes that images and their digests take up on the target."""
    total = 0
    for name in names:
        for path in (folder / name, folder / sums_name(name)):
            with on_target(path):
                try:
                    total += path.lstat().st_blocks * 512
                except FileNotFoundError:
                    continue
    return total


def _qcow2(layers: Sequence[Layer]) -> list[ImageFile]:
    images = [layer for layer in layers if isinstance(layer, ImageFile)]
    if len(images) < len(layers):
        raise ImageUnsupported(file=layers[-1].name, feature="the raw format, and should be merged")
    return images


@contextmanager
def opened(folder: Path, run: Run) -> Iterator[View]:
    """Open the images of a run that has not been merged; raise `MergeDiffers` when they are not that run any more."""
    images = open_images(folder, run.newest)
    try:
        names = [image.name for image in images]
        count = len(run.images)
        base = names[count] if len(names) > count else None
        if names[:count] != list(reversed(run.images)) or base != run.base:
            expected = " over ".join([*reversed(run.images), run.base or "nothing"])
            raise MergeDiffers(file=run.newest, reason=f"its chain is {' over '.join(names)} and should be {expected}")
        yield View(_qcow2(images[:count]), images[count].size if base else 0, grain=CLUSTER)
    finally:
        for image in images:
            image.close()
