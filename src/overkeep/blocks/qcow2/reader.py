# SPDX-License-Identifier: GPL-3.0-or-later
"""The reader of chains: a source over the images of one folder, which it never leaves."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from overkeep.blocks.buffers import ZEROES
from overkeep.blocks.ends import UNLIMITED, Extent
from overkeep.blocks.errors import BadRange, ImageDamaged, UnsafeImage
from overkeep.blocks.extents import Status, dirty_clusters
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.layout import COMPRESSED, OFFSET_MASK, ZERO
from overkeep.model.points import LONGEST_CHAIN

_ZERO_ENTRY, _HOLE, _PLACE, _PACKED = range(4)


@dataclass(frozen=True, slots=True)
class _Run:
    """Where a run of the disk is: in `image` at `offset`, compressed as the entry `packed`, or nowhere (zeroes)."""

    start: int
    end: int
    image: ImageFile | None = None
    offset: int = 0
    packed: int = 0


def open_images(folder: Path, name: str) -> tuple[ImageFile, ...]:
    """Open the chain of image `name` in `folder`, the image itself first.

    Raises `ImageDamaged` for a chain that comes back to itself, is too long, or whose overlay is smaller than its
    backing image, besides what `ImageFile` raises. Nothing stays open after an error.
    """
    images: list[ImageFile] = []
    names: set[str] = set()
    current: str | None = name
    try:
        while current is not None:
            if current in names:
                raise UnsafeImage(file=name, reason=f"its chain comes back to {current}")
            if len(images) == LONGEST_CHAIN:
                raise ImageDamaged(file=name, reason=f"its chain is longer than {LONGEST_CHAIN} images")
            names.add(current)
            images.append(ImageFile(folder, current))
            current = images[-1].header.backing
    except BaseException:
        for image in images:
            image.close()
        raise
    return tuple(images)


class ChainReader:
    """A source that reads the disk an image and its backing images make together.

    `dirty=True` is refused by `extents`: an image does not know what changed since another. Clones share the open
    files, which are closed with the last of them.
    """

    parallel = UNLIMITED

    def __init__(self, folder: Path, name: str) -> None:
        self._open(_Files(open_images(folder, name)))

    def _open(self, files: _Files) -> None:
        files.hold()
        self._files = files
        self._images = files.images
        self._closed = False
        self.size = files.images[0].header.size

    @property
    def sizes(self) -> tuple[int, ...]:
        """Virtual sizes of the images of the chain, as `names`."""
        return tuple(image.header.size for image in self._images)

    @property
    def names(self) -> tuple[str, ...]:
        """File names of the chain, the image itself first."""
        return tuple(image.name for image in self._images)

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield all extents of the disk, in order, in whole clusters of 64 KiB."""
        if dirty:
            raise BadRange(offset=0, length=self.size, what="the changed blocks of an image", size=self.size)
        runs = self._runs(0, 0, self.size)
        return dirty_clusters(Status(run.end - run.start, True, run.image is None) for run in runs)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` of the disk."""
        end = offset + len(buffer)
        if offset < 0 or end > self.size:
            raise BadRange(offset=offset, length=len(buffer), what="the disk", size=self.size)
        for run in self._runs(0, offset, end):
            _read_run(run, buffer[run.start - offset : run.end - offset])

    def clone(self) -> ChainReader:
        """Return another reader of the same chain."""
        twin = ChainReader.__new__(ChainReader)
        twin._open(self._files)
        return twin

    def close(self) -> None:
        """Release the files; may be called twice."""
        if not self._closed:
            self._closed = True
            self._files.release()

    def _runs(self, depth: int, start: int, end: int) -> Iterator[_Run]:
        """Yield where `start` to `end` lie, looking from image `depth` downwards."""
        if depth == len(self._images):
            yield _Run(start, end)
            return
        image = self._images[depth]
        within = min(end, image.header.size)
        for piece_start, piece_end, kind, value in _pieces(image, start, within):
            if kind == _HOLE:
                yield from self._runs(depth + 1, piece_start, piece_end)
            elif kind == _ZERO_ENTRY:
                yield _Run(piece_start, piece_end)
            else:
                yield _placed(image, piece_start, piece_end, kind, value)
        if max(start, within) < end:  # an image ends before the one above it: zeroes
            yield _Run(max(start, within), end)


class _Files:
    """The open files of a chain, closed when nobody holds them any more."""

    def __init__(self, images: tuple[ImageFile, ...]) -> None:
        self.images = images
        self._holders = 0
        self._lock = threading.Lock()

    def hold(self) -> None:
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
        for image in self.images:
            image.close()


def _pieces(image: ImageFile, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield `(start, end, kind, value)` of one image; neighbouring holes are one piece, also across tables."""
    covers = image.header.table_covers
    hole = start  # where the hole that has been seen and not been given yet begins
    position = start
    while position < end:
        index = position // covers
        stop = min(end, (index + 1) * covers)
        table = image.table(index)
        if table is not None:
            for piece in _table_pieces(image, table, position, stop):
                if piece[2] == _HOLE:
                    continue
                if hole < piece[0]:
                    yield hole, piece[0], _HOLE, 0
                yield piece
                hole = piece[1]
        position = stop
    if hole < end:
        yield hole, end, _HOLE, 0


def _table_pieces(image: ImageFile, table: array[int], start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a stretch that one table describes into runs of the same kind, data also by place."""
    cluster = image.header.cluster
    base = start - start % image.header.table_covers
    position, last = (start - base) // cluster, -(-(end - base) // cluster)
    while position < last:
        entry = table[position]
        kind, value = _kind(entry)
        stop = position + 1
        if kind == _PLACE:
            expected = value + cluster
            while stop < last and _kind(table[stop]) == (_PLACE, expected):
                stop += 1
                expected += cluster
        elif kind != _PACKED:
            while stop < last and _kind(table[stop])[0] == kind:
                stop += 1
        yield max(start, base + position * cluster), min(end, base + stop * cluster), kind, value
        position = stop


def _kind(entry: int) -> tuple[int, int]:
    if entry & COMPRESSED:
        return _PACKED, entry
    if entry & ZERO:
        return _ZERO_ENTRY, 0
    place = entry & OFFSET_MASK
    return (_PLACE, place) if place else (_HOLE, 0)


def _placed(image: ImageFile, start: int, end: int, kind: int, value: int) -> _Run:
    if kind == _PACKED:
        return _Run(start, end, image, 0, value)
    cluster = image.header.cluster
    skipped = start % cluster
    image.check_place(value, -(-(skipped + end - start) // cluster) * cluster)
    return _Run(start, end, image, value + skipped)


def _read_run(run: _Run, buffer: memoryview) -> None:
    if run.image is None:
        for at in range(0, len(buffer), len(ZEROES)):
            piece = buffer[at : at + len(ZEROES)]
            piece[:] = ZEROES[: len(piece)]
    elif run.packed:
        skipped = run.start % run.image.header.cluster
        buffer[:] = run.image.inflate(run.packed)[skipped : skipped + len(buffer)]
    else:
        run.image.read_into(run.offset, buffer)
