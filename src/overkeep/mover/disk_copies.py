# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of one disk into an image of the repository and back, whatever ordered them and whatever opened the disk."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import CopyStats, copy
from overkeep.blocks.copy import Progress as Told
from overkeep.blocks.differences import Differences
from overkeep.blocks.digests import Row
from overkeep.blocks.ends import Extent, Sink, Source
from overkeep.blocks.errors import SizesDiffer
from overkeep.blocks.expected import ChainDigests, Expected
from overkeep.blocks.extents import PackedExtents, joined, widened
from overkeep.blocks.hashing import Hashing
from overkeep.blocks.image import ChainReader, ImageSink
from overkeep.blocks.stages import Stages
from overkeep.blocks.wrappers import Bandwidth, Beginning, Retrying, Throttled, Timed, TimedSink
from overkeep.errors import OverkeepError
from overkeep.model.points import Changes
from overkeep.mover.copy_terms import Options, Place, Watch
from overkeep.mover.orders import BACKING_MISSING, CopyResult, Progress, rounded
from overkeep.mover.reading_back import read_back, read_disk_back
from overkeep.units import align_down


class BackingMissing(OverkeepError):
    """The parent of an incremental is not there, or is no sound image."""

    code = BACKING_MISSING
    template = "The image {name} cannot be built upon {backing} ({reason}); back the disk up in full."


class ExpectedDisk(Expected, Protocol):
    """What a disk should hold, by its digests."""

    @property
    def size(self) -> int:
        """Virtual size in bytes."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where a disk differs from what it should hold, after `compared` bytes of it were looked at.

    `read` of them were read, the others told as zeroes; it took `seconds`.
    """

    extents: PackedExtents
    compared: int
    read: int
    seconds: float
    stages: Stages


def back_up(disk: Source, place: Place, *, changes: Changes, options: Options, watch: Watch) -> CopyResult:
    """Make the image `place` from `disk`; it exists whole, checked as `options` says, or not at all.

    Raises `BackingMissing`, `ReadBackDiffers`, and the errors of both ends.
    """
    run = _Run(options=options, watch=watch)
    compared = changes is Changes.COMPARED
    with _parent(place, compared=compared) as parent:
        extents = None
        if changes is Changes.TRACKED:
            cut = parent is not None and disk.size < parent.size
            extents = PackedExtents(run.widened(joined(_tracked(disk, watch, cut=cut)), disk.size))
        sink = ImageSink(
            place.folder,
            place.name,
            size=disk.size,
            backing=place.backing,
            parent=parent if compared else None,
            new=place.new,
            form=options.form,
            stages=run.stages,
        )
        with closing(sink), closing(run.careful(disk)) as source:
            stats = run.copy(source, sink, extents)
    if options.read_back:
        with run.stages.spent("read_back"):
            read_back(place, options, watch)
    return run.result(disk.size, stats, stored=sink.stored)


def differing(place: Place, present: Source, *, options: Options, watch: Watch) -> Difference:
    """Find where the disk `present` differs from the one that the chain `place` makes. As `differing_from`."""
    with closing(ChainDigests(place.folder, place.name)) as expected:
        return differing_from(expected, present, options=options, watch=watch)


def differing_from(expected: ExpectedDisk, present: Source, *, options: Options, watch: Watch) -> Difference:
    """Find where the disk `present` differs from what is `expected` of it; nothing is changed.

    Raises `SizesDiffer` when `present` is too small, and the errors of both.
    """
    run = _Run(options=options, watch=watch)
    _require_room(expected.size, present.size)
    differences = Differences(expected, size=expected.size, stages=run.stages)
    with closing(Beginning(run.careful(present), expected.size)) as source:
        stats = copy(
            source,
            differences,
            source.extents(dirty=False),
            workers=options.workers,
            chunk=options.chunk,
            progress=run.teller(total=expected.size),
            cancelled=lambda: watch.stopped,
        )
    return Difference(
        extents=PackedExtents(differences.extents()),
        compared=stats.covered,
        read=stats.moved,
        seconds=run.seconds,
        stages=run.stages,
    )


def restore(place: Place, disk: Sink, *, only: Difference | None = None, options: Options, watch: Watch) -> CopyResult:
    """Write the disk of the chain `place` to `disk`: all of it, or `only` what was found to differ.

    Raises `SizesDiffer` when the disk is too small, and the errors of both ends.
    """
    # past the page cache: what is read once should not push out what the host's VMs read again and again
    with closing(ChainReader(place.folder, place.name, cached=False)) as chain:
        return pour(chain, disk, only=only, options=options, watch=watch)


def restored(
    place: Place,
    disk: Source,
    result: CopyResult,
    *,
    only: Difference | None,
    name: str,
    options: Options,
    watch: Watch,
) -> CopyResult:
    """Read a share of what a restore of the chain `place` wrote to the disk `name` again; return what it did in all.

    Raises `RestoreDiffers`, and the errors of both ends.
    """
    run = _Run(options=options, watch=watch)
    with run.stages.spent("read_back"):
        read_disk_back(place, disk, only.extents if only else None, name=name, options=options, watch=watch)
    spent = run.stages.seconds["read_back"]
    stages = {**result.stages, "read_back": round(spent, 3)}
    return result.model_copy(update={"seconds": result.seconds + spent, "stages": stages})


