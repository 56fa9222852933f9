# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out orders that work inside one folder of the repository: merging images away, and checking them."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from overkeep.blocks.errors import on_target
from overkeep.blocks.merge.acts import MergeStats, merge_away
from overkeep.blocks.merge.folder import backings
from overkeep.blocks.merge.making import Watch as MergeWatch
from overkeep.blocks.merge.plan import plan
from overkeep.blocks.verify import Findings, Sample
from overkeep.errors import Conflict, NotFound, OverkeepError
from overkeep.mover.copy_terms import Watch
from overkeep.mover.orders import ImageFindings, MergeOrder, MergeResult, Progress, VerifyOrder, VerifyResult, rounded
from overkeep.mover.targets import Targets, manifest_of
from overkeep.mover.verifying import ImageChecks
from overkeep.mover.work import Work
from overkeep.repository import layout
from overkeep.repository.merging import MergeJournal


class PointExists(OverkeepError):
    """An image should go whose restore point is still there."""

    code = "point-exists"
    template = (
        "The image {path} belongs to a restore point that still exists, so nothing was merged; "
        "remove the point first, then merge its images."
    )


class MergePending(OverkeepError):
    """Digests should be made anew while those of a merged image are there, and the image is not."""

    code = "merge-pending"
    status = 409
    template = (
        "A merge in {path} has not ended, and counts on the digests that it has made; merge again, then repeat this."
    )


class Bookkeeper:
    """Executes merge and verify orders. Safe to use from several threads."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    def merge(self, work: Work, order: MergeOrder) -> MergeResult:
        """Remove images whose points are gone; stopped or failed, it can be ordered again and goes on."""
        stats = merge_images(self._targets.changeable_folder(order), order.remove, watch=work)
        return MergeResult(
            moved=stats.moved,
            freed=stats.freed,
            removed=stats.removed,
            seconds=stats.seconds,
            stages=rounded(stats.stages),
        )

    def verify(self, work: Work, order: VerifyOrder) -> VerifyResult:
        """Check images one after the other until the time is over; what is wrong is told, not raised."""
        began = time.monotonic()
        folder = self._targets.existing_folder(order)
        checks = ImageChecks(Sample.within(order.seconds, share=order.share), work)
        found = checks([(folder, name) for name in order.images])
        reached = tuple(_on_the_wire(one) for one in found if one.reached)
        return VerifyResult(images=reached, seconds=time.monotonic() - began)


def merge_images(folder: Path, remove: Collection[str], *, watch: Watch) -> MergeStats:
    """Remove images of `folder`, none of which may belong to a point that exists; their data go into those above.

    Raises `PointExists`, and what `merge_away` does.
    """
    for name in remove:
        _require_no_point(folder, name)
    return merge_away(
        folder,
        remove,
        journal=MergeJournal(folder),
        watch=MergeWatch(
            progress=lambda moved, total: watch.progress(Progress(done=moved, total=total, moved=moved)),
            cancelled=lambda: watch.stopped,
        ),
    )


def merge_by_hand(folder: Path, remove: Collection[str], *, delete: bool, watch: Watch) -> MergeStats:
    """As `merge_images`, for names that somebody typed and nobody has ended points of.

    Raises `NotFound` for what is neither there nor being merged, and `Conflict` for images that nothing which stays is
    built upon, unless their data are to be deleted (`delete`).
    """
    for name in remove:
        _require_no_point(folder, name)
    pending = MergeJournal(folder).look()
    going = pending.run.images if pending is not None else ()
    _require_there(folder, [name for name in remove if name not in going])
    if not delete:
        _require_above(folder, remove, merged=going[:-1])
    return merge_images(folder, remove, watch=watch)


def _require_there(folder: Path, names: Collection[str]) -> None:
    for name in names:
        path = folder / name
        with on_target(path):
            if not path.is_symlink() and not path.exists():
                raise NotFound(kind="image", name=str(path), how=f"ls {folder}")


def _require_above(folder: Path, remove: Collection[str], *, merged: Collection[str]) -> None:
    """Raise `Conflict` for images that would not be merged but deleted; those that are `merged` already are neither."""
    lost = sorted(set(plan(backings(folder, remove), remove).leaves) - set(merged))
    if lost:
        raise Conflict(
            what=f"No image that stays is built upon {', '.join(lost)} in {folder}, so the data would be lost",
            todo="merge again with --delete if that is what you want",
        )


def require_no_merge(folder: Path) -> None:
    """Raise `MergePending` when a merge in `folder` was begun and has not ended."""
    path = folder / layout.MERGE
    with on_target(path):
        if path.exists():
            raise MergePending(path=folder)


def _require_no_point(folder: Path, name: str) -> None:
    path = manifest_of(folder, name)
    with on_target(path):
        if path.exists():
            raise PointExists(path=folder / name)


def _on_the_wire(found: Findings) -> ImageFindings:
    return ImageFindings(
        image=found.image,
        held=found.held,
        checked=found.checked,
        damaged=found.damaged,
        named=found.named,
        undigested=found.undigested,
        leaked=found.leaked,
        errors=found.errors,
    )
