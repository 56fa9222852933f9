# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision which images of a folder are merged into which, and which are only unlinked. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from overkeep.blocks.errors import ImageShared, UnsafeImage

Backings = Mapping[str, str | None]
"""Backing names by the names of all images of a folder."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of a chain that becomes one file: `images`, oldest first, of which the last keeps its name.

    `base` is the backing image of the oldest, None when it has none.
    """

    images: tuple[str, ...]
    base: str | None

    @property
    def newest(self) -> str:
        """The image that stays."""
        return self.images[-1]

    @property
    def removed(self) -> tuple[str, ...]:
        """The images that go, newest first: none of them is left without its backing image for a moment."""
        return self.images[-2::-1]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done in a folder: `leaves` are unlinked in this order, and each of `runs` is merged."""

    leaves: tuple[str, ...]
    runs: tuple[Run, ...]


def plan(backings: Backings, remove: Collection[str]) -> Plan:
    """Decide how the images in `remove` go; names that are not in the folder are gone already.

    Raises `ImageShared` when one of them is named by several images that stay, and `UnsafeImage` when backing names
    lead round in a circle.
    """
    left = dict(backings)
    unwanted = {name for name in remove if name in backings}
    leaves = tuple(_take_leaves(left, unwanted))
    _require_single(left, unwanted)
    runs = tuple(
        _run_below(name, left, unwanted)
        for name in sorted(left)
        if name not in unwanted and left[name] is not None and left[name] in unwanted
    )
    lost = unwanted - {name for run in runs for name in run.removed}
    if lost:
        raise UnsafeImage(file=min(lost), reason="its chain comes back to itself")
    return Plan(leaves=leaves, runs=runs)


def _take_leaves(left: dict[str, str | None], unwanted: set[str]) -> Iterator[str]:
    """Take unwanted images that nobody names out of both, top down."""
    while free := sorted(unwanted - set(left.values()), reverse=True):
        for name in free:
            del left[name]
            unwanted.discard(name)
            yield name


def _require_single(left: Backings, unwanted: Collection[str]) -> None:
    for name in sorted(unwanted):
        above = sorted(image for image, backing in left.items() if backing == name)
        if len(above) > 1:
            raise ImageShared(file=name, images=", ".join(above))


def _run_below(newest: str, left: Backings, unwanted: Collection[str]) -> Run:
    images = [newest]
    below = left[newest]
    while below is not None and below in unwanted:
        images.append(below)
        below = left[below]
    return Run(images=tuple(reversed(images)), base=below)
