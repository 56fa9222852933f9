# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of one disk into an image of the repository and back, whatever ordered them and whatever opened the disk."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import WORKERS, CopyStats, copy
from overkeep.blocks.differences import Differences
from overkeep.blocks.digests import Digests, sums_name
from overkeep.blocks.ends import Extent, Sink, Source
from overkeep.blocks.errors import SizesDiffer
from overkeep.blocks.expected import ChainDigests
from overkeep.blocks.extents import joined
from overkeep.blocks.files import forget_cached, sync_folder
from overkeep.blocks.image import ChainReader, ImageSink
from overkeep.blocks.qcow2.form import PLAIN, Form
from overkeep.blocks.sampling import held, sampled
from overkeep.blocks.stages import Stages
from overkeep.blocks.wrappers import Bandwidth, Retrying, Throttled, Timed, TimedSink
from overkeep.errors import OverkeepError
from overkeep.mover.orders import CopyResult, Progress
from overkeep.units import align_down


class BackingMissing(OverkeepError):
    """The parent of an incremental is not there, or is no sound image."""

    code = "backing-missing"
    template = "The image {name} cannot be built upon {backing} ({reason}); back the disk up in full."


class ReadBackDiffers(OverkeepError):
    """What the target returns is not what was written to it."""

    code = "read-back-differs"
    template = (
        "The backup target returned other data for {clusters} clusters of {name} than were written, so the image was "
        "removed; check the target's server, disks and network before you back up to it again."
    )


class Changes(StrEnum):
    """What of a disk is copied: everything, what the Manager tracked, or what differs from the backing image."""

    ALL = "all"
    TRACKED = "tracked"
    COMPARED = "compared"


@dataclass(frozen=True, kw_only=True)
class Place:
    """An image: its folder, its bare name, and the bare name of its backing image."""

    folder: Path
    name: str
    backing: str | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a copy is made.

    `bandwidth` is in bytes a second, 0 for no limit; `read_back` is the share (0 to 1) of the image that is read from
    the target again when it is finished, and compared with the digests.
    """

    form: Form = field(default=PLAIN)
    bandwidth: int = 0
    read_back: float = 0.0
    workers: int = WORKERS


class Watch(Protocol):
    """Who watches a copy: hears how far it is, and may stop it."""

    @property
    def stopped(self) -> bool:
        """Whether the copy must stop."""

    def check(self) -> None:
        """Raise the reason to stop, if there is one."""

    def progress(self, progress: Progress) -> None:
        """Hear how far the copy is."""

    def on_stop(self, hook: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `hook` when the copy must stop during the body."""


@runtime_checkable
class _Interruptible(Protocol):
    def interrupt(self) -> None: ...


def back_up(disk: Source, place: Place, *, changes: Changes, options: Options, watch: Watch) -> CopyResult:
    """Make the image `place` from `disk`; it exists whole, checked as `options` says, or not at all.

    Raises `BackingMissing`, `ReadBackDiffers`, and the errors of both ends.
    """
    stages = Stages()
    with _parent(place) as parent, _interrupted(disk, watch):
        smaller = parent is not None and disk.size < parent.size
        extents = _tracked(disk, watch, smaller=smaller) if changes is Changes.TRACKED else None
        expected = parent.digests() if parent is not None and changes is Changes.COMPARED else nullcontext()
        with expected as known:
            sink = ImageSink(
                place.folder,
                place.name,
                size=disk.size,
                backing=place.backing,
                parent=known,
                form=options.form,
                stages=stages,
            )
            with closing(sink):
                source = _careful(disk, options, watch, stages)
                result = _result(disk.size, _copy(watch, source, sink, options, extents=extents), stages)
    if options.read_back:
        _read_back(place, options, watch)
    return result.model_copy(update={"stored": sink.stored})


def restore(place: Place, disk: Sink, *, present: Source | None = None, options: Options, watch: Watch) -> CopyResult:
    """Write the disk of the chain `place` to `disk`; with `present`, what is there now, only what differs from it.

    Raises `SizesDiffer` when the disk is too small, and the errors of both ends.
    """
    stages = Stages()
    # past the page cache: what is read once should not push out what the host's VMs read again and again
    with closing(ChainReader(place.folder, place.name, cached=False)) as chain, _interrupted(disk, watch):
        if chain.size > disk.size:
            raise SizesDiffer(source=chain.size, sink=disk.size)
        extents = None
        if present is not None:
            with _interrupted(present, watch):
                extents = Extents(_differing(place, present, chain.size, options, watch))
        source = _careful(chain, options, watch, stages)
        stats = _copy(watch, source, TimedSink(disk, stages), options, extents=extents)
        return _result(chain.size, stats, stages)


