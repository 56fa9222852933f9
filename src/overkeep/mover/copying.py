# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a copy order out: access → image for a backup, image → access for a restore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from overkeep.blocks.compression import Compression
from overkeep.blocks.errors import DiskFailed, DiskLost, DiskRefused, DiskUnreachable
from overkeep.blocks.qcow2.form import Form
from overkeep.mover import access
from overkeep.mover.disk_copies import Changes, Options, Place, back_up, restore
from overkeep.mover.imageio import Imageio, ImageioUnreachable, Ticket, TicketBroken, TicketCancelled
from overkeep.mover.orders import Access, CopyOrder, CopyResult, Image
from overkeep.mover.targets import Targets, require_replaceable
from overkeep.mover.work import Work


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
        changes, options = _changes(work.order), _options(work.order)
        dirty = changes is Changes.TRACKED
        folder = self._targets.writable_folder(sink)
        require_replaceable(folder, sink, fence=work.order.fence, finished=self._finished_fence(work.sink))
        place = Place(folder=folder, name=sink.name, backing=sink.backing)
        ticket = access.look_up(self._imageio, source.ticket, op="read", dirty=dirty)
        with self._using(ticket, work), closing(access.open_source(self._imageio, ticket, dirty=dirty)) as disk:
            return back_up(disk, place, changes=changes, options=options, watch=work)

    def _restore(self, work: Work, source: Image, sink: Access) -> CopyResult:
        place = Place(folder=self._targets.existing_folder(source), name=source.name)
        ticket = access.look_up(self._imageio, sink.ticket, op="write", dirty=False)
        with self._using(ticket, work), closing(access.open_sink(self._imageio, ticket)) as disk:
            if not work.order.differential:
                return restore(place, disk, options=_options(work.order), watch=work)
            with closing(access.open_source(self._imageio, ticket, dirty=False)) as present:
                return restore(place, disk, present=present, options=_options(work.order), watch=work)

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


def _changes(order: CopyOrder) -> Changes:
    if order.dirty:
        return Changes.TRACKED
    return Changes.COMPARED if order.compare else Changes.ALL


def _options(order: CopyOrder) -> Options:
    compression = Compression.ZSTD if order.compression == "zstd" else None
    form = Form(cluster=order.cluster, compression=compression, level=order.level)
    return Options(form=form, bandwidth=order.bandwidth, read_back=order.read_back)
