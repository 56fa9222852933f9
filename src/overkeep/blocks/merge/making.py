# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run of images becomes one file: by extending one of them, or by writing a new one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from overkeep.blocks.copy import copy
from overkeep.blocks.ends import Extent
from overkeep.blocks.errors import ImageUnsupported, MergeDiffers
from overkeep.blocks.files import PARTIAL
from overkeep.blocks.merge.comparing import Merged, require_as_digested
from overkeep.blocks.merge.extend import Batch, Extension
from overkeep.blocks.merge.folder import header_of
from overkeep.blocks.merge.intent import METHOD, Intent, Journal, Phase
from overkeep.blocks.merge.plan import Run
from overkeep.blocks.merge.survey import survey
from overkeep.blocks.merge.transfer import TransferSink, TransferSource
from overkeep.blocks.qcow2.carrier import Carrier, Unfit, beginning, is_plain, switch
from overkeep.blocks.qcow2.form import SMALLEST_CLUSTER, Form
from overkeep.blocks.qcow2.held import HOLE, STRETCH, ZEROES
from overkeep.blocks.qcow2.layout import Header
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.qcow2.view import View
from overkeep.blocks.qcow2.writer import ImageWriter
from overkeep.blocks.stages import Stages
from overkeep.blocks.wrappers import Timed, TimedSink
from overkeep.errors import Cancelled
from overkeep.logs import fields

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who watches a merge: `progress` hears of bytes moved and to be moved, `cancelled` is asked all the time.

    `stages` hear where the time goes.
    """

    progress: Callable[[int, int], None] = lambda moved, total: None
    cancelled: Callable[[], bool] = lambda: False
    stages: Stages = field(default_factory=Stages)

    def check(self) -> None:
        """Raise `Cancelled` when somebody wants the merge to stop."""
        if self.cancelled():
            raise Cancelled(what="The merge")


def decide(folder: Path, view: View, run: Run, *, watch: Watch) -> Intent:
    """Choose the carrier: the image for which the fewest bytes are moved, of those that can be one.

    A disk of 0 bytes needs no L1 table, whose new place tells whether a carrier was switched: it is written anew.
    """
    for cost, index in sorted(_costs(view, watch)) if view.size else ():
        image = view.images[index]
        try:
            Carrier(folder, image, file_size=image.file_size, disk_size=view.size).close()
        except Unfit as reason:
            log.info("not a carrier %s", fields(image=image.name, reason=reason))
            continue
        return Intent(run=run, carrier=image.name, carrier_size=image.file_size, to_move=cost)
    shares = survey(view.seen(_form(view, packed=False).cluster), watch.check)
    return Intent(run=run, carrier=None, carrier_size=0, to_move=shares.cost(None))


def _costs(view: View, watch: Watch) -> Iterator[tuple[int, int]]:
    """Yield what each image that may be a carrier costs, with its number: of equal ones the newest comes first.

    What is moved depends on the carrier's clusters: what lies between smaller ones fills a larger one up.
    """
    grains = {index: image.header.cluster for index, image in enumerate(view.images) if is_plain(image.header)}
    for grain in sorted(set(grains.values())):
        shares = survey(view.seen(grain), watch.check)
        yield from ((shares.cost(index), index) for index in grains if grains[index] == grain)


def _form(view: View, *, packed: bool) -> Form:
    """How a run is written anew: like its newest image, as far as we write so."""
    header = view.images[0].header
    return Form(cluster=max(header.cluster, SMALLEST_CLUSTER), compression=header.compression if packed else None)


def cluster_of(view: View, intent: Intent) -> int:
    """Bytes of a cluster of the merged image."""
    carrier = next((image for image in view.images if image.name == intent.carrier), None)
    return carrier.header.cluster if carrier is not None else _form(view, packed=False).cluster


class Extender:
    """Extends the carrier of an intent until it shows what the whole run does. Close it at the end."""

    def __init__(self, folder: Path, view: View, intent: Intent) -> None:
        index = [image.name for image in view.images].index(str(intent.carrier))
        try:
            carrier = Carrier(folder, view.images[index], file_size=intent.carrier_size, disk_size=view.size)
        except Unfit as error:
            raise MergeDiffers(file=intent.run.newest, reason=f"{intent.carrier} has changed: {error}") from error
        self._folder = folder
        self._view = view
        self._intent = intent if intent.method == METHOD else replace(intent, done=0, method=METHOD)
        self._carrier = carrier
        self._index = index
        self._extension = Extension(view, carrier, index=index)
        self.moved = 0

    def run(self, journal: Journal, watch: Watch) -> None:
        """Move what is missing, look at it, then switch the header; everything is durable once this returns."""
        skipped = 0
        for batch in watch.stages.each("tables", self._extension.batches(self._intent.done, watch.check)):
            if batch.done <= self._intent.done:
                skipped += batch.transfer.size
                continue
            journal.check()
            self._move(batch, watch, before=skipped + self.moved)
            self._save(journal, replace(self._intent, done=batch.done))
        with watch.stages.spent("target"):
            header = self._carrier.finish(
                backing=self._intent.run.base,
                backing_raw=self._view.images[-1].header.backing_raw,
                compression=self._extension.compression,
            )
        with watch.stages.spent("read_back"):
            self._compare(header, watch)
        self._save(journal, replace(self._intent, phase=Phase.SWITCHING, l1_offset=header.l1_offset))
        switch(self._carrier.file, header)

    def _move(self, batch: Batch, watch: Watch, *, before: int) -> None:
        transfer, total = batch.transfer, self._intent.to_move
        chain = ChainReader(self._folder, self._intent.run.newest)
        with closing(Timed(TransferSource(transfer, self._view.images, chain), watch.stages)) as source:
            copy(
                source,
                TimedSink(TransferSink(transfer, self._carrier.file), watch.stages),
                source.extents(dirty=False),
                progress=lambda _, moved: watch.progress(before + moved, total),
                cancelled=watch.cancelled,
            )
        self.moved += transfer.size

    def _compare(self, header: Header, watch: Watch) -> None:
        """Until the switch the images of the run are all that they were for whoever reads the newest one."""
        merged = Merged(name=self._carrier.image.name, beginning=beginning(header), stays=self._index)
        view = self._view.seen(self._carrier.cluster)
        require_as_digested(self._folder, view, merged, cancelled=watch.cancelled)

    def _save(self, journal: Journal, intent: Intent) -> None:
        journal.save(intent)
        self._intent = intent

    def give_back(self) -> None:
        """Return what is free in the carrier's file to the file system."""
        self._carrier.give_back()

    def close(self) -> None:
        """Close the carrier; may be called twice."""
        self._carrier.close()


