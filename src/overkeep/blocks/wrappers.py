# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be put round an end of a copy: reading again after a lost connection, a bandwidth limit, a stop-watch."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from overkeep.blocks.ends import Extent, Piece, Sink, Source, read_each, write_each
from overkeep.blocks.errors import DiskFailed, DiskLost, DiskUnreachable, TargetFailed
from overkeep.blocks.stages import Stages
from overkeep.errors import Cancelled, OverkeepError
from overkeep.logs import fields

PAUSES = (0.5, 2.0, 5.0)
"""Seconds to wait before each attempt after the first: a service that is started anew is there again by then."""

_STEP = 0.25  # longest wait, in seconds, after which somebody who waits looks whether he should stop

_PASSING = (DiskFailed, DiskLost, DiskUnreachable, TargetFailed)
"""Errors after which the same read may succeed by itself."""

log = logging.getLogger(__name__)

Stopped = Callable[[], bool]


class Wrapped:
    """A source as it is; what it is wrapped for overrides a method: of those that read, `read_each`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._source.size

    @property
    def parallel(self) -> int:
        """How many clones may work at the same time."""
        return self._source.parallel

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield the extents of the source."""
        return self._source.extents(dirty=dirty)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`."""
        self.read_each([(offset, buffer)])

    def read_each(self, pieces: Sequence[Piece]) -> None:
        """Fill all `pieces`."""
        read_each(self._source, pieces)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class Beginning(Wrapped):
    """The first `size` bytes of a source, in whole clusters but for the last."""

    def __init__(self, source: Source, size: int) -> None:
        super().__init__(source)
        self._size = size

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._size

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield extents up to where the beginning ends."""
        for extent in self._source.extents(dirty=dirty):
            if extent.start < self._size:
                yield Extent(extent.start, min(extent.end, self._size) - extent.start, extent.zero)

    def clone(self) -> Beginning:
        """Clone the source."""
        return Beginning(self._source.clone(), self._size)


class Retrying(Wrapped):
    """Reads again what failed, on a new connection when the old one is lost; its clones do the same.

    It waits before each attempt, for as many seconds as `pauses` says. `stopped` tells that nothing is to be tried any
    more. The first error counts when the last attempt fails too.
    """

    def __init__(self, source: Source, *, pauses: Sequence[float] = PAUSES, stopped: Stopped = lambda: False) -> None:
        super().__init__(source)
        self._pauses = pauses
        self._stopped = stopped
        self._spare: Source | None = None  # the connection that took the place of a lost one
        self._lost = False

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield the extents of the source; all of them may be asked for again, changed ones only once."""
        position, failures = 0, list[OverkeepError]()
        while True:
            try:
                for extent in _from(position, self._connected().extents(dirty=dirty)):
                    yield extent
                    position = extent.end
            except OverkeepError as error:
                failures.append(error)
                if dirty or not self._may_go_on(failures):
                    break
            else:
                return
        raise failures[0]

    def read_each(self, pieces: Sequence[Piece]) -> None:
        """Fill all `pieces`."""
        failures: list[OverkeepError] = []
        while True:
            try:
                read_each(self._connected(), pieces)
            except OverkeepError as error:
                failures.append(error)
                if not self._may_go_on(failures):
                    break
            else:
                return
        raise failures[0]

    def _may_go_on(self, failures: list[OverkeepError]) -> bool:
        """Whether to try once more after the last of `failures`."""
        error = failures[-1]
        if not isinstance(error, _PASSING) or self._stopped() or len(failures) > len(self._pauses):
            return False
        if isinstance(error, DiskLost):
            self._drop()
        if not _wait(time.monotonic() + self._pauses[len(failures) - 1], self._stopped):
            return False
        log.info("reading again %s", fields(attempt=len(failures) + 1, error=repr(str(error))))
        return True

    def _connected(self) -> Source:
        if self._lost and self._spare is None:
            self._spare = self._source.clone()
        return self._spare or self._source

    def _drop(self) -> None:
        """Give the lost connection up before another is made, so that there are never more than are allowed."""
        self._lost = True
        spare, self._spare = self._spare, None
        (spare or self._source).close()

    def clone(self) -> Retrying:
        """Clone the source and what is put round it."""
        return Retrying(self._source.clone(), pauses=self._pauses, stopped=self._stopped)

    def close(self) -> None:
        """Close all connections."""
        if self._spare is not None:
            self._spare.close()
        super().close()


def _from(position: int, extents: Iterator[Extent]) -> Iterator[Extent]:
    """Leave out what lies before `position`."""
    for extent in extents:
        if extent.end > position:
            start = max(extent.start, position)
            yield Extent(start, extent.end - start, extent.zero)


class Bandwidth:
    """A limit in bytes a second for all who share it. Safe for several threads.

    Nobody saves up for later: what was not used in a second is gone.
    """

    def __init__(self, rate: int, *, stopped: Stopped = lambda: False) -> None:
        if rate <= 0:
            raise ValueError(f"a limit is above 0 bytes a second, not {rate}")
        self._rate = rate
        self._stopped = stopped
        self._free_at = 0.0  # when what has been taken so far will have been used up
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Wait for the turn of `count` bytes; raises `Cancelled` when told to stop meanwhile."""
        with self._lock:
            begin = max(self._free_at, time.monotonic())
            self._free_at = begin + count / self._rate
        if not _wait(begin, self._stopped):
            raise Cancelled(what="The copy")


def _wait(until: float, stopped: Stopped) -> bool:
    """Wait until a time of the monotonic clock; return False when told to stop before it."""
    while (left := until - time.monotonic()) > 0:
        if stopped():
            return False
        time.sleep(min(left, _STEP))
    return True


class Throttled(Wrapped):
    """Reads no faster than a bandwidth allows."""

    def __init__(self, source: Source, bandwidth: Bandwidth) -> None:
        super().__init__(source)
        self._bandwidth = bandwidth

    def read_each(self, pieces: Sequence[Piece]) -> None:
        """Fill all `pieces`, when it is their turn."""
        self._bandwidth.take(sum(len(buffer) for _, buffer in pieces))
        super().read_each(pieces)

    def clone(self) -> Throttled:
        """Clone the source; the bandwidth is shared."""
        return Throttled(self._source.clone(), self._bandwidth)


class Timed(Wrapped):
    """Counts the time for which the source is waited for."""

    def __init__(self, source: Source, stages: Stages) -> None:
        super().__init__(source)
        self._stages = stages

    def read_each(self, pieces: Sequence[Piece]) -> None:
        """Fill all `pieces`."""
        with self._stages.spent("source"):
            super().read_each(pieces)

    def clone(self) -> Timed:
        """Clone the source; the times are added up."""
        return Timed(self._source.clone(), self._stages)


class TimedSink:
    """Counts the time for which the disk that is written is waited for."""

    def __init__(self, sink: Sink, stages: Stages) -> None:
        self._sink = sink
        self._stages = stages

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._sink.size

    @property
    def parallel(self) -> int:
        """How many clones may work at the same time."""
        return self._sink.parallel

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`."""
        self.write_each([(offset, data)])

    def write_each(self, pieces: Sequence[Piece]) -> None:
        """Write all `pieces`."""
        with self._stages.spent("target"):
            write_each(self._sink, pieces)

    def zero(self, offset: int, length: int) -> None:
        """Make a run read as zeroes."""
        with self._stages.spent("target"):
            self._sink.zero(offset, length)

    def clone(self) -> TimedSink:
        """Clone the sink; the times are added up."""
        return TimedSink(self._sink.clone(), self._stages)

    def finish(self) -> None:
        """Make everything durable."""
        with self._stages.spent("target"):
            self._sink.finish()

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()
