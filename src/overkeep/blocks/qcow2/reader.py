# SPDX-License-Identifier: GPL-3.0-or-later
"""The reader of chains: a source over the images of one folder, which it never leaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from overkeep.blocks.buffers import CLUSTER, clear
from overkeep.blocks.ends import UNLIMITED, Extent
from overkeep.blocks.errors import BadRange, ImageDamaged, UnsafeImage
from overkeep.blocks.qcow2.cache import Cache
from overkeep.blocks.qcow2.image import ImageFile, Memory
from overkeep.blocks.qcow2.raw import RawFile
from overkeep.blocks.qcow2.runs import NOTHING, Kind, Run, Runs, Span, concatenated, overlaid
from overkeep.model.points import LONGEST_CHAIN
from overkeep.units import KIB, MIB

Layer = ImageFile | RawFile
"""A file of a chain; only the last may be raw."""

_WINDOW = 32 * MIB  # of the disk: going through the tables of a long chain costs as much for one cluster as for many
_MOST_L1_BYTES = 256 * MIB  # of a whole chain: as much as 256 images of a disk of 64 TiB have


def open_images(folder: Path, name: str, *, cached: bool = True, beginning: bytes = b"") -> tuple[Layer, ...]:
    """Open the chain of image `name` in `folder`, the image itself first.

    `cached` is as for `ImageFile`, and so is `beginning`, which is that of the image itself.

    Raises `UnsafeImage` for a chain that comes back to itself and `ImageDamaged` for one that is too long, besides what
    `ImageFile` raises. Nothing stays open after an error.
    """
    memory = Memory()
    images: list[ImageFile] = []
    with ExitStack() as opened:
        current: str | None = name
        while current is not None:
            _check_room(images, current)
            if images and images[-1].header.backing_raw:
                last = RawFile(folder, current, cached=cached)
                opened.pop_all()
                return (*images, last)
            image = ImageFile(folder, current, cached=cached, memory=memory, beginning=beginning)
            beginning = b""
            opened.callback(image.close)
            image.check_tables()
            images.append(image)
            current = image.header.backing
        opened.pop_all()
    return tuple(images)


def _check_room(images: list[ImageFile], current: str) -> None:
    """Raise the typed error when `current` cannot be the next file of the chain that begins with `images`."""
    name = images[0].name if images else current
    if any(image.name == current for image in images):
        raise UnsafeImage(file=name, reason=f"its chain comes back to {current}")
    if len(images) == LONGEST_CHAIN:
        raise ImageDamaged(file=name, reason=f"its chain is longer than {LONGEST_CHAIN} images")
    if sum(image.l1.nbytes for image in images) > _MOST_L1_BYTES:
        raise ImageDamaged(file=name, reason=f"the L1 tables of its chain are larger than {_MOST_L1_BYTES} bytes")


class ChainReader:
    """A source that reads the disk an image and its backing images make together.

    `cached` and `beginning` are as for `open_images`. `dirty=True` is refused by `extents`: an image does not know what
    changed since another. Clones share the open files, which are closed with the last of them.
    """

    parallel = UNLIMITED

    def __init__(self, folder: Path, name: str, *, cached: bool = True, beginning: bytes = b"") -> None:
        self._open(_Files(open_images(folder, name, cached=cached, beginning=beginning)))

    def _open(self, files: _Files) -> None:
        files.hold()
        self._files = files
        self._layers = files.layers
        self._closed = False
        self.size = files.layers[0].size

    @property
    def sizes(self) -> tuple[int, ...]:
        """Virtual sizes of the images of the chain, as `names`."""
        return tuple(layer.size for layer in self._layers)

    @property
    def names(self) -> tuple[str, ...]:
        """File names of the chain, the image itself first."""
        return tuple(layer.name for layer in self._layers)

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield all extents of the disk, in order, in whole clusters of 64 KiB."""
        if dirty:
            raise BadRange(offset=0, length=self.size, what="the changed blocks of an image", size=self.size)
        return _extents(_data(self._spans(0, 0, self.size), self.size), self.size)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` of the disk."""
        end = offset + len(buffer)
        if offset < 0 or end > self.size:
            raise BadRange(offset=offset, length=len(buffer), what="the disk", size=self.size)
        for window in range(offset // _WINDOW, -(-end // _WINDOW)):
            start, stop = max(offset, window * _WINDOW), min(end, (window + 1) * _WINDOW)
            self._read_span(Span(start, stop, self._runs(start, stop)), buffer[start - offset : stop - offset])

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

    def _runs(self, start: int, stop: int) -> Runs:
        """What makes up `start` to `stop`, which lie in one window."""
        if start == stop:
            return NOTHING
        try:
            return self._window(start // _WINDOW).clipped(start, stop)
        except ImageDamaged:  # perhaps only elsewhere in the window
            return concatenated([span.runs for span in self._spans(0, start, stop)])

    def _window(self, number: int) -> Runs:
        """What makes up a piece of the disk; kept, since the next read is likely to want it too."""
        start, stop = number * _WINDOW, min(self.size, (number + 1) * _WINDOW)
        spans = self._spans(0, start, stop)
        return self._files.windows.get(number, lambda: concatenated([span.runs for span in spans]))

    def _spans(self, depth: int, start: int, stop: int) -> Iterator[Span]:
        """Yield what makes up `start` to `stop`, looking from layer `depth` downwards."""
        if depth == len(self._layers):
            yield Span(start, stop, NOTHING)
            return
        layer = self._layers[depth]
        within = min(stop, layer.size)
        for span in layer.spans(start, within) if start < within else ():
            if not len(span.runs):
                yield from self._spans(depth + 1, span.start, span.stop)
                continue
            runs = span.runs.at_layer(depth)
            if runs.fills(span.start, span.stop):
                yield Span(span.start, span.stop, runs)
                continue
            for below in self._spans(depth + 1, span.start, span.stop):
                yield Span(below.start, below.stop, overlaid(runs.clipped(below.start, below.stop), below.runs))
        if max(start, within) < stop:  # a layer ends before the one above it: zeroes, whatever lies below
            yield Span(max(start, within), stop, NOTHING)

    def _read_span(self, span: Span, buffer: memoryview) -> None:
        """Fill `buffer`, which is as long as `span`."""
        position = span.start
        packed: dict[int, tuple[list[Run], list[memoryview]]] = {}
        for run, number in zip(span.runs, span.runs.layers.tolist(), strict=True):
            clear(buffer[position - span.start : run.start - span.start])
            piece = buffer[run.start - span.start : run.stop - span.start]
            position = run.stop
            if run.kind is Kind.ZERO:
                clear(piece)
            elif run.kind is Kind.DATA:
                self._layers[number].read_run(run, piece)
            else:
                runs, pieces = packed.setdefault(number, ([], []))
                runs.append(run)
                pieces.append(piece)
        clear(buffer[position - span.start :])
        for number, (runs, pieces) in packed.items():
            layer = self._layers[number]
            assert isinstance(layer, ImageFile)  # a raw file has no compressed clusters
            layer.read_packed(runs, pieces)


class _Files:
    """The open files of a chain, closed when nobody holds them any more, and what is known of the disk they make."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self.layers = layers
        self.windows: Cache[Runs] = Cache(8 * MIB, lambda runs: runs.nbytes + KIB)
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
        for layer in self.layers:
            layer.close()


def _data(spans: Iterator[Span], size: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of data, rounded out to clusters of 64 KiB; neighbours may still touch or overlap."""
    for span in spans:
        data = span.runs.take(span.runs.kinds != Kind.ZERO)
        if not len(data):
            continue
        starts = data.starts - data.starts % CLUSTER
        stops = np.minimum(data.stops + -data.stops % CLUSTER, size)
        breaks = np.flatnonzero(starts[1:] > stops[:-1])
        starts = starts[np.concatenate(([0], breaks + 1))]
        stops = stops[np.append(breaks, len(stops) - 1)]
        yield from zip(starts.tolist(), stops.tolist(), strict=True)


def _extents(data: Iterator[tuple[int, int]], size: int) -> Iterator[Extent]:
    """Turn runs of data, in order, into extents of the whole disk."""
    begin = end = 0  # the run of data that has been seen and not been given yet
    for start, stop in data:
        if start > end:
            if begin < end:
                yield Extent(begin, end - begin, False)
            yield Extent(end, start - end, True)
            begin = start
        end = stop
    if begin < end:
        yield Extent(begin, end - begin, False)
    if end < size:
        yield Extent(end, size - end, True)