def rewrite(folder: Path, view: View, intent: Intent, *, watch: Watch) -> int:
    """Write the run anew as one image and give it the name of the newest; return the bytes that were moved."""
    name, total = intent.run.newest, intent.to_move
    if view.images[-1].header.backing_raw:
        raise ImageUnsupported(file=view.images[-1].name, feature="a raw backing file, and others are merged upon it")
    form = _form(view, packed=survey(view.seen(_form(view, packed=False).cluster), watch.check).packed)
    seen = view.seen(form.cluster)
    with (
        closing(ChainReader(folder, name)) as reader,
        closing(
            _Unnamed(folder, name, size=view.size, backing=intent.run.base, form=form, stages=watch.stages)
        ) as writer,
    ):
        stats = copy(
            Timed(reader, watch.stages),
            writer,
            _extents(seen),
            progress=lambda _, moved: watch.progress(moved, total),
            cancelled=watch.cancelled,
        )
        with watch.stages.spent("read_back"):
            require_as_digested(folder, seen, Merged(name=name + PARTIAL), cancelled=watch.cancelled)
        writer.publish()
    return stats.moved


class _Unnamed(ImageWriter):
    """Makes an image that is looked at before it gets its name."""

    def finish(self) -> None:
        """Complete the file and make it durable; `publish` gives it its name."""
        self.complete()
        self._file.sync()


def _extents(view: View) -> Iterator[Extent]:
    """What the run shows, in whole clusters, without what it shows of what is below it."""
    for stretch in range(view.stretches):
        kinds = view.shown(stretch).kinds
        groups = np.minimum(kinds, ZEROES + 1)
        edges = np.flatnonzero(np.diff(np.concatenate([[HOLE], groups, [HOLE]])))
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if kinds[first] != HOLE:
                start = stretch * STRETCH + first * view.grain
                end = min(stretch * STRETCH + last * view.grain, view.size)
                yield Extent(start, end - start, bool(kinds[first] == ZEROES))


def is_switched(folder: Path, intent: Intent) -> bool:
    """Whether the carrier shows the merged image already, under its own name."""
    if intent.phase is not Phase.SWITCHING or intent.carrier is None:
        return False
    return header_of(folder, intent.carrier).l1_offset == intent.l1_offset
