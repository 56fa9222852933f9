# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clusters of an image are looked at: all that it holds, or a share of them chosen by chance."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator

import numpy as np

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digests import PER_PAGE, Digests
from overkeep.blocks.ends import Extent
from overkeep.blocks.extents import chunks, joined
from overkeep.blocks.flags import runs
from overkeep.units import MIB

PIECE = 2 * MIB
"""Bytes that are chosen or left out together: as much as is read at once."""


def held(digests: Digests) -> Iterator[Extent]:
    """Yield the clusters of a disk that have a digest, zeroes included, in order."""
    return joined(_held(digests, 0, digests.clusters))


def shuffled(digests: Digests) -> Iterator[Extent]:
    """Yield the same in pieces, in an order made by chance."""
    count = PIECE // CLUSTER
    pieces = np.arange(-(-digests.clusters // count), dtype=np.uint32)
    np.random.default_rng().shuffle(pieces)
    for first in (int(piece) * count for piece in pieces):
        yield from joined(_held(digests, first, min(first + count, digests.clusters)))


def _held(digests: Digests, first: int, end: int) -> Iterator[Extent]:
    """What has a digest from cluster `first` on, up to `end`."""
    first = digests.next_held(first)
    while first < end:
        count = min(PER_PAGE, end - first)
        for start, stop in runs(np.asarray(digests.range(first, count).any(axis=1))):
            begin = (first + start) * CLUSTER
            yield Extent(begin, min((first + stop) * CLUSTER, digests.size) - begin, False)
        first = digests.next_held(first + count)


def sampled(extents: Iterable[Extent], share: float, rng: random.Random) -> Iterator[Extent]:
    """Yield about a `share` of `extents`, in pieces that are chosen one by one; at least one when there is any."""
    if share >= 1:
        yield from extents
        return
    chosen = False
    spare: Extent | None = None
    for seen, piece in enumerate(chunks(extents, PIECE), start=1):
        if rng.random() < share:
            chosen = True
            yield piece
        elif rng.random() * seen < 1:
            spare = piece
    if not chosen and spare is not None:
        yield spare


def until(end: float, extents: Iterable[Extent]) -> Iterator[Extent]:
    """Yield `extents` up to a moment of `time.monotonic()`."""
    for extent in extents:
        if time.monotonic() >= end:
            return
        yield extent
