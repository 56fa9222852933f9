# SPDX-License-Identifier: GPL-3.0-or-later
"""The one copy loop: any source to any sink, with several workers that share one list of chunks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from overkeep.blocks.buffers import CLUSTER, aligned_buffer
from overkeep.blocks.ends import Extent, Sink, Source
from overkeep.blocks.errors import SizesDiffer
from overkeep.blocks.extents import chunks
from overkeep.blocks.lending import Lending
from overkeep.errors import Cancelled
from overkeep.units import MIB

WORKERS = 8
"""Threads of one copy. There are more than a disk has connections: while some read, the others write."""

CHUNK = 2 * MIB
"""Bytes read and written at once."""


@dataclass(frozen=True, kw_only=True)
class CopyStats:
    """What a copy did, in bytes: `covered` by its extents, `moved` from source to sink, `zeroed` without reading."""

    covered: int
    moved: int
    zeroed: int
    seconds: float


Progress = Callable[[int, int], None]
"""Called with the bytes covered and moved so far, one call at a time, after each chunk."""


def copy(
    source: Source,
    sink: Sink,
    extents: Iterable[Extent],
    *,
    workers: int = WORKERS,
    chunk: int = CHUNK,
    progress: Progress = lambda covered, moved: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> CopyStats:
    """Copy `extents` of `source` to `sink`, and make them durable with `sink.finish()`.

    `extents` may be read while the copy runs (`source.extents(...)`); workers use clones of both ends, never more than
    an end's `parallel`. The caller closes both ends, after success and after failure. `cancelled` is asked before each
    chunk.

    Raises `SizesDiffer`, `Cancelled`, or the first error of an end; an error of the sink wins over one of the source,
    which often only follows from it.
    """
    if source.size > sink.size:
        raise SizesDiffer(source=source.size, sink=sink.size)
    if chunk % CLUSTER:
        raise ValueError(f"a chunk is a multiple of {CLUSTER} bytes, not {chunk}")
    started = time.monotonic()
    work = _Work(extents=chunks(extents, chunk), progress=progress, cancelled=cancelled)
    sources, sinks = Lending(source, source.clone), Lending(sink, sink.clone)
    threads = [
        threading.Thread(target=_run, args=(work, sources, sinks, chunk), name=f"copy-{number}", daemon=True)
        for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        _join(threads, work)
    finally:
        sources.close()
        sinks.close()
    work.raise_failure()
    sink.finish()
    seconds = time.monotonic() - started
    return CopyStats(covered=work.covered, moved=work.moved, zeroed=work.covered - work.moved, seconds=seconds)


def _join(threads: list[threading.Thread], work: _Work) -> None:
    try:
        for thread in threads:
            thread.join()
    except BaseException as error:  # the caller was interrupted and is about to close the ends
        work.stop("copy", error)
        for thread in threads:
            thread.join()
        raise


@dataclass(kw_only=True)
class _Work:
    """What the workers of one copy share."""

    extents: Iterator[Extent]
    progress: Progress
    cancelled: Callable[[], bool]
    covered: int = 0
    moved: int = 0
    _taking: threading.Lock = field(default_factory=threading.Lock)
    _telling: threading.Lock = field(default_factory=threading.Lock)
    _failures: dict[str, BaseException] = field(default_factory=dict)

    def pieces(self) -> Iterator[Extent]:
        """Yield pieces until there are no more, or any worker failed."""
        while not self._failures:
            if self.cancelled():
                raise Cancelled(what="The copy")
            with self._taking, self.blame("source"):
                piece = next(self.extents, None)
            if piece is None:
                return
            yield piece

    def tell(self, piece: Extent) -> None:
        """Count a piece that is done."""
        with self._telling:
            self.covered += piece.length
            self.moved += 0 if piece.zero else piece.length
            self.progress(self.covered, self.moved)

    @contextmanager
    def blame(self, end: str) -> Iterator[None]:
        """Record the first failure of an end; it ends this worker and stops the others."""
        try:
            yield
        except _Stopped:
            raise
        except BaseException as error:
            self.stop(end, error)
            raise _Stopped from error

    def stop(self, end: str, error: BaseException) -> None:
        """Let all workers end before their next piece."""
        self._failures.setdefault(end, error)

    def raise_failure(self) -> None:
        """Raise the failure that counts, when there is one."""
        for end in ("sink", "source", "copy"):
            if end in self._failures:
                raise self._failures[end]


class _Stopped(Exception):
    """The worker ends; the reason is recorded."""


def _run(work: _Work, sources: Lending[Source], sinks: Lending[Sink], chunk: int) -> None:
    """Body of a worker's thread: nothing escapes it, everything is recorded."""
    try:
        with work.blame("copy"):
            buffer = aligned_buffer(chunk)
            for piece in work.pieces():
                _move(work, sources, sinks, piece, buffer)
                work.tell(piece)
    except _Stopped:
        return


def _move(work: _Work, sources: Lending[Source], sinks: Lending[Sink], piece: Extent, buffer: memoryview) -> None:
    if piece.zero:
        with work.blame("sink"), sinks.lent() as sink:
            sink.zero(piece.start, piece.length)
        return
    data = buffer[: piece.length]
    with work.blame("source"), sources.lent() as source:
        source.read_into(piece.start, data)
    with work.blame("sink"), sinks.lent() as sink:
        sink.write(piece.start, data)
