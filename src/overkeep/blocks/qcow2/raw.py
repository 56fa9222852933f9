# SPDX-License-Identifier: GPL-3.0-or-later
"""A raw file as the last image of a chain, which is so only where the header of its overlay says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from overkeep.blocks.errors import ImageDamaged
from overkeep.blocks.qcow2.runs import NOTHING, Kind, Run, Runs, Span
from overkeep.blocks.reading import TargetFile


class RawFile:
    """A raw image file; holes of the file read as zeroes. Safe for several threads; errors as of `TargetFile`."""

    def __init__(self, folder: Path, name: str, *, cached: bool = True) -> None:
        self.name = name
        self._file = TargetFile(folder / name, cached=cached)
        self.size = self._file.size

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """Yield the stretches that make up `start` to `stop`, in order, each with the data in it."""
        while start < stop:
            found = self._file.data_runs(start, stop)
            if not found:
                yield Span(start, stop, NOTHING)
                return
            starts, stops = np.array(found, np.int64).T
            layers = np.zeros(len(found), np.uint8)
            kinds = np.full(len(found), Kind.DATA, np.uint8)
            yield Span(start, found[-1][1], Runs(starts, stops, kinds, starts.astype(np.uint64), layers))
            start = found[-1][1]

    def read_run(self, run: Run, buffer: memoryview) -> None:
        """Fill `buffer`, which is as long as `run`, with what lies there."""
        done = self._file.fill(run.place, buffer)
        if done < len(buffer):
            raise ImageDamaged(file=self.name, reason=f"it ends at {run.place + done}, before its data")
