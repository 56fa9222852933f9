# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of images shows of the disk, stretch by stretch: for each cluster what it is and which image holds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.ends import Extent
from overkeep.blocks.flags import runs
from overkeep.blocks.qcow2.held import HOLE, MIXED, STRETCH, ZEROES, Held, held
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.runs import Bools, Bytes8, Unsigned

NOBODY = -1
"""Provider of a cluster that no image of the run holds: what is below the run shows through."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The clusters of a stretch as the newest image of a run shows them, kinds and values as of `Held`.

    `providers` are indexes into the run, newest first. ZEROES are only where something below the run must be hidden;
    `needless` are zeroes that hide nothing but what images of the run hold, and are a HOLE here.
    """

    kinds: Bytes8
    values: Unsigned
    providers: NDArray[np.int16]
    needless: Bools


class View:
    """The disk as `images`, newest first, show it over a base of `base_size` bytes, 0 when there is none.

    It is looked at in clusters of `grain` bytes.
    """

    def __init__(self, images: Sequence[ImageFile], base_size: int, *, grain: int) -> None:
        self.images = tuple(images)
        self.grain = grain
        self.size = images[0].size
        self.base_size = base_size
        self.stretches = -(-self.size // STRETCH)
        self._count = STRETCH // grain

    def seen(self, grain: int) -> View:
        """The same disk in clusters of another size."""
        return View(self.images, self.base_size, grain=grain)

    def shown(self, stretch: int) -> Shown:
        """Look at one stretch."""
        found = Shown(
            np.full(self._count, HOLE, np.uint8),
            np.zeros(self._count, np.uint64),
            np.full(self._count, NOBODY, np.int16),
            np.zeros(self._count, np.bool_),
        )
        for depth in range(len(self.images)):
            undecided = found.kinds == HOLE
            if not undecided.any():
                break
            layer = self._layer(depth, stretch)
            take = undecided & (layer.kinds != HOLE)
            found.kinds[take] = layer.kinds[take]
            found.values[take] = layer.values[take]
            found.providers[take] = depth
        self._drop_needless(found, stretch)
        return found

    def extents(self, stretch: int, chosen: Bools) -> Iterator[Extent]:
        """Yield where the `chosen` clusters of a stretch lie on the disk, neighbours together, none behind its end."""
        for first, last in runs(chosen):
            start = stretch * STRETCH + first * self.grain
            yield Extent(start, min(stretch * STRETCH + last * self.grain, self.size) - start, False)

    def _layer(self, depth: int, stretch: int) -> Held:
        """What one image holds, as those above it see it: zeroes behind its end."""
        layer = held(self.images[depth], stretch, self.grain)
        size = self.images[depth].size
        behind = slice(self._first_from(size, stretch), None)
        if depth == 0:
            layer.set(behind, HOLE)  # there is no disk
        elif size < self.size:
            layer.set(behind, ZEROES)
            self._end_within_cluster(layer, depth, stretch)
        return layer

    def _end_within_cluster(self, layer: Held, depth: int, stretch: int) -> None:
        """The cluster in which an image ends is not the one of its file: the rest of it reads as zeroes."""
        size = self.images[depth].size
        cluster = size // self.grain - stretch * self._count
        if not size % self.grain or not 0 <= cluster < self._count:
            return
        below = self.images[depth + 1].size if depth + 1 < len(self.images) else self.base_size
        if layer.kinds[cluster] != HOLE or below > size:
            layer.set(cluster, MIXED)

    def _drop_needless(self, found: Shown, stretch: int) -> None:
        """Zeroes with nothing below need no cluster, and behind the end of the disk there is none."""
        end = self._first_from(self.size, stretch)
        found.needless[self._first_from(self.base_size, stretch) : end] = True
        found.needless[:] &= found.kinds == ZEROES
        dropped = found.needless.copy()
        dropped[end:] = True
        found.kinds[dropped] = HOLE
        found.values[dropped] = 0
        found.providers[dropped] = NOBODY

    def _first_from(self, size: int, stretch: int) -> int:
        """The first cluster of a stretch that lies wholly behind `size` bytes of the disk."""
        return min(max(-(-size // self.grain) - stretch * self._count, 0), self._count)
