# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk in memory as source and sink: the twin of the real ends, which passes the same contract suite."""

from __future__ import annotations

from collections.abc import Iterator

from overkeep.blocks.buffers import CLUSTER, is_zero
from overkeep.blocks.ends import UNLIMITED, Extent
from overkeep.blocks.errors import BadRange, NoChangedBlocks
from overkeep.blocks.extents import Status, dirty_clusters


class MemoryDisk:
    """A disk of `size` bytes; what was written since `mark` was called counts as changed."""

    parallel = UNLIMITED

    def __init__(self, size: int) -> None:
        self.content = bytearray(size)
        self.finished = False
        self.closed = False
        self._dirty: set[int] | None = None

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return len(self.content)

    def mark(self) -> None:
        """Begin to track changes anew."""
        self._dirty = set()

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield extents of whole clusters: all, or those that were written since `mark`."""
        if dirty and self._dirty is None:
            raise NoChangedBlocks(url="memory", reason="changes are not tracked")
        return dirty_clusters(self._statuses(dirty=dirty))

    def _statuses(self, *, dirty: bool) -> Iterator[Status]:
        view = memoryview(self.content)
        for at in range(0, self.size, CLUSTER):
            piece = view[at : at + CLUSTER]
            changed = not dirty or at // CLUSTER in (self._dirty or ())
            yield Status(len(piece), changed, is_zero(piece))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`."""
        self._check(offset, len(buffer))
        buffer[:] = memoryview(self.content)[offset : offset + len(buffer)]

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`."""
        self._check(offset, len(data))
        self._touch(offset, len(data))
        memoryview(self.content)[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        """Make a run read as zeroes."""
        self._check(offset, length)
        self._touch(offset, length)
        memoryview(self.content)[offset : offset + length] = bytes(length)

    def clone(self) -> MemoryDisk:
        """Return this disk: it is safe for several threads."""
        return self

    def finish(self) -> None:
        """Note that everything was written."""
        self.finished = True

    def close(self) -> None:
        """Note that the disk was closed."""
        self.closed = True

    def _touch(self, offset: int, length: int) -> None:
        if self._dirty is not None:
            self._dirty.update(range(offset // CLUSTER, -(-(offset + length) // CLUSTER)))

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self.size:
            raise BadRange(offset=offset, length=length, what="the disk", size=self.size)
