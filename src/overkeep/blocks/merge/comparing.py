# SPDX-License-Identifier: GPL-3.0-or-later
"""A merged image is read and compared with its digests while the images that it was made of are still there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from overkeep.blocks.buffers import CLUSTER, clear
from overkeep.blocks.copy import copy
from overkeep.blocks.digests import Digests, Row, row, sums_name
from overkeep.blocks.ends import UNLIMITED, Extent
from overkeep.blocks.errors import DigestsDamaged, ImageDamaged, MergeGarbled, UnsafeImage
from overkeep.blocks.expected import open_digests
from overkeep.blocks.files import forget_cached
from overkeep.blocks.hashing import Hashing
from overkeep.blocks.qcow2.held import MIXED, PLACE, STRETCH, ZEROES
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.qcow2.runs import Bools, Signed
from overkeep.blocks.qcow2.view import Shown, View
from overkeep.logs import fields
from overkeep.units import MIB

_BATCH = 512 * MIB  # of data that are compared in one go: what is known of them takes some hundred KiB
_CHAIN = -1  # in place of a place in the file: what lies there is not as the disk shows it

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What should show all that a run does, and has not its place yet.

    `name` is the file's, `beginning` its first bytes as they will be, where that is not written yet. `stays` is the
    number of the image in the run (newest first) whose clusters were not moved, None when all were.
    """

    name: str
    beginning: bytes = b""
    stays: int | None = None


def require_as_digested(folder: Path, view: View, merged: Merged, *, cancelled: Callable[[], bool]) -> None:
    """Raise `MergeGarbled` unless everything that was moved reads as the digests of the newest image of `view` say.

    `view` is looked at in the clusters of the merged image, which is read past the page cache, by the tables that it
    will have. What was not moved is not read: the tables must name it where it was. Raises `Cancelled` and the errors
    of the target.
    """
    newest = view.images[0].name
    with ExitStack() as stack:
        try:
            comparison = _Comparison(folder, view, merged, stack)
            comparison.run(cancelled)
        except (ImageDamaged, UnsafeImage, DigestsDamaged) as error:
            reason = f"{error.fields['file']} cannot be used, {error.fields['reason']}"
            raise MergeGarbled(file=newest, reason=reason) from error
        if comparison.undigested:
            log.warning("not compared %s", fields(image=newest, clusters=comparison.undigested))
        if comparison.differing:
            raise MergeGarbled(file=newest, reason=_told(view, comparison.differing, comparison.first))


