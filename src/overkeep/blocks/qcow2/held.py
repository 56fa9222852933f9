# SPDX-License-Identifier: GPL-3.0-or-later
"""What one image holds of a stretch of the disk, as arrays, in clusters of any size whatever its own are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.runs import Bytes8, Kind, Runs, Unsigned
from overkeep.units import MIB

STRETCH = 512 * MIB
"""Bytes of the disk that are looked at together: what one L2 table describes when clusters have 64 KiB."""

HOLE, ZEROES, PLACE, PACKED, MIXED = range(5)
"""Kinds of clusters: not held; zeroes; data at an offset of the file; data compressed as an L2 entry says; anything
that only reading the chain at this cluster tells."""

_OF_RUNS = np.zeros(len(Kind), np.uint8)
_OF_RUNS[[Kind.HOLE, Kind.ZERO, Kind.DATA, Kind.PACKED]] = HOLE, ZEROES, PLACE, PACKED


@dataclass(frozen=True, slots=True)
class Held:
    """The clusters of a stretch: `values` are offsets in the file (PLACE), L2 entries (PACKED), else 0."""

    kinds: Bytes8
    values: Unsigned

    def set(self, which: slice | int, kind: int) -> None:
        """Let clusters be of a kind that has no value."""
        self.kinds[which] = kind
        self.values[which] = 0


def held(image: ImageFile, stretch: int, grain: int) -> Held:
    """Look at stretch number `stretch` in clusters of `grain` bytes; what lies behind the end of the disk is a hole.

    Only whole clusters of the image are PACKED: with extended L2 entries a unit is a part of one.
    Raises `ImageDamaged`.
    """
    unit = image.header.unit
    own = Held(np.full(STRETCH // unit, HOLE, np.uint8), np.zeros(STRETCH // unit, np.uint64))
    start = stretch * STRETCH
    stop = min(start + STRETCH, image.size)
    for span in image.spans(start, stop) if start < stop else ():
        _fill(own, span.runs, start, unit)
    if unit < grain:
        return _joined(own, grain // unit)
    if unit > grain:
        return _split(own, unit, grain)
    return _without_packed(own) if unit < image.header.cluster else own


def _fill(own: Held, runs: Runs, start: int, unit: int) -> None:
    counts = -(-(runs.stops - runs.starts) // unit)
    before = np.cumsum(counts) - counts
    steps = np.arange(int(counts.sum()), dtype=np.int64) - np.repeat(before, counts)
    where = np.repeat((runs.starts - start) // unit, counts) + steps
    kinds = np.repeat(_OF_RUNS[runs.kinds], counts)
    places = np.repeat(runs.places, counts)
    data = kinds == PLACE
    places[data] += (steps[data] * unit).astype(np.uint64)
    own.kinds[where] = kinds
    own.values[where] = np.where(kinds >= PLACE, places, np.uint64(0))


def _joined(own: Held, ratio: int) -> Held:
    """Several units of the image are one cluster: what they agree in, else MIXED."""
    kinds = own.kinds.reshape(-1, ratio)
    least, most = kinds.min(axis=1), kinds.max(axis=1)
    same = (least == most) & (most <= ZEROES)
    return Held(np.where(same, most, MIXED).astype(np.uint8), np.zeros(len(kinds), np.uint64))


def _without_packed(own: Held) -> Held:
    """Parts of compressed clusters are MIXED: their L2 entry describes more than what is looked at."""
    packed = own.kinds == PACKED
    values = np.where(packed, np.uint64(0), own.values)
    return Held(np.where(packed, MIXED, own.kinds).astype(np.uint8), values)


def _split(own: Held, cluster: int, grain: int) -> Held:
    """One cluster of the image is several; a part of a compressed one is MIXED."""
    ratio = cluster // grain
    kinds = np.repeat(_without_packed(own).kinds, ratio)
    steps = np.tile(np.arange(0, cluster, grain, dtype=np.uint64), len(own.kinds))
    values = np.where(kinds == PLACE, np.repeat(own.values, ratio) + steps, np.uint64(0))
    return Held(kinds, values)
