# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks one image: that its structure is sound, and that what it holds reads as its digests say."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import WORKERS, Progress, copy
from overkeep.blocks.differences import Differences
from overkeep.blocks.digests import Digests, sums_name
from overkeep.blocks.ends import Extent
from overkeep.blocks.errors import (
    DigestsDamaged,
    ImageDamaged,
    ImageUnreadable,
    ImageUnsupported,
    TargetFailed,
    TargetMissing,
    UnsafeImage,
)
from overkeep.blocks.files import forget_cached
from overkeep.blocks.image import ChainReader
from overkeep.blocks.qcow2.check import check_image
from overkeep.blocks.qcow2.findings import Fault
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.runs import Kind
from overkeep.blocks.sampling import held, sampled, shuffled, until
from overkeep.blocks.stages import Stages
from overkeep.blocks.unreadable import read_twice
from overkeep.blocks.wrappers import Timed
from overkeep.errors import Cancelled

MOST_NAMED = 16
"""Damaged clusters that are named one by one."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """How much of images is read: a `share` of each (0 to 1), and nothing that was not begun before `end`.

    `end` is a moment of `time.monotonic()`, so that it is the same one for all images that are checked together.
    """

    share: float = 1.0
    end: float | None = None

    @classmethod
    def within(cls, seconds: float | None, *, share: float = 1.0) -> Sample:
        """What can be read in so many seconds from now on; None for as many as it takes."""
        return cls(share=share, end=None if seconds is None else time.monotonic() + seconds)

    @property
    def over(self) -> bool:
        """Whether nothing is to be begun any more."""
        return self.end is not None and time.monotonic() >= self.end


ALL = Sample()
"""Everything is read."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a check of an image found.

    `held` and `checked` are bytes of the disk: what the image holds itself, and what of that was read and compared.
    `damaged` counts clusters that do not read as their digests say; the first of them are `named`, by number.
    `undigested` counts clusters that are held and have no digest. `errors` are sentences; `leaked` is the number of
    clusters of the file that nothing refers to, which harms nobody. An image that was not `reached`, because the time
    was over before, was not looked at.
    """

    image: str
    held: int = 0
    checked: int = 0
    damaged: int = 0
    named: tuple[int, ...] = ()
    undigested: int = 0
    leaked: int = 0
    errors: tuple[str, ...] = ()
    stages: tuple[tuple[str, float], ...] = ()
    reached: bool = True

    @property
    def sound(self) -> bool:
        """Whether it was looked at, and nothing was found that a restore would suffer from."""
        return self.reached and not (self.damaged or self.undigested or self.errors)


def verify_image(
    folder: Path,
    name: str,
    *,
    sample: Sample = ALL,
    workers: int = WORKERS,
    progress: Progress = lambda covered, moved: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Findings:
    """Check image `name` of a chain in `folder`; damage is told in the findings, never raised.

    What the image leaves to its backing image is not looked at: check each image of a chain. Data are read past the
    page cache. An image that cannot be read, twice, where the target answers otherwise, is a finding: a bad place of a
    server's disk must not keep the other images from being checked. Raises `Cancelled`, and the typed errors of a
    target that does not answer.
    """
    reading = partial(_verify, folder, name, sample=sample, workers=workers, progress=progress, cancelled=cancelled)
    try:
        return read_twice(reading, folder, name)
    except ImageUnreadable as error:
        return Findings(image=name, errors=(str(error),))


def _verify(
    folder: Path,
    name: str,
    *,
    sample: Sample,
    workers: int,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> Findings:
    def check() -> None:
        if cancelled():
            raise Cancelled(what="The check")

    try:
        faults = _structure(folder, name, check)
        with ExitStack() as stack:
            chain = stack.enter_context(closing(ChainReader(folder, name, cached=False)))
            image = stack.enter_context(closing(ImageFile(folder, name)))
            # the digests last: a merge that goes on meanwhile lets them tell of more before the image holds it
            forget_cached(folder / sums_name(name))
            digests = stack.enter_context(closing(Digests(folder / sums_name(name))))
            _require_same_disk(image, digests)
            data = _Check(chain, digests, sample)
            data.run(workers=workers, progress=progress, cancelled=cancelled)
            return data.findings(faults, undigested=_undigested(image, digests, check))
    except (DigestsDamaged, ImageDamaged, ImageUnsupported, TargetMissing, UnsafeImage) as error:
        return Findings(image=name, errors=(str(error),))


def held_by(folder: Path, name: str) -> int:
    """How many bytes of the disk an image holds, zeroes included, as its digests say; 0 when they cannot be read.

    A check reads as much, and tells why they cannot be read. It costs reading the digests, which are 1/4096 of that.
    """
    try:
        with closing(Digests(folder / sums_name(name))) as digests:
            return _length(held(digests))
    except (DigestsDamaged, TargetFailed, TargetMissing, UnsafeImage):
        return 0


def _length(extents: Iterable[Extent]) -> int:
    return sum(extent.length for extent in extents)


def _structure(folder: Path, name: str, check: Callable[[], None]) -> Findings:
    report = check_image(folder, name, cached=False, watch=check)
    broken = [found for found in report.findings if found.fault is not Fault.LEAK]
    errors = [f"The image {name} is broken: {found}; restore from another point." for found in broken[:MOST_NAMED]]
    return Findings(image=name, errors=tuple(errors), leaked=report.leaks)


def _require_same_disk(image: ImageFile, digests: Digests) -> None:
    """The size of the disk stands in the digests, too, and there it is sealed."""
    if image.size != digests.size:
        reason = f"it says that its disk has {image.size} bytes, and its digests that it has {digests.size}"
        raise ImageDamaged(file=image.name, reason=reason)


class _Check:
    """Reads what an image holds, and compares."""

    def __init__(self, chain: ChainReader, digests: Digests, sample: Sample) -> None:
        self._chain = chain
        self._digests = digests
        self._sample = sample
        self._stages = Stages()
        self._differences = Differences(digests, size=chain.size, stages=self._stages)
        self._checked = 0
        self._error = ""

    def run(self, *, workers: int, progress: Progress, cancelled: Callable[[], bool]) -> None:
        """Read until the sample is exhausted; an image that cannot be read ends it, and is remembered."""
        source = Timed(self._chain, self._stages)
        try:
            copy(source, self._differences, self._pieces(), workers=workers, progress=progress, cancelled=cancelled)
        except ImageDamaged as error:
            self._error = str(error)

    def findings(self, faults: Findings, *, undigested: int) -> Findings:
        """What was found, besides the `faults` of the structure."""
        return Findings(
            image=faults.image,
            held=_length(held(self._digests)),
            checked=self._checked,
            damaged=self._differences.clusters,
            named=tuple(islice(self._differences.numbers(), MOST_NAMED)),
            undigested=undigested,
            leaked=faults.leaked,
            errors=(*faults.errors, *((self._error,) if self._error else ())),
            stages=tuple(self._stages.seconds.items()),
        )

    def _pieces(self) -> Iterator[Extent]:
        end = self._sample.end
        # when the time may not suffice in no order: otherwise it would always be the same ones that are read
        extents = held(self._digests) if end is None else until(end, shuffled(self._digests))
        for piece in sampled(extents, self._sample.share, random.SystemRandom()):
            self._checked += piece.length
            yield piece


def _undigested(image: ImageFile, digests: Digests, check: Callable[[], None]) -> int:
    """How many clusters the image holds without a digest; zeroes of a full image need none."""
    count = 0
    hides = image.header.backing is not None
    for found in image.held():
        check()
        which = found if hides else found.take(found.kinds != Kind.ZERO)
        for start, stop in zip((which.starts // CLUSTER).tolist(), (-(-which.stops // CLUSTER)).tolist(), strict=True):
            count += stop - start - int(np.count_nonzero(digests.range(start, stop - start).any(axis=1)))
    return count