def _told(view: View, differing: int, first: int) -> str:
    stretch, place = divmod(first * CLUSTER, STRETCH)
    provider = view.images[int(view.seen(CLUSTER).shown(stretch).providers[place // CLUSTER])]
    many = "1 cluster does" if differing == 1 else f"{differing} clusters do"
    return f"{many} not read as the digests say, the first is number {first} and comes from {provider.name}"


class _Batch:
    """Clusters of `grain` bytes that are read together: each lies at one of `places` of the file, or, where that is
    `CHAIN`, is read from the disk at one of `on_disk`. The digests `expected` are of clusters of 64 KiB.
    """

    def __init__(self, grain: int) -> None:
        self.grain = grain
        self.size = 0
        self._parts: list[tuple[Signed, Signed, Row]] = []

    def add(self, places: Signed, on_disk: Signed, expected: Row) -> None:
        """Add clusters."""
        self._parts.append((places, on_disk, expected))
        self.size += len(places) * self.grain

    def seal(self) -> None:
        """Nothing is added after this."""
        places, on_disk, expected = zip(*self._parts, strict=True)
        self.places: Signed = np.concatenate(places)
        self.on_disk: Signed = np.concatenate(on_disk)
        self.expected: Row = np.concatenate(expected)

    def number(self, index: int) -> int:
        """Number on the disk of the cluster of 64 KiB of that index."""
        cluster, part = divmod(index * CLUSTER, self.grain)
        return (int(self.on_disk[cluster]) + part) // CLUSTER


class _Comparison:
    """Goes through the disk once. `first` is the least number of the clusters of 64 KiB that are `differing`."""

    def __init__(self, folder: Path, view: View, merged: Merged, stack: ExitStack) -> None:
        name, beginning = merged.name, merged.beginning
        self._chain = stack.enter_context(closing(ChainReader(folder, name, cached=False, beginning=beginning)))
        self._image = stack.enter_context(closing(ImageFile(folder, name, cached=False, beginning=beginning)))
        if self._image.size != view.size:
            raise self._garbled(f"its disk has {self._image.size} bytes instead of {view.size}")
        self._view = view
        self._now = View([self._image], view.base_size, grain=view.grain)
        self._stays = merged.stays
        self._digests = _opened(folder, view, stack)
        self._ratio = view.grain // CLUSTER
        self.differing = self.first = self.undigested = 0

    def run(self, cancelled: Callable[[], bool]) -> None:
        """Compare all."""
        for batch in self._batches():
            if self._digests is None or not batch.size:
                continue
            batch.seal()
            sink = _Sink(self._digests.hashing, batch)
            with closing(_Source(batch, self._image, self._chain.clone())) as source:
                copy(source, sink, source.extents(dirty=False), cancelled=cancelled)
            if sink.differing and not self.differing:
                self.first = batch.number(sink.first)
            self.differing += sink.differing

    def _batches(self) -> Iterator[_Batch]:
        """Yield what was moved, in the order of the disk; raise for anything else that is not as it was."""
        batch = _Batch(self._view.grain)
        for stretch in range(self._view.stretches):
            before, now = self._view.shown(stretch), self._now.shown(stretch)
            moved = self._is_moved(before)
            same = (before.kinds == now.kinds) & (before.values == now.values)
            if not (same | moved).all():
                number = int(np.argmin(same | moved)) * self._ratio + stretch * (STRETCH // CLUSTER)
                raise self._garbled(f"its tables do not name what they should at cluster {number}")
            self._add(batch, stretch, now, moved)
            if batch.size >= _BATCH:
                yield batch
                batch = _Batch(self._view.grain)
        yield batch

    def _is_moved(self, shown: Shown) -> Bools:
        found: Bools = shown.kinds > ZEROES
        if self._stays is not None:
            found &= (shown.providers != self._stays) | (shown.kinds == MIXED)
        return found

    def _add(self, batch: _Batch, stretch: int, now: Shown, moved: Bools) -> None:
        """Add the moved clusters of a stretch: as they lie in the file, where they can be read so."""
        digests = self._known(stretch)
        there = digests.any(axis=1).reshape(-1, self._ratio)
        self.undigested += int(np.count_nonzero(moved & ~there.any(axis=1)))
        chosen = np.flatnonzero(moved & there.any(axis=1))
        on_disk = stretch * STRETCH + chosen * self._view.grain
        direct = (now.kinds[chosen] == PLACE) & (on_disk + self._view.grain <= self._view.size)
        places = np.where(direct, now.values[chosen].astype(np.int64), _CHAIN)
        parts = (chosen[:, np.newaxis] * self._ratio + np.arange(self._ratio)).reshape(-1)
        batch.add(places, on_disk, digests[parts])

    def _known(self, stretch: int) -> Row:
        count = STRETCH // CLUSTER
        return np.zeros((count, 2), np.uint64) if self._digests is None else self._digests.range(stretch * count, count)

    def _garbled(self, reason: str) -> ImageDamaged:
        return ImageDamaged(file="the merged image", reason=reason)


def _opened(folder: Path, view: View, stack: ExitStack) -> Digests | None:
    """The digests that were composed, read from the target itself."""
    newest = view.images[0].name
    digests = open_digests(folder, newest, view.size)
    if digests is not None:
        stack.callback(digests.close)
        forget_cached(folder / sums_name(newest))
    return digests


class _Source:
    """Reads a batch, one cluster behind the other. It has nothing of the code that moved them: that is in question."""

    parallel = UNLIMITED

    def __init__(self, batch: _Batch, image: ImageFile, chain: ChainReader) -> None:
        self.size = batch.size
        self._batch = batch
        self._image = image
        self._chain = chain

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield all of the batch, whatever changed."""
        yield Extent(0, self.size, False)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, which holds whole clusters: those that are neighbours in the file are read at once."""
        grain, begin = self._batch.grain, offset // self._batch.grain
        places = self._batch.places[begin : begin + len(buffer) // grain]
        apart = np.flatnonzero((places[1:] != places[:-1] + grain) | (places[1:] == _CHAIN)) + 1
        for first, last in pairwise([0, *apart.tolist(), len(places)]):
            part = buffer[first * grain : last * grain]
            if places[first] == _CHAIN:
                self._read_disk(int(self._batch.on_disk[begin + first]), part)
            else:
                self._image.read_into(int(places[first]), part)

    def _read_disk(self, at: int, buffer: memoryview) -> None:
        there = min(len(buffer), self._chain.size - at)
        self._chain.read_into(at, buffer[:there])
        clear(buffer[there:])

    def clone(self) -> _Source:
        """Return another source of the same batch."""
        return _Source(self._batch, self._image, self._chain.clone())

    def close(self) -> None:
        """Close the chain; may be called twice."""
        self._chain.close()


class _Sink:
    """Takes the data of a batch: how many of its clusters of 64 KiB are `differing`, and the index of the `first`."""

    parallel = UNLIMITED

    def __init__(self, hashing: Hashing, batch: _Batch) -> None:
        self.size = batch.size
        self.differing = self.first = 0
        self._hashing = hashing
        self._expected = batch.expected
        self._lock = threading.Lock()

    def write(self, offset: int, data: memoryview) -> None:
        """Compare; a cluster of which no digest is known is not."""
        first = offset // CLUSTER
        expected = self._expected[first : first + len(data) // CLUSTER]
        differ = (row(self._hashing.of(data)) != expected).any(axis=1) & expected.any(axis=1)
        if differ.any():
            self._note(first + np.flatnonzero(differ))

    def _note(self, found: Signed) -> None:
        with self._lock:
            self.first = min(int(found[0]), self.first) if self.differing else int(found[0])
            self.differing += len(found)

    def zero(self, offset: int, length: int) -> None:
        """Only data are compared."""
        raise NotImplementedError

    def clone(self) -> _Sink:
        """Return this sink: it is safe for several threads."""
        return self

    def finish(self) -> None:
        """Nothing is to be made durable."""

    def close(self) -> None:
        """Nothing is held."""
