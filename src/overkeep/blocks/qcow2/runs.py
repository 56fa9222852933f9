# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of a disk as arrays: where its data lie, found and laid over one another without a loop per cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]
Bytes8 = NDArray[np.uint8]
Signed = NDArray[np.int64]
Unsigned = NDArray[np.uint64]


class Kind(IntEnum):
    """What an image holds of a run of the disk."""

    HOLE = 0
    """Nothing: the backing image tells, and zeroes if there is none."""
    DATA = 1
    ZERO = 2
    PACKED = 3
    """One compressed cluster."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the disk; `place` is the offset of its data in the file, or the L2 entry if it is compressed."""

    start: int
    stop: int
    kind: Kind
    place: int


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of the disk in order and without overlap; what lies between them is held by nobody.

    `starts` and `stops` are offsets on the disk, `kinds` values of `Kind` but no hole. `places` are offsets in the
    file for data and L2 entries for compressed clusters. `layers` are positions in the chain.
    """

    starts: Signed
    stops: Signed
    kinds: Bytes8
    places: Unsigned
    layers: Bytes8

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Run]:
        columns = (self.starts.tolist(), self.stops.tolist(), self.kinds.tolist(), self.places.tolist())
        for start, stop, kind, place in zip(*columns, strict=True):
            yield Run(start, stop, Kind(kind), place)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they take."""
        columns = (self.starts, self.stops, self.kinds, self.places, self.layers)
        return sum(column.nbytes for column in columns)

    def take(self, which: Indices | Bools | slice) -> Runs:
        """The runs at some positions."""
        return Runs(self.starts[which], self.stops[which], self.kinds[which], self.places[which], self.layers[which])

    def clipped(self, start: int, stop: int) -> Runs:
        """What lies between `start` and `stop`."""
        if start >= stop or not len(self):
            return NOTHING
        first = int(np.searchsorted(self.stops, start, "right"))
        last = int(np.searchsorted(self.starts, stop, "left"))
        inside = self.take(slice(first, last))
        if not len(inside) or (inside.starts[0] >= start and inside.stops[-1] <= stop):
            return inside
        return inside.cut(np.maximum(inside.starts, start), np.minimum(inside.stops, stop))

    def cut(self, starts: Signed, stops: Signed) -> Runs:
        """The same runs with other ends, inside their own: data keep their places."""
        skipped = np.where(self.kinds == Kind.DATA, starts - self.starts, 0).astype(np.uint64)
        return Runs(starts, stops, self.kinds, self.places + skipped, self.layers)

    def at_layer(self, layer: int) -> Runs:
        """The same runs, said to lie in `layer` of the chain."""
        return Runs(self.starts, self.stops, self.kinds, self.places, np.full(len(self), layer, np.uint8))

    def fills(self, start: int, stop: int) -> bool:
        """Whether nothing between `start` and `stop` is left to others; all runs lie there."""
        return bool(len(self)) and int((self.stops - self.starts).sum()) == stop - start


@dataclass(frozen=True, slots=True)
class Span:
    """The stretch `start` to `stop` of the disk and all that is held of it."""

    start: int
    stop: int
    runs: Runs


_NO_OFFSETS = np.zeros(0, np.int64)
_NO_NUMBERS = np.zeros(0, np.uint8)
NOTHING = Runs(_NO_OFFSETS, _NO_OFFSETS, _NO_NUMBERS, np.zeros(0, np.uint64), _NO_NUMBERS)
"""Nothing is held."""


def overlaid(top: Runs, below: Runs) -> Runs:
    """What is seen of two layers: all of `top`, and of `below` what lies between."""
    if not len(top):
        return below
    seen = _between(top, below)
    if not len(seen):
        return top
    return _joined(top, seen)


def _between(top: Runs, below: Runs) -> Runs:
    """The pieces of `below` that no run of `top` covers."""
    if not len(below):
        return below
    info = np.iinfo(np.int64)
    gap_starts = np.concatenate(([info.min], top.stops))
    gap_stops = np.concatenate((top.starts, [info.max]))
    # A piece begins where a run begins in a gap, or where a gap begins in a run.
    gap_of_run = np.searchsorted(gap_starts, below.starts, "right") - 1
    run_of_gap = np.searchsorted(below.starts, gap_starts, "right") - 1
    run_begins = below.starts < gap_stops[gap_of_run]
    gap_begins = (run_of_gap >= 0) & (gap_starts < below.stops[run_of_gap]) & (gap_starts < gap_stops)
    gap_begins &= below.starts[run_of_gap] != gap_starts  # that one begins already by itself
    runs = np.concatenate((np.flatnonzero(run_begins), run_of_gap[gap_begins]))
    gaps = np.concatenate((gap_of_run[run_begins], np.flatnonzero(gap_begins)))
    starts = np.maximum(below.starts[runs], gap_starts[gaps])
    stops = np.minimum(below.stops[runs], gap_stops[gaps])
    order = np.argsort(starts, kind="stable")
    return below.take(runs[order]).cut(starts[order], stops[order])


def _joined(one: Runs, other: Runs) -> Runs:
    """All runs of both, which do not overlap, in order."""
    both = concatenated([one, other])
    return both.take(np.argsort(both.starts, kind="stable"))


def concatenated(parts: Sequence[Runs]) -> Runs:
    """The runs of all parts, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    return Runs(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.stops for part in parts]),
        np.concatenate([part.kinds for part in parts]),
        np.concatenate([part.places for part in parts]),
        np.concatenate([part.layers for part in parts]),
    )
