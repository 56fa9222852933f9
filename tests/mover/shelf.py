# SPDX-License-Identifier: GPL-3.0-or-later
"""Points of one disk in a folder, made by the mover's copies, and a disk in memory that changes as a guest's does."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.compression import Compression
from overkeep.blocks.expected import ChainDigests
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.merge.acts import MergeStats
from overkeep.blocks.qcow2.form import Form
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.model.points import Changes
from overkeep.mover.bookkeeping import merge_images
from overkeep.mover.copy_terms import Options, Place
from overkeep.mover.disk_copies import back_up
from overkeep.mover.orders import CopyResult, Progress
from overkeep.mover.stopping import Stoppable
from overkeep.units import KIB, MIB
from tests.mover.bench import tool

FORMS = {
    "plain": Form(),
    "large": Form(cluster=512 * KIB),
    "largest": Form(cluster=2 * MIB),
    "zstd": Form(compression=Compression.ZSTD),
    "large zstd": Form(cluster=MIB, compression=Compression.ZSTD, level=1),
}


class Watching(Stoppable):
    """A watch that remembers what it heard."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Progress] = []

    def progress(self, progress: Progress) -> None:
        self.heard.append(progress)


class Impatient(Watching):
    """A watch that has had enough when it was asked so many times."""

    def __init__(self, patience: int) -> None:
        super().__init__()
        self._left = patience

    @property
    def stopped(self) -> bool:
        self._left -= 1
        return self._left < 0


class Shelf:
    """Points of one disk in a folder: `p1.qcow2` and so on, each upon the one before that is still there.

    What they are compared with is written to `scratch`, the same folder unless that has no room for it.
    """

    def __init__(self, folder: Path, *, form: Form = FORMS["plain"], scratch: Path | None = None) -> None:
        self.folder = folder
        self.scratch = scratch or folder
        self.form = form
        self.count = 0
        self.names: list[str] = []
        self.watch = Watching()

    @property
    def newest(self) -> str:
        return self.names[-1]

    @property
    def place(self) -> Place:
        return Place(folder=self.folder, name=self.newest)

    def back_up(self, disk: MemoryDisk, changes: Changes, **options: Any) -> CopyResult:
        """Make the next point."""
        backing = self.newest if self.names and changes is not Changes.ALL else None
        place = Place(folder=self.folder, name=f"p{self.count + 1}.qcow2", backing=backing)
        made = Options(**{"form": self.form, **options})
        result = back_up(disk, place, changes=changes, options=made, watch=self.watch)
        self.count += 1
        self.names.append(place.name)
        return result

    def merge(self, *names: str, watch: Watching | None = None) -> MergeStats:
        """Let points end, and remove their images."""
        self.names = [name for name in self.names if name not in names]
        return merge_images(self.folder, names, watch=watch or self.watch)

    def check(self, disk: MemoryDisk) -> None:
        """Compare the newest point with `disk`, read by us and by qemu-img, and by its digests."""
        self.check_point(self.newest, bytes(disk.content))

    def check_point(self, name: str, content: bytes) -> None:
        """Compare a point with what it should hold, read by us and by qemu-img, and by its digests."""
        with closing(ChainReader(self.folder, name)) as chain:
            found = bytearray(chain.size)
            chain.read_into(0, memoryview(found))
        assert found == content, name
        with closing(ChainDigests(self.folder, name)) as digests:
            made = digests.range(0, -(-len(content) // CLUSTER)).tobytes()
            assert made == digests.hashing.of(memoryview(content)), name
        tool("qemu-img", "check", "-q", self.folder / name)
        raw = self.scratch / "raw"
        raw.write_bytes(content)
        tool("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, self.folder / name)

    def stored(self) -> int:
        return (self.folder / self.newest).stat().st_size


def scribble(disk: MemoryDisk, rng: random.Random, count: int) -> None:
    """Write, zero and write the same again at places chosen by chance."""
    for _ in range(count):
        start = rng.randrange(disk.size)
        length = min(disk.size - start, rng.choice((1, 512, CLUSTER, 3 * CLUSTER, 300_000)))
        kind = rng.randrange(4)
        if kind == 0:
            disk.zero(start, length)
        elif kind == 1:
            disk.write(start, memoryview(bytes(disk.content[start : start + length])))
        else:
            disk.write(start, memoryview(rng.randbytes(length)))


def resized(disk: MemoryDisk, size: int) -> MemoryDisk:
    """The disk with another size, as a guest sees it."""
    new = MemoryDisk(size)
    kept = min(size, disk.size)
    new.content[:kept] = disk.content[:kept]
    return new
