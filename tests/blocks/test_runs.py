# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs laid over one another and cut, against a disk of single bytes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from overkeep.blocks.qcow2.runs import NOTHING, Kind, Runs, overlaid

DISK = 40
Byte = tuple[int, int, int]  # kind, layer, and where the byte is in its file (the entry, if it is compressed)


def painted(runs: Runs) -> list[Byte | None]:
    """What is known of each byte of the disk."""
    disk: list[Byte | None] = [None] * DISK
    for run, layer in zip(runs, runs.layers.tolist(), strict=True):
        for position in range(run.start, run.stop):
            skipped = position - run.start if run.kind is Kind.DATA else 0
            disk[position] = (run.kind, layer, run.place + skipped)
    return disk


@st.composite
def some_runs(draw: st.DrawFn, layer: int) -> Runs:
    """Runs of one layer; some touch one another."""
    cuts = draw(st.lists(st.integers(0, DISK), max_size=12, unique=True).map(sorted))
    pairs = [pair for pair in pairwise(cuts) if draw(st.booleans())]
    if not pairs:
        return NOTHING
    starts, stops = np.array(pairs, np.int64).T
    kinds = np.array([draw(st.sampled_from([Kind.DATA, Kind.ZERO, Kind.PACKED])) for _ in pairs], np.uint8)
    places = np.array([draw(st.integers(1, 1 << 50)) for _ in pairs], np.uint64)
    return Runs(starts, stops, kinds, places, np.full(len(pairs), layer, np.uint8))


@given(some_runs(0), some_runs(1), some_runs(2))
def test_overlaid(top: Runs, middle: Runs, bottom: Runs) -> None:
    layers = [painted(runs) for runs in (top, middle, bottom)]
    expected = [next((byte for byte in column if byte), None) for column in zip(*layers, strict=True)]
    result = overlaid(top, overlaid(middle, bottom))
    assert painted(result) == expected
    assert painted(overlaid(overlaid(top, middle), bottom)) == expected
    assert (result.starts < result.stops).all()
    assert (result.stops[:-1] <= result.starts[1:]).all()


@given(some_runs(0), st.integers(0, DISK), st.integers(0, DISK))
def test_clipped(runs: Runs, start: int, stop: int) -> None:
    start, stop = sorted((start, stop))
    expected = [byte if start <= at < stop else None for at, byte in enumerate(painted(runs))]
    assert painted(runs.clipped(start, stop)) == expected


@given(some_runs(0), st.integers(0, DISK), st.integers(0, DISK))
def test_fills(runs: Runs, start: int, stop: int) -> None:
    start, stop = sorted((start, stop))
    inside = runs.clipped(start, stop)
    assert inside.fills(start, stop) == (start < stop and None not in painted(runs)[start:stop])
