# SPDX-License-Identifier: GPL-3.0-or-later
"""Making the digests of an image, or of any disk, by reading what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import WORKERS, CopyStats, Progress, copy
from overkeep.blocks.digests import DigestWriter, sums_name
from overkeep.blocks.ends import UNLIMITED, Source
from overkeep.blocks.errors import ImageDamaged, ImageUnsupported, TargetMissing, UnsafeImage, on_target
from overkeep.blocks.expected import hashing_of
from overkeep.blocks.extents import PackedExtents, Status, dirty_clusters
from overkeep.blocks.hashing import Hashing, fresh
from overkeep.blocks.image import ChainReader
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.runs import Kind
from overkeep.blocks.stages import Stages


class DigestSink:
    """A sink that gives the digests of what is written to it to `writer`, which its maker finishes."""

    parallel = UNLIMITED

    def __init__(self, writer: DigestWriter, size: int, *, stages: Stages | None = None) -> None:
        self.size = size
        self._writer = writer
        self._stages = stages or Stages()

    def write(self, offset: int, data: memoryview) -> None:
        """Keep the digests of `data`."""
        with self._stages.spent("digest"):
            self._writer.put(offset // CLUSTER, self._writer.hashing.of(data))

    def zero(self, offset: int, length: int) -> None:
        """Keep that a run reads as zeroes."""
        self._writer.put_zeroes(offset // CLUSTER, -(-length // CLUSTER))

    def clone(self) -> DigestSink:
        """Return this sink: it is safe for several threads."""
        return self

    def finish(self) -> None:
        """The writer is finished by whoever made it."""

    def close(self) -> None:
        """Nothing is held here."""


def make_digests(
    folder: Path,
    name: str,
    *,
    workers: int = WORKERS,
    progress: Callable[[int], Progress] = lambda total: lambda covered, moved: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> CopyStats:
    """Make the digests of image `name` anew, whatever the present ones say; they replace those at the end.

    `progress` is given the bytes to be read and returns what is then told. What the image leaves to its backing image
    has no digest. Whoever calls this trusts the image: damage that it has becomes what is expected of it.

    Raises what `ChainReader` raises, `Cancelled`, and the typed errors of the target.
    """
    with closing(ChainReader(folder, name, cached=False)) as chain:
        with closing(ImageFile(folder, name)) as image:
            extents = PackedExtents(dirty_clusters(_held(image)))
        hashing = _hashing(folder, chain.names)
        with closing(DigestWriter(folder / sums_name(name), size=chain.size, hashing=hashing)) as writer:
            stats = copy(
                chain,
                DigestSink(writer, chain.size),
                extents,
                workers=workers,
                progress=progress(extents.total),
                cancelled=cancelled,
            )
            writer.finish()
    return stats


def digest_disk(
    source: Source,
    path: Path,
    *,
    workers: int = WORKERS,
    progress: Progress = lambda covered, moved: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> CopyStats:
    """Make the digests of all of a disk and write them to `path`, which is replaced at the end.

    The caller closes `source`. Raises `Cancelled`, and the errors of both.
    """
    with closing(DigestWriter(path, size=source.size, hashing=fresh())) as writer:
        stats = copy(
            source,
            DigestSink(writer, source.size),
            source.extents(dirty=False),
            workers=workers,
            progress=progress,
            cancelled=cancelled,
        )
        writer.finish()
    return stats


def _hashing(folder: Path, chain: Sequence[str]) -> Hashing:
    """What made the digests that the newest image of a `chain` has, or those below or above it: else none compose."""
    for image in (*chain, *_above(folder, chain[0])):
        found = hashing_of(folder, image)
        if found is not None:
            return found
    return fresh()


def _above(folder: Path, name: str) -> Iterator[str]:
    """Yield the images that stand upon `name`, nearest first, as far as they can be read."""
    with on_target(folder):
        others = sorted(path.name for path in folder.glob("*.qcow2"))
    backings = {other: _backing(folder, other) for other in others}
    level = [name]
    while level:
        level = [other for other in others if backings[other] in level]
        yield from level


def _backing(folder: Path, name: str) -> str | None:
    try:
        with closing(ImageFile(folder, name)) as image:
            return image.header.backing
    except (ImageDamaged, ImageUnsupported, TargetMissing, UnsafeImage):
        return None


def _held(image: ImageFile) -> Iterator[Status]:
    """What of its disk an image holds; zeroes of a full image count as not held."""
    overlay = image.header.backing is not None
    position = 0
    for runs in image.held():
        for run in runs:
            zero = run.kind is Kind.ZERO
            if run.start > position:
                yield Status(run.start - position, False, False)
            yield Status(run.stop - run.start, overlay or not zero, zero)
            position = run.stop
    if position < image.size:
        yield Status(image.size - position, False, False)
