# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a copy order out: access → image for a backup, image → access for a restore."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager

from overkeep.blocks.copy import copy
from overkeep.blocks.ends import Extent, Sink, Source
from overkeep.blocks.errors import DiskFailed, DiskLost, DiskRefused, DiskUnreachable, SizesDiffer
from overkeep.blocks.image import ChainReader, ImageSink
from overkeep.errors import OverkeepError
from overkeep.mover import access
from overkeep.mover.imageio import Imageio, ImageioUnreachable, Ticket, TicketBroken, TicketCancelled
from overkeep.mover.orders import Access, CopyResult, Image, Progress
from overkeep.mover.targets import Targets, require_replaceable
from overkeep.mover.work import Work


class BackingMissing(OverkeepError):
    """The parent of an incremental is not there, or is no sound image."""

    code = "backing-missing"
    template = "The image {name} cannot be built upon {backing} ({reason}); back the disk up in full."


class Copier:
    """Executes copy orders on this host. Safe to use from several threads."""

    def __init__(self, imageio: Imageio, targets: Targets, *, finished_fence: Callable[[str], int]) -> None:
        self._imageio = imageio
        self._targets = targets
        self._finished_fence = finished_fence

    def run(self, work: Work) -> CopyResult:
        """Copy until the end, or until `work` is stopped; raises typed errors, with everything closed."""
        source, sink = work.order.source, work.order.sink
        if isinstance(source, Access) and isinstance(sink, Image):
            return self._back_up(work, source, sink)
        if isinstance(source, Image) and isinstance(sink, Access):
            return self._restore(work, source, sink)
        raise AssertionError("admission refuses orders with two ends of one kind")

    def _back_up(self, work: Work, source: Access, sink: Image) -> CopyResult:
        dirty = work.order.dirty
        folder = self._targets.writable_folder(sink)
        require_replaceable(folder, sink, fence=work.order.fence, finished=self._finished_fence(work.sink))
        ticket = access.look_up(self._imageio, source.ticket, op="read", dirty=dirty)
        with self._using(ticket, work), closing(access.open_source(self._imageio, ticket, dirty=dirty)) as disk:
            if sink.backing is not None:
                with _backing(sink), closing(ChainReader(folder, sink.backing)) as parent:
                    _require_room(parent.size, disk.size)
            with closing(ImageSink(folder, sink.name, size=disk.size, backing=sink.backing)) as image:
                result = _copy(work, disk, image, extents=_changed(disk, work) if dirty else None)
                return result.model_copy(update={"stored": image.stored})

    def _restore(self, work: Work, source: Image, sink: Access) -> CopyResult:
        folder = self._targets.existing_folder(source)
        ticket = access.look_up(self._imageio, sink.ticket, op="write", dirty=False)
        with (
            closing(ChainReader(folder, source.name)) as chain,
            self._using(ticket, work),
            closing(access.open_sink(self._imageio, ticket)) as disk,
        ):
            _require_room(chain.size, disk.size)
            return _copy(work, chain, disk)

    @contextmanager
    def _using(self, ticket: Ticket, work: Work) -> Iterator[None]:
        """Keep the ticket alive, and name the true cause when the disk goes because the ticket went."""
        with access.kept_alive(self._imageio, ticket, lost=work.stop):
            try:
                yield
            except (DiskFailed, DiskLost, DiskRefused, DiskUnreachable) as error:
                try:
                    self._imageio.touch(ticket.id)
                except TicketCancelled as cancelled:
                    raise cancelled from error
                except (ImageioUnreachable, TicketBroken):  # then what the disk said is all that is known
                    pass
                raise


class _Extents:
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


def _copy(work: Work, source: Source, sink: Sink, *, extents: _Extents | None = None) -> CopyResult:
    total = source.size if extents is None else extents.total
    pieces: Iterable[Extent] = source.extents(dirty=False) if extents is None else extents
    work.progress(Progress(total=total))
    stats = copy(
        source,
        sink,
        pieces,
        progress=lambda covered, moved: work.progress(Progress(done=covered, total=total, moved=moved)),
        cancelled=lambda: work.stopped,
    )
    return CopyResult(
        virtual_size=source.size, covered=stats.covered, moved=stats.moved, stored=0, seconds=stats.seconds
    )


def _changed(disk: Source, work: Work) -> _Extents:
    def watched() -> Iterator[Extent]:
        for extent in disk.extents(dirty=True):
            work.check()
            yield extent

    return _Extents(watched())


@contextmanager
def _backing(image: Image) -> Iterator[None]:
    """Say what a bad parent means for the image that is to be built upon it."""
    try:
        yield
    except OverkeepError as error:
        if error.retry:
            raise
        raise BackingMissing(name=image.name, backing=image.backing, reason=str(error)) from error


def _require_room(source: int, sink: int) -> None:
    if source > sink:
        raise SizesDiffer(source=source, sink=sink)
