# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.blocks.large_disk WORK FOLDER STEP`: what a mover does with a disk of 1 TiB that holds 500 GiB.

The data lie in pieces of STEP bytes. They are neither written nor read nor hashed, which would take minutes: the images
have holes in their place. The buffers that they would lie in are used, and tables and digests, and all that is kept of
them, are real. Prints what was done, and the greatest size of the process in MiB.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overkeep.blocks import heap
from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.ends import UNLIMITED, Extent
from overkeep.blocks.extents import PackedExtents
from overkeep.blocks.hashing import Hashing
from overkeep.blocks.image import ImageSink
from overkeep.blocks.merge.acts import merge_away
from overkeep.blocks.merge.making import Watch
from overkeep.blocks.merge.transfer import TransferSink, TransferSource
from overkeep.blocks.qcow2 import writer
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.verify import Sample, verify_image
from overkeep.mover.copy_terms import Options, Place
from overkeep.mover.disk_copies import differing, restore
from overkeep.mover.orders import Progress
from overkeep.mover.stopping import Stoppable
from overkeep.repository.merging import MergeJournal
from overkeep.units import GIB, KIB, TIB

HELD = 500 * GIB
PAGE = 4 * KIB
SPARSE = 64  # of so many clusters that are held one changes
NAMES = ("p1.qcow2", "p2.qcow2", "p3.qcow2", "p4.qcow2")
KNOWN = bytes(range(16))


def leave_data_out() -> None:
    """Let data be written, read and hashed in no time: all of it is alike."""
    Hashing.of = lambda self, data: KNOWN * -(-len(data) // CLUSTER)  # type: ignore[method-assign]
    writer._joined = lambda pieces: iter(())  # type: ignore[assignment]
    ImageFile.read_run = lambda self, run, buffer: use(buffer)  # type: ignore[method-assign]
    TransferSource.read_into = lambda self, offset, buffer: use(buffer)  # type: ignore[method-assign]
    TransferSink.write = lambda self, offset, data: None  # type: ignore[method-assign]


def use(buffer: memoryview) -> None:
    """Have the system give all of the buffer, as reading into it does."""
    buffer[::PAGE] = b"x" * -(-len(buffer) // PAGE)


@dataclass(frozen=True)
class Disk:
    """The disk as source and as sink."""

    pieces: Callable[[], Iterator[Extent]]
    size: int = TIB
    parallel: int = UNLIMITED

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        return self.pieces()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        use(buffer)

    def write(self, offset: int, data: memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...

    def clone(self) -> Disk:
        return self

    def finish(self) -> None: ...

    def close(self) -> None: ...


class Heedless(Stoppable):
    """A watch that remembers nothing."""

    def progress(self, progress: Progress) -> None: ...


@dataclass(frozen=True)
class Layout:
    """Where the data of the disk lie: every other piece of `step` bytes."""

    step: int

    def held(self) -> Iterator[Extent]:
        for start in range(0, 2 * HELD, 2 * self.step):
            yield Extent(start, self.step, False)

    def sparse(self, number: int) -> Iterator[Extent]:
        """A few clusters here and there."""
        clusters = (at for piece in self.held() for at in range(piece.start, piece.end, CLUSTER))
        for index, at in enumerate(clusters):
            if index % SPARSE == number:
                yield Extent(at, CLUSTER, False)

    def most(self) -> Iterator[Extent]:
        """Three quarters of what is held."""
        for index, piece in enumerate(self.held()):
            if index % 4:
                yield piece


class Works:
    """What is done with the images of the disk in `folder`."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._layout = layout

    def make(self) -> Any:
        """A full image, two small overlays, and a large one."""
        layout = self._layout
        changes = [layout.held, lambda: layout.sparse(1), lambda: layout.sparse(2), layout.most]
        return [self._copy(number, pieces) for number, pieces in enumerate(changes)]

    def _copy(self, number: int, pieces: Callable[[], Iterator[Extent]]) -> int:
        backing = NAMES[number - 1] if number else None
        with closing(ImageSink(self._folder, NAMES[number], size=TIB, backing=backing)) as sink:
            return copy(Disk(pieces), sink, PackedExtents(pieces())).moved

    def verify(self) -> Any:
        """The structure of each image, and a few of its data."""
        return self._verify(lambda: Sample(share=0.01))

    def verify_within_a_time(self) -> Any:
        return self._verify(lambda: Sample.within(60))

    def _verify(self, sample: Callable[[], Sample]) -> Any:
        found = [verify_image(self._folder, name, sample=sample()) for name in self._present()]
        assert all(one.sound and one.checked for one in found), found
        return [one.held for one in found]

    def merge(self) -> Any:
        """Let the oldest point end."""
        oldest = self._present()[0]
        return merge_away(self._folder, [oldest], journal=MergeJournal(self._folder), watch=Watch()).moved

    def restore(self) -> Any:
        place, disk = Place(folder=self._folder, name=NAMES[-1]), Disk(self._layout.held)
        return restore(place, disk, options=Options(), watch=Heedless()).moved

    def restore_what_differs(self) -> Any:
        """To a disk that has lost everything."""
        place, disk = Place(folder=self._folder, name=NAMES[-1]), Disk(lambda: iter([Extent(0, TIB, True)]))
        only = differing(place, disk, options=Options(), watch=Heedless())
        return restore(place, disk, only=only, options=Options(), watch=Heedless()).moved

    def _present(self) -> list[str]:
        return [name for name in NAMES if (self._folder / name).exists()]


def peak() -> float:
    """The greatest size of this process so far, in MiB."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    heap.share()
    leave_data_out()
    works = Works(Path(sys.argv[2]), Layout(int(sys.argv[3])))
    print(json.dumps({"done": getattr(works, sys.argv[1])(), "peak": peak()}))