class Extents:
    """Extents in 16 bytes each: those of a large fragmented disk must fit in memory, to know their total first."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        self._packed = array("Q")
        self.total = 0
        for extent in extents:
            self._packed.extend((extent.start << 1 | extent.zero, extent.length))
            self.total += extent.length

    def __iter__(self) -> Iterator[Extent]:
        for index in range(0, len(self._packed), 2):
            packed, length = self._packed[index : index + 2]
            yield Extent(packed >> 1, length, bool(packed & 1))


@dataclass(frozen=True)
class _Parent:
    place: Place
    size: int

    def digests(self) -> closing[ChainDigests]:
        assert self.place.backing is not None
        return closing(ChainDigests(self.place.folder, self.place.backing))


@contextmanager
def _parent(place: Place) -> Iterator[_Parent | None]:
    """Look at the backing image, and say what a bad one means for the image that is to be built upon it."""
    if place.backing is None:
        yield None
        return
    try:
        with closing(ChainReader(place.folder, place.backing)) as chain:
            size = chain.size
    except OverkeepError as error:
        if error.retry:
            raise
        raise BackingMissing(name=place.name, backing=place.backing, reason=str(error)) from error
    yield _Parent(place, size)


def _interrupted(end: Source | Sink, watch: Watch) -> AbstractContextManager[None]:
    """Break off requests to `end` when the copy must stop, so that it does not wait for a storage that hangs."""
    return watch.on_stop(end.interrupt) if isinstance(end, _Interruptible) else nullcontext()


def _careful(source: Source, options: Options, watch: Watch, stages: Stages) -> Source:
    wrapped: Source = Retrying(Timed(source, stages), stopped=lambda: watch.stopped)
    if options.bandwidth:
        wrapped = Throttled(wrapped, Bandwidth(options.bandwidth, stopped=lambda: watch.stopped))
    return wrapped


def _copy(watch: Watch, source: Source, sink: Sink, options: Options, *, extents: Extents | None) -> CopyStats:
    total = source.size if extents is None else extents.total
    pieces: Iterable[Extent] = source.extents(dirty=False) if extents is None else extents
    watch.progress(Progress(total=total))
    return copy(
        source,
        sink,
        pieces,
        workers=options.workers,
        progress=lambda covered, moved: watch.progress(Progress(done=covered, total=total, moved=moved)),
        cancelled=lambda: watch.stopped,
    )


def _result(size: int, stats: CopyStats, stages: Stages) -> CopyResult:
    seconds = {name: round(value, 3) for name, value in stages.seconds.items()}
    return CopyResult(
        virtual_size=size, covered=stats.covered, moved=stats.moved, stored=0, seconds=stats.seconds, stages=seconds
    )


def _tracked(disk: Source, watch: Watch, *, smaller: bool) -> Extents:
    """The extents that changed; of a disk that became `smaller` also its last cluster, whose end is cut off."""

    def watched() -> Iterator[Extent]:
        last = align_down(disk.size - 1, CLUSTER) if smaller and disk.size % CLUSTER else disk.size
        position = 0
        for extent in disk.extents(dirty=True):
            watch.check()
            position = extent.end
            yield extent
        if position <= last < disk.size:
            yield Extent(last, disk.size - last, False)

    return Extents(joined(watched()))


def _differing(place: Place, present: Source, size: int, options: Options, watch: Watch) -> Iterator[Extent]:
    with closing(ChainDigests(place.folder, place.name)) as expected:
        differences = Differences(expected, size=size)
        extents = _until(present.extents(dirty=False), size)
        copy(present, differences, extents, workers=options.workers, cancelled=lambda: watch.stopped)
        yield from differences.extents()


def _until(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    """Cut extents off where the disk that is restored ends."""
    for extent in extents:
        if extent.start < size:
            yield Extent(extent.start, min(extent.end, size) - extent.start, extent.zero)


def _read_back(place: Place, options: Options, watch: Watch) -> None:
    """Read a share of a new image from the target; remove it when anything is not as it was written."""
    forget_cached(place.folder / sums_name(place.name))
    with (
        closing(ChainReader(place.folder, place.name, cached=False)) as chain,
        closing(Digests(place.folder / sums_name(place.name))) as digests,
    ):
        differences = Differences(digests, size=chain.size)
        pieces = sampled(held(digests, chain.size), options.read_back, random.SystemRandom())
        copy(chain, differences, pieces, workers=options.workers, cancelled=lambda: watch.stopped)
    if differences.clusters:
        for name in (place.name, sums_name(place.name)):
            (place.folder / name).unlink(missing_ok=True)
        sync_folder(place.folder)
        raise ReadBackDiffers(name=place.name, clusters=differences.clusters)
