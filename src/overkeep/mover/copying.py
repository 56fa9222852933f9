# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a copy order out: access → image for a backup, image → access for a restore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from overkeep.blocks.compression import Compression
from overkeep.blocks.errors import DiskFailed, DiskLost, DiskRefused, DiskUnreachable
from overkeep.blocks.qcow2.form import Form
from overkeep.blocks.sockets import Sockets
from overkeep.model.points import Changes
from overkeep.mover import access
from overkeep.mover.copy_terms import Options, Place, interruptible
from overkeep.mover.disk_copies import back_up, differing, restore, restored
from overkeep.mover.imageio import Imageio, ImageioUnreachable, Ticket, TicketBroken, TicketCancelled
from overkeep.mover.orders import Access, CopyOrder, CopyResult, Image, masked
from overkeep.mover.targets import Targets, require_replaceable
from overkeep.mover.work import Work


class Copier:
    """Executes copy orders on this host. Safe to use from several threads."""

    def __init__(self, imageio: Imageio, targets: Targets, *, finished_fence: Callable[[str], int]) -> None:
        self._imageio = imageio
        self._targets = targets
        self._finished_fence = finished_fence

    def run(self, work: Work, order: CopyOrder) -> CopyResult:
        """Copy until the end, or until `work` is stopped; raises typed errors, with everything closed."""
        with interruptible(work) as sockets:
            if isinstance(order.source, Access):
                return self._back_up(work, order, sockets)
            return self._restore(work, order, sockets)

    def _back_up(self, work: Work, order: CopyOrder, sockets: Sockets) -> CopyResult:
        source, sink = order.source, order.sink
        assert isinstance(source, Access)
        assert isinstance(sink, Image)
        changes, options = _changes(order), _options(order)
        dirty = changes is Changes.TRACKED
        folder = self._targets.writable_folder(sink)
        require_replaceable(folder, sink, fence=order.fence, finished=self._finished_fence(work.sink))
        place = Place(folder=folder, name=sink.name, backing=sink.backing)
        imageio = self._imageio.over(sockets)
        ticket = access.look_up(imageio, source.ticket, op="read", dirty=dirty)
        with (
            _using(ticket, work, imageio),
            closing(access.open_source(imageio, ticket, dirty=dirty, sockets=sockets)) as disk,
        ):
            return back_up(disk, place, changes=changes, options=options, watch=work)

    def _restore(self, work: Work, order: CopyOrder, sockets: Sockets) -> CopyResult:
        source, sink = order.source, order.sink
        assert isinstance(source, Image)
        assert isinstance(sink, Access)
        options = _options(order)
        place = Place(folder=self._targets.existing_folder(source), name=source.name)
        imageio = self._imageio.over(sockets)
        ticket = access.look_up(imageio, sink.ticket, op="write", dirty=False)
        with _using(ticket, work, imageio):
            only = None
            if order.differential:  # closed before the disk is written, as its connections are counted
                with closing(access.open_source(imageio, ticket, dirty=False, sockets=sockets)) as present:
                    only = differing(place, present, options=options, watch=work)
            with closing(access.open_sink(imageio, ticket, sockets=sockets)) as disk:
                result = restore(place, disk, only=only, options=options, watch=work)
            if not options.read_back:
                return result
            with closing(access.open_source(imageio, ticket, dirty=False, sockets=sockets)) as present:
                name = f"ticket {masked(ticket.id)}"
                return restored(place, present, result, only=only, name=name, options=options, watch=work)


@contextmanager
def _using(ticket: Ticket, work: Work, imageio: Imageio) -> Iterator[None]:
    """Keep the ticket alive, and name the true cause when the disk goes because the ticket went."""
    with access.kept_alive(imageio, ticket, lost=work.stop):
        try:
            yield
        except (DiskFailed, DiskLost, DiskRefused, DiskUnreachable) as error:
            try:
                imageio.touch(ticket.id)
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
