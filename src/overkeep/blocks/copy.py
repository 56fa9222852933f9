# SPDX-License-Identifier: GPL-3.0-or-later
"""The one copy loop: any source to any sink, with several workers that share one list of batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from overkeep.blocks.buffers import CLUSTER, aligned_buffer
from overkeep.blocks.ends import Extent, Piece, Sink, Source, read_each, write_each
from overkeep.blocks.errors import SizesDiffer
from overkeep.blocks.extents import PackedExtents, batches, chunks
from overkeep.blocks.lending import Lending
from overkeep.errors import Cancelled
from overkeep.units import MIB

WORKERS = 8
"""Threads of one copy. There are more than a disk has connections: while some read, the others write."""

CHUNK = 4 * MIB
"""Bytes read and written at once: one long piece, or several short ones."""


@dataclass(frozen=True, kw_only=True)
class CopyStats:
    """What a copy did, in bytes: `covered` by its extents, `moved` from source to sink, `zeroed` without reading."""

    covered: int
    moved: int
    zeroed: int
    seconds: float


Progress = Callable[[int, int], None]
"""Called with the bytes covered and moved so far, one call at a time, after each batch."""


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
    an end's `parallel`, and fewer where a server takes no more connections. The caller closes both ends, after success
    and after failure. `cancelled` is asked before each batch.

    Raises `SizesDiffer`, `Cancelled`, or the first error of an end; an error of the sink wins over one of the source,
    which often only follows from it.
    """
    if source.size > sink.size:
        raise SizesDiffer(source=source.size, sink=sink.size)
    if chunk % CLUSTER:
        raise ValueError(f"a chunk is a multiple of {CLUSTER} bytes, not {chunk}")
    started = time.monotonic()
    with closing(Lending(source, source.clone)) as sources, closing(Lending(sink, sink.clone)) as sinks:
        if not sources.begin():
            extents = PackedExtents(extents)  # the only connection tells them before it is read from
        sinks.begin()
        work = _Work(batches=batches(chunks(extents, chunk), chunk), progress=progress, cancelled=cancelled)
        _carry_out(work, sources, sinks, workers=workers, chunk=chunk)
        sink.finish()
    seconds = time.monotonic() - started
    return CopyStats(covered=work.covered, moved=work.moved, zeroed=work.covered - work.moved, seconds=seconds)


def _carry_out(work: _Work, sources: Lending[Source], sinks: Lending[Sink], *, workers: int, chunk: int) -> None:
    threads = [
        threading.Thread(target=_run, args=(work, sources, sinks, chunk), name=f"copy-{number}", daemon=True)
        for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    _join(threads, work)
    work.raise_failure()


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

    batches: Iterator[Sequence[Extent]]
    progress: Progress
    cancelled: Callable[[], bool]
    covered: int = 0
    moved: int = 0
    _taking: threading.Lock = field(default_factory=threading.Lock)
    _telling: threading.Lock = field(default_factory=threading.Lock)
    _failures: dict[str, BaseException] = field(default_factory=dict)

    def mine(self) -> Iterator[Sequence[Extent]]:
        """Yield batches until there are no more."""
        while True:
            self.check()
            if self.cancelled():
                raise Cancelled(what="The copy")
            with self._taking, self.blame("source"):
                batch = next(self.batches, None)
            if batch is None:
                return
            yield batch

    def check(self) -> None:
        """End this worker when another has failed."""
        if self._failures:
            raise _Stopped

    def tell(self, batch: Sequence[Extent]) -> None:
        """Count a batch that is done."""
        with self._telling:
            self.covered += sum(piece.length for piece in batch)
            self.moved += sum(piece.length for piece in batch if not piece.zero)
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
        """Let all workers end before their next batch."""
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
            for batch in work.mine():
                _move(work, sources, sinks, batch, buffer)
                work.tell(batch)
    except _Stopped:
        return


def _move(
    work: _Work, sources: Lending[Source], sinks: Lending[Sink], batch: Sequence[Extent], buffer: memoryview
) -> None:
    data = list(_within(buffer, batch))
    if data:
        with work.blame("source"), sources.lent() as source:
            work.check()  # what another could not read with this clone is not tried once more
            read_each(source, data)
    with work.blame("sink"), sinks.lent() as sink:
        if data:
            write_each(sink, data)
        for piece in batch:
            if piece.zero:
                sink.zero(piece.start, piece.length)


def _within(buffer: memoryview, batch: Sequence[Extent]) -> Iterator[Piece]:
    """Give each piece of data its part of `buffer`, aligned: all but the end of a disk are whole clusters."""
    position = 0
    for piece in batch:
        if not piece.zero:
            yield piece.start, buffer[position : position + piece.length]
            position += piece.length
