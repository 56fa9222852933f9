# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading again what was written: a target or storage that returns other data must be found before it is relied on."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator
from contextlib import closing

from overkeep.blocks.copy import copy
from overkeep.blocks.differences import Differences
from overkeep.blocks.digests import Digests, sums_name
from overkeep.blocks.ends import Extent, Source
from overkeep.blocks.errors import DigestsDamaged, ImageDamaged, TargetMissing, UnsafeImage, on_target
from overkeep.blocks.expected import ChainDigests
from overkeep.blocks.files import forget_cached, sync_folder
from overkeep.blocks.image import ChainReader
from overkeep.blocks.sampling import held, sampled
from overkeep.blocks.wrappers import Beginning
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.mover.copy_terms import Options, Place, Watch

log = logging.getLogger(__name__)


class ReadBackDiffers(OverkeepError):
    """What the target returns is not what was written to it."""

    code = "read-back-differs"
    template = (
        "The backup target does not return what was written to {name} ({reason}), so that image is given up; "
        "check the target's server, disks and network before you back up to it again."
    )


class RestoreDiffers(OverkeepError):
    """What the disk returns is not what was restored to it."""

    code = "restore-differs"
    template = (
        "The disk at {disk} does not return what was restored to it ({clusters} clusters differ); "
        "look at its storage, and restore to another one."
    )


def read_back(place: Place, options: Options, watch: Watch) -> None:
    """Read a share of the finished image `place` and compare it with its digests.

    The image is removed unless all of that share is as it was written. Raises `ReadBackDiffers`, `Cancelled`, and the
    errors of the target.
    """
    try:
        reason = _fault(place, options, watch)
        if reason:
            raise ReadBackDiffers(name=place.name, reason=reason)
    except BaseException:
        _remove(place)
        raise


def read_disk_back(
    place: Place, disk: Source, written: Iterable[Extent] | None, *, name: str, options: Options, watch: Watch
) -> None:
    """Read a share of what was `written` to `disk` and compare it with the digests of the chain `place`.

    With None for all of the chain it is a share of its data, and with a share of 1 the whole disk, zeroes included.
    Raises `RestoreDiffers`, which calls the disk `name`, `Cancelled`, and the errors of both ends.
    """
    with (
        closing(ChainDigests(place.folder, place.name)) as expected,
        closing(ChainReader(place.folder, place.name)) as chain,
    ):
        restored = Beginning(disk, expected.size)
        if written is None:
            whole = options.read_back >= 1
            written = restored.extents(dirty=False) if whole else _data(chain.extents(dirty=False))
        pieces = sampled(written, options.read_back, random.SystemRandom())
        differences = Differences(expected, size=expected.size)
        copy(restored, differences, pieces, workers=options.workers, cancelled=lambda: watch.stopped)
    if differences.clusters:
        raise RestoreDiffers(disk=name, clusters=differences.clusters)


def _data(extents: Iterable[Extent]) -> Iterator[Extent]:
    return (extent for extent in extents if not extent.zero)


def _fault(place: Place, options: Options, watch: Watch) -> str:
    """What is wrong with the image; empty when nothing is."""
    try:
        clusters = _differing(place, options, watch)
    except (ImageDamaged, UnsafeImage, DigestsDamaged, TargetMissing) as error:
        return str(error)
    return f"{clusters} clusters differ" if clusters else ""


def _differing(place: Place, options: Options, watch: Watch) -> int:
    sums = place.folder / sums_name(place.name)
    forget_cached(sums)
    with closing(ChainReader(place.folder, place.name, cached=False)) as chain, closing(Digests(sums)) as digests:
        differences = Differences(digests, size=chain.size)
        pieces = sampled(held(digests), options.read_back, random.SystemRandom())
        copy(chain, differences, pieces, workers=options.workers, cancelled=lambda: watch.stopped)
    return differences.clusters


def _remove(place: Place) -> None:
    """Remove the image; what stays is garbage, as no manifest names it, and the first error matters more."""
    try:
        for name in (place.name, sums_name(place.name)):
            with on_target(place.folder / name):
                (place.folder / name).unlink(missing_ok=True)
        sync_folder(place.folder)
    except OverkeepError as error:
        log.warning("image stays %s", fields(path=place.folder / place.name, error=repr(str(error))))
