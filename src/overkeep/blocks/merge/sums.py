# SPDX-License-Identifier: GPL-3.0-or-later
"""The digests of a merged image, composed from those of the run; only what none of them tells is read and hashed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.digesting import DigestSink
from overkeep.blocks.digests import ABSENT, Digests, DigestWriter, Row, row, sums_name
from overkeep.blocks.ends import Extent
from overkeep.blocks.errors import DigestsDamaged
from overkeep.blocks.expected import open_digests
from overkeep.blocks.flags import runs
from overkeep.blocks.hashing import ZERO, fresh
from overkeep.blocks.qcow2.held import HOLE, MIXED, PLACE, STRETCH, ZEROES
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.qcow2.runs import Bools, Bytes8
from overkeep.blocks.qcow2.view import Shown, View
from overkeep.blocks.stages import Stages
from overkeep.blocks.wrappers import Timed
from overkeep.logs import fields

_CLUSTERS = STRETCH // CLUSTER

log = logging.getLogger(__name__)


def write_digests(
    folder: Path, view: View, *, cluster: int, cancelled: Callable[[], bool], stages: Stages | None = None
) -> None:
    """Give the newest image of `view` the digests of everything that its run shows; durable once this returns.

    `cluster` is that of the merged image: where one of its clusters is larger than what the run holds there, it holds
    what lies round that, too. `stages` hear where the time goes.
    """
    told = stages or Stages()
    with ExitStack() as stack:
        newest = view.images[0].name
        opened = [_opened(folder, image, stack) for image in view.images]
        hashing = next((each.hashing for each in opened if each), None) or fresh()
        known = [_Known(each if each and each.hashing == hashing else None) for each in opened]
        final = folder / sums_name(newest)
        writer = stack.enter_context(closing(DigestWriter(final, size=view.size, hashing=hashing)))
        reader = stack.enter_context(closing(ChainReader(folder, newest)))
        missing = told.each("digest", _compose(view, view.seen(cluster), known, writer))
        copy(Timed(reader, told), DigestSink(writer, view.size, stages=told), missing, cancelled=cancelled)
        with told.spent("target"):
            writer.finish()


def renew_hidden(folder: Path, view: View, *, index: int, cluster: int, cancelled: Callable[[], bool]) -> None:
    """Give the image number `index` of `view` the digests of what it holds now where images above it hide all of that.

    A merge that is given up may have left other data there. Nobody sees them, and a check should not find them damaged.
    `cluster` is that of the image. Does nothing when it has no digests.
    """
    with ExitStack() as stack:
        image = view.images[index]
        digests = _opened(folder, image, stack)
        if digests is None:
            return
        final = folder / sums_name(image.name)
        writer = stack.enter_context(closing(DigestWriter(final, size=image.size, hashing=digests.hashing)))
        reader = stack.enter_context(closing(ChainReader(folder, image.name, cached=False)))
        hidden = _hidden(view.seen(cluster), index, digests, writer)
        copy(reader, DigestSink(writer, image.size), hidden, cancelled=cancelled)
        writer.finish()


def _hidden(view: View, index: int, digests: Digests, writer: DigestWriter) -> Iterator[Extent]:
    """Yield what of an image is hidden, and write the digests of everything else as they are."""
    image = View([view.images[index]], 0, grain=CLUSTER)
    for stretch in range(image.stretches):
        found = digests.range(stretch * _CLUSTERS, _CLUSTERS).copy()
        shown = view.shown(stretch)
        above = (shown.providers >= 0) & (shown.providers < index) & (shown.kinds != MIXED)
        hidden = np.repeat(above, view.grain // CLUSTER) & (image.shown(stretch).kinds == PLACE) & found.any(axis=1)
        found[hidden] = 0
        _write(writer, stretch, found)
        yield from image.extents(stretch, hidden)


class _Known:
    """The digests of one image, as far as they can be used."""

    def __init__(self, digests: Digests | None) -> None:
        self._digests = digests

    def of(self, stretch: int) -> Row:
        """Those of a stretch, `ABSENT` where there is none."""
        if self._digests is not None:
            try:
                return self._digests.range(stretch * _CLUSTERS, _CLUSTERS)
            except DigestsDamaged as error:
                log.warning("digests not used %s", fields(reason=repr(str(error))))
                self._digests = None
        return row(ABSENT * _CLUSTERS)


def _opened(folder: Path, image: ImageFile, stack: ExitStack) -> Digests | None:
    digests = open_digests(folder, image.name, image.size)
    if digests is not None:
        stack.callback(digests.close)
    return digests


def _compose(view: View, merged: View, known: list[_Known], writer: DigestWriter) -> Iterator[Extent]:
    """Write what is known, and yield what must be read of what the `merged` image will hold."""
    for stretch in range(view.stretches):
        shown = view.shown(stretch)
        held = shown.kinds if merged.grain == view.grain else _widened(merged, stretch)
        found = row(ABSENT * _CLUSTERS).copy()
        # needless ones too: until the images of the run are gone, what their digests say there would be believed
        found[(shown.kinds == ZEROES) | shown.needless] = row(ZERO)
        for depth in np.unique(shown.providers[shown.kinds > ZEROES]).tolist():
            mine = (shown.providers == depth) & (shown.kinds > ZEROES)
            found[mine] = known[depth].of(stretch)[mine]
        _forget_cut(view, stretch, shown, found)
        _write(writer, stretch, found)
        missing = (held != HOLE) & ~found.any(axis=1)
        yield from view.extents(stretch, missing)


def _forget_cut(view: View, stretch: int, shown: Shown, found: Row) -> None:
    """Where the disk ends within a cluster that a larger image holds, that one's digest tells of more than is shown."""
    last = view.size // CLUSTER - stretch * _CLUSTERS
    if not view.size % CLUSTER or not 0 <= last < _CLUSTERS:
        return
    provider = int(shown.providers[last])
    if provider > 0 and view.images[provider].size > view.size:
        found[last] = 0


def _widened(merged: View, stretch: int) -> Bytes8:
    """The kind of the merged image's cluster in which each cluster of a stretch lies."""
    kinds = np.repeat(merged.shown(stretch).kinds, merged.grain // CLUSTER)
    there = -(-merged.size // CLUSTER) - stretch * _CLUSTERS
    kinds[max(there, 0) :] = HOLE
    return kinds


def _write(writer: DigestWriter, stretch: int, found: Row) -> None:
    there: Bools = (found != 0).any(axis=1)
    for first, last in runs(there):
        writer.put(stretch * _CLUSTERS + first, found[first:last].tobytes())
