# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk in memory that behaves as a guest's behind an NBD server of QEMU: it is resized, and tells its holes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.extents import Status
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.qcow2.layout import SECTOR


class Kind(StrEnum):
    """What a guest does to a part of its disk."""

    FILL = "fill"
    NOISE = "noise"
    SAME = "same"
    DISCARD = "discard"
    END = "end"
    """Noise up to the very end of the disk."""


@dataclass(frozen=True)
class Act:
    """One thing that a guest does; `place` is a share of the disk, in 16,777,216ths, `length` in bytes."""

    kind: Kind
    place: int
    length: int
    seed: int


@dataclass(frozen=True)
class Resize:
    """What the administrator does to it: the disk ends `to` there, or `by` some sectors elsewhere."""

    to: int | None = None
    by: int = 0

    def of(self, size: int) -> int:
        """The size after this."""
        return max(SECTOR, size + self.by * SECTOR) if self.to is None else self.to


class Guest(MemoryDisk):
    """A disk that tells zeroes only where it was never written, or discarded whole clusters."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._holes = set(range(-(-size // CLUSTER)))
        self.written = 0

    def write(self, offset: int, data: memoryview) -> None:
        super().write(offset, data)
        self.written += len(data)
        self._holes.difference_update(range(offset // CLUSTER, -(-(offset + len(data)) // CLUSTER)))

    def zero(self, offset: int, length: int) -> None:
        super().zero(offset, length)
        self.written += length
        end = offset + length
        last = -(-end // CLUSTER) if end == self.size else end // CLUSTER
        self._holes.update(range(-(-offset // CLUSTER), last))

    def do(self, act: Act) -> None:
        """Let the guest do it."""
        start = self.size - min(act.length, self.size) if act.kind is Kind.END else act.place * self.size >> 24
        length = min(act.length, self.size - start)
        if act.kind is Kind.DISCARD:
            self.zero(start, length)
            return
        contents = {
            Kind.FILL: lambda: bytes([act.seed % 256]) * length,
            Kind.SAME: lambda: bytes(self.content[start : start + length]),
        }
        noise = random.Random(act.seed)
        self.write(start, memoryview(contents.get(act.kind, lambda: noise.randbytes(length))()))

    def resize(self, size: int) -> None:
        """Cut the disk off, or let zeroes follow; neither counts as a change."""
        before = -(-self.size // CLUSTER)
        if size < self.size:
            del self.content[size:]
        else:
            self.content.extend(bytes(size - self.size))
        after = -(-size // CLUSTER)
        self._holes = {hole for hole in self._holes if hole < after} | set(range(before, after))

    def _statuses(self, *, dirty: bool) -> Iterator[Status]:
        for at in range(0, self.size, CLUSTER):
            cluster = at // CLUSTER
            changed = not dirty or cluster in (self._dirty or ())
            yield Status(min(CLUSTER, self.size - at), changed, cluster in self._holes)

    def changed(self) -> set[int]:
        """Numbers of the clusters that changed since the last point."""
        return {cluster for cluster in self._dirty or () if cluster * CLUSTER < self.size}