def pour(source: Source, disk: Sink, *, only: Difference | None = None, options: Options, watch: Watch) -> CopyResult:
    """Write what `source` holds to `disk`: all of it, or `only` what was found to differ. Errors as of `restore`."""
    run = _Run(options=options, watch=watch, stages=only.stages if only else Stages())
    _require_room(source.size, disk.size)
    with closing(run.careful(source)) as careful:
        sink = TimedSink(disk, run.stages)
        stats = run.copy(careful, sink, only.extents if only else None, before=only.compared if only else 0)
    return run.result(source.size, stats, stored=0, only=only)


def _require_room(needed: int, size: int) -> None:
    if needed > size:
        raise SizesDiffer(source=needed, sink=size)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One copy: how it is made, who watches it, and where its time goes."""

    options: Options
    watch: Watch
    stages: Stages = field(default_factory=Stages)
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds on the clock so far: asking for what changed and reading back are waited for as well."""
        return time.monotonic() - self.began

    def careful(self, source: Source) -> Source:
        """Put round `source` what all copies need. Close it, which closes `source`."""
        watch = self.watch
        wrapped: Source = Retrying(Timed(source, self.stages), stopped=lambda: watch.stopped)
        if self.options.bandwidth:
            wrapped = Throttled(wrapped, Bandwidth(self.options.bandwidth, stopped=lambda: watch.stopped))
        return wrapped

    def widened(self, extents: Iterable[Extent], size: int) -> Iterable[Extent]:
        """Round extents out to the clusters in which the image is written."""
        cluster = self.options.form.cluster
        return extents if cluster == CLUSTER else widened(extents, cluster, size)

    def copy(self, source: Source, sink: Sink, extents: PackedExtents | None, *, before: int = 0) -> CopyStats:
        """Copy `extents` of `source`, None for all, to `sink`; `before` are bytes that were passed already."""
        total = source.size if extents is None else extents.total
        pieces = self.widened(source.extents(dirty=False), source.size) if extents is None else extents
        self.watch.progress(Progress(done=before, total=before + total))
        return copy(
            source,
            sink,
            pieces,
            workers=self.options.workers,
            chunk=self.options.chunk,
            progress=self.teller(before=before, total=total),
            cancelled=lambda: self.watch.stopped,
        )

    def teller(self, *, total: int, before: int = 0) -> Told:
        """What tells the watcher how far a copy of `total` bytes is, after `before` bytes of other work."""
        return lambda covered, moved: self.watch.progress(
            Progress(done=before + covered, total=before + total, moved=moved)
        )

    def result(self, size: int, stats: CopyStats, *, stored: int, only: Difference | None = None) -> CopyResult:
        """What a copy of a disk of `size` bytes did, after the comparison that found `only`."""
        return CopyResult(
            virtual_size=size,
            covered=stats.covered,
            compared=only.read if only else 0,
            moved=stats.moved,
            stored=stored,
            seconds=self.seconds + (only.seconds if only else 0.0),
            stages=rounded(self.stages.seconds),
        )


class _Parent:
    """The backing image `backing` of `place`; whatever is wrong with it is `BackingMissing`.

    When it is `compared`, it tells the digests of its disk (`overkeep.blocks.expected.Expected`).
    """

    def __init__(self, place: Place, backing: str, *, compared: bool) -> None:
        self._name, self._backing = place.name, backing
        kind = ChainDigests if compared else ChainReader
        with self._blamed():
            self._chain = kind(place.folder, backing)
        self.size = self._chain.size

    @property
    def hashing(self) -> Hashing:
        """What makes the digests of the chain."""
        assert isinstance(self._chain, ChainDigests)
        return self._chain.hashing

    def range(self, first: int, count: int) -> Row:
        """Digests of `count` clusters from number `first` on."""
        assert isinstance(self._chain, ChainDigests)
        with self._blamed():
            return self._chain.range(first, count)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        except OverkeepError as error:
            if error.retry:
                raise
            raise BackingMissing(name=self._name, backing=self._backing, reason=str(error)) from error

    def close(self) -> None:
        """Release the files."""
        self._chain.close()


@contextmanager
def _parent(place: Place, *, compared: bool) -> Iterator[_Parent | None]:
    if place.backing is None:
        yield None
        return
    with closing(_Parent(place, place.backing, compared=compared)) as parent:
        yield parent


def _tracked(disk: Source, watch: Watch, *, cut: bool) -> Iterator[Extent]:
    """Yield what changed; of a disk that was `cut` off also its last cluster, whose end may have held data."""
    last = align_down(disk.size - 1, CLUSTER) if cut and disk.size % CLUSTER else disk.size
    position = 0
    for extent in disk.extents(dirty=True):
        watch.check()
        position = extent.end
        yield extent
    if position <= last < disk.size:
        yield Extent(last, disk.size - last, False)
