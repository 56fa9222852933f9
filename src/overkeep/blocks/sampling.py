# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clusters of an image are looked at: all that it holds, or a share of them chosen by chance."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import numpy as np

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digests import PER_PAGE, Digests, runs
from overkeep.blocks.ends import Extent
from overkeep.blocks.extents import chunks, joined
from overkeep.units import MIB

PIECE = 2 * MIB
"""Bytes that are chosen or left out together: as much as is read at once."""


def held(digests: Digests, size: int) -> Iterator[Extent]:
    """Yield the clusters of a disk of `size` bytes that have a digest, zeroes included, in order."""
    return joined(
        Extent(start * CLUSTER, min(end * CLUSTER, size) - start * CLUSTER, False) for start, end in _runs(digests)
    )


def _runs(digests: Digests) -> Iterator[tuple[int, int]]:
    first = digests.next_held(0)
    while first < digests.clusters:
        count = min(PER_PAGE, digests.clusters - first)
        for start, end in runs(np.asarray(digests.range(first, count).any(axis=1))):
            yield first + start, first + end
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
