# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ends of a copy: what a source and a sink must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes of a disk; `zero` means that it reads as zeroes and need not be read."""

    start: int
    length: int
    zero: bool

    @property
    def end(self) -> int:
        """First byte after the run."""
        return self.start + self.length


Piece = tuple[int, memoryview]
"""Where something lies on a disk, in bytes, and memory for it or with it."""

_Together = Callable[[Sequence[Piece]], None]

UNLIMITED = 1 << 16
"""`parallel` of an end that any number of threads may use."""


class Source(Protocol):
    """An end that is read. `read_into` may be called from several threads, each with a source from `clone`."""

    @property
    def size(self) -> int:
        """Virtual size in bytes."""

    @property
    def parallel(self) -> int:
        """How many clones may work at the same time; with 0 the end itself must be read, by one thread."""

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield, in order and without overlap, all extents (`dirty=False`) or those changed since the base."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`; a short read is an error."""

    def clone(self) -> Source:
        """Return an independent source on the same disk, for another thread."""

    def close(self) -> None:
        """Release what the source holds; may be called twice."""


class Sink(Protocol):
    """An end that is written. `write` and `zero` may be called from several threads, on clones."""

    @property
    def size(self) -> int:
        """Virtual size in bytes."""

    @property
    def parallel(self) -> int:
        """How many clones may work at the same time."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`."""

    def zero(self, offset: int, length: int) -> None:
        """Make a run read as zeroes."""

    def clone(self) -> Sink:
        """Return an end on the same disk for another thread; it may be the same object if that is safe."""

    def finish(self) -> None:
        """Make durable what this end and its clones wrote; called once, on the first end, when all of them are done."""

    def close(self) -> None:
        """Release what the sink holds, without making an unfinished result look whole; may be called twice."""


def read_each(source: Source, pieces: Sequence[Piece]) -> None:
    """Fill all `pieces` from `source`: at once when it has a `read_each` of its own. Errors as of its `read_into`."""
    together: _Together | None = getattr(source, "read_each", None)  # a tenth of the cost of asking for a protocol
    if together is not None:
        together(pieces)
        return
    for offset, buffer in pieces:
        source.read_into(offset, buffer)


def write_each(sink: Sink, pieces: Sequence[Piece]) -> None:
    """Write all `pieces`, which do not overlap: at once when `sink` has a `write_each`. Errors as of its `write`."""
    together: _Together | None = getattr(sink, "write_each", None)
    if together is not None:
        together(pieces)
        return
    for offset, data in pieces:
        sink.write(offset, data)
