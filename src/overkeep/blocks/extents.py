# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure operations on extents: joining neighbours, rounding out to clusters, cutting into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.ends import Extent
from overkeep.units import MIB, align_down, align_up

ZERO_STEP = 256 * MIB
"""Longest run of zeroes handled in one go, so that cancelling and progress do not wait for a whole disk."""

_MOST_PIECES = 64

_BITS, _LOW, _MORE = 7, 0x7F, 0x80  # of a byte of a number: it has seven bits, and says whether more follow


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of the next `length` bytes of a disk: whether they changed, whether they read as zeroes."""

    length: int
    dirty: bool
    zero: bool


def joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join extents that touch and agree about zeroes; `extents` are in order."""
    last: Extent | None = None
    for extent in extents:
        if last is not None and last.end == extent.start and last.zero == extent.zero:
            last = Extent(last.start, last.length + extent.length, last.zero)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last


def dirty_clusters(statuses: Iterable[Status], *, cluster: int = CLUSTER) -> Iterator[Extent]:
    """Turn the statuses of a whole disk, from its first byte on, into extents of whole clusters of `cluster` bytes.

    A cluster is in the result when any of it is dirty, and zero there only when all of it reads as zeroes. The last
    extent ends where the statuses end.
    """
    return joined(extent for dirty, extent in _clusters(statuses, cluster) if dirty)


def _clusters(statuses: Iterable[Status], cluster: int) -> Iterator[tuple[bool, Extent]]:
    start = end = 0  # the piece of a cluster that has been seen and not been given yet
    dirty, zero = False, True
    for status in statuses:
        position, stop = end, end + status.length
        end = stop
        if position > start:  # complete the cluster that an earlier status began
            edge = min(stop, align_up(position, cluster))
            dirty, zero = dirty or status.dirty, zero and status.zero
            if edge % cluster:
                continue
            yield dirty, Extent(start, edge - start, zero)
            start = edge
        whole = align_down(stop, cluster)
        if whole > start:
            yield status.dirty, Extent(start, whole - start, status.zero)
            start = whole
        dirty, zero = status.dirty, status.zero
    if end > start:
        yield dirty, Extent(start, end - start, zero)


def chunks(extents: Iterable[Extent], chunk: int) -> Iterator[Extent]:
    """Cut extents into pieces of at most `chunk` bytes of data or `ZERO_STEP` bytes of zeroes.

    Pieces end at multiples of their greatest length, so that clusters stay whole.
    """
    for extent in extents:
        step = ZERO_STEP if extent.zero else chunk
        position = extent.start
        while position < extent.end:
            stop = min(extent.end, align_down(position, step) + step)
            yield Extent(position, stop - position, extent.zero)
            position = stop


def batches(pieces: Iterable[Extent], chunk: int) -> Iterator[Sequence[Extent]]:
    """Group pieces as `chunks` gives them, so that scattered ones travel together.

    A batch has at most `chunk` bytes of data, `ZERO_STEP` bytes of zeroes and `_MOST_PIECES` pieces.
    """
    batch: list[Extent] = []
    data = zeroes = 0
    for piece in pieces:
        more_data, more_zeroes = (0, piece.length) if piece.zero else (piece.length, 0)
        full = data + more_data > chunk or zeroes + more_zeroes > ZERO_STEP or len(batch) == _MOST_PIECES
        if batch and full:
            yield batch
            batch, data, zeroes = [], 0, 0
        batch.append(piece)
        data, zeroes = data + more_data, zeroes + more_zeroes
    if batch:
        yield batch


def widened(extents: Iterable[Extent], cluster: int, size: int) -> Iterator[Extent]:
    """Round extents out to whole clusters of `cluster` bytes; `extents` are in order, on a disk of `size` bytes.

    A cluster is zero only when extents that are zero cover all of it.
    """
    return dirty_clusters(_statuses(extents, size), cluster=cluster)


def _statuses(extents: Iterable[Extent], size: int) -> Iterator[Status]:
    """The statuses of a whole disk on which `extents` are what is dirty; nothing is known of the rest."""
    position = 0
    for extent in extents:
        if extent.start > position:
            yield Status(extent.start - position, False, False)
        yield Status(extent.length, True, extent.zero)
        position = extent.end
    if position < size:
        yield Status(size - position, False, False)


class PackedExtents:
    """Extents in two bytes each when they are short and lie close: when every other cluster of a disk of 1 TiB
    changed there are eight million, and their `total` must be known first.

    An extent is two numbers of variable length, seven bits a byte: its length with two flags (whether it is zero, and
    whether both numbers count bytes instead of clusters), then how far it begins behind the end of the one before.
    """

    def __init__(self, extents: Iterable[Extent]) -> None:
        self._packed = bytearray()
        self.total = 0
        position = 0
        for extent in extents:
            self._add(extent.start - position, extent.length, zero=extent.zero)
            position = extent.end
            self.total += extent.length

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they take."""
        return len(self._packed)

    def _add(self, gap: int, length: int, *, zero: bool) -> None:
        in_bytes = bool(gap % CLUSTER or length % CLUSTER)
        unit = 1 if in_bytes else CLUSTER
        steps = gap // unit
        numbers = (length // unit << 2 | zero << 1 | in_bytes, steps << 1 if steps >= 0 else ~steps << 1 | 1)
        for number in numbers:
            left = number
            while left > _LOW:
                self._packed.append(_MORE | left & _LOW)
                left >>= _BITS
            self._packed.append(left)

    def __iter__(self) -> Iterator[Extent]:
        numbers = self._numbers()
        position = 0
        for first in numbers:
            steps = next(numbers)
            unit = 1 if first & 1 else CLUSTER
            start = position + (~(steps >> 1) if steps & 1 else steps >> 1) * unit
            length = (first >> 2) * unit
            yield Extent(start, length, bool(first & 2))
            position = start + length

    def _numbers(self) -> Iterator[int]:
        number = shift = 0
        for byte in self._packed:
            if byte > _LOW:
                number |= (byte & _LOW) << shift
                shift += _BITS
            else:
                yield number | byte << shift
                number = shift = 0
