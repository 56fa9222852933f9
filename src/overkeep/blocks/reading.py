# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of the target that is read: through the page cache, or past it to see what the target really holds."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from overkeep.blocks.buffers import aligned_buffer
from overkeep.blocks.direct import set_direct
from overkeep.blocks.errors import on_target
from overkeep.blocks.files import open_regular
from overkeep.units import KIB, MIB, align_down, align_up

_ALIGNED = 4 * KIB  # no disk wants more for O_DIRECT
_STAGING = MIB


class TargetFile:
    """A regular file, open for reading; safe for several threads.

    With `cached=False` nothing is taken from the page cache: data come with O_DIRECT, and where the file system does
    not have that, what the cache holds of them is dropped first. `size` is that of the moment of opening.

    Raises `UnsafeImage` for a link, pipe or device, and the typed errors of the target.
    """

    def __init__(self, path: Path, *, cached: bool = True) -> None:
        self.path = path
        self._cached = cached
        self._direct = not cached
        self._handle = self._open()
        try:
            with on_target(path):
                self.size = os.fstat(self._handle).st_size
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        handle = open_regular(self.path)
        if self._direct:
            self._direct = set_direct(handle, wanted=True)
        return handle

    def close(self) -> None:
        """Close the file; may be called twice."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def fill(self, offset: int, buffer: memoryview) -> int:
        """Read into `buffer` from `offset` on; return how many bytes there were before the file's end."""
        done = 0
        with on_target(self.path):
            while done < len(buffer):
                count = self._read_some(offset + done, buffer[done:])
                if not count:
                    break
                done += count
        return done

    def data_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        """The next few runs of data between `start` and `end`: what lies between them and before the last is a hole.

        An empty list says that no data follow.
        """
        runs: list[tuple[int, int]] = []
        with on_target(self.path):
            while start < end and len(runs) < _STAGING // KIB:
                begin = self._seek(start, os.SEEK_DATA, otherwise=end)
                if begin >= end:
                    break
                start = min(end, self._seek(begin, os.SEEK_HOLE, otherwise=end))
                runs.append((begin, start))
        return runs

    def _seek(self, offset: int, whence: int, *, otherwise: int) -> int:
        try:
            return os.lseek(self._handle, offset, whence)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return otherwise

    def _read_some(self, offset: int, buffer: memoryview) -> int:
        if self._direct:
            return self._read_direct(offset, buffer)
        if not self._cached:
            os.posix_fadvise(self._handle, offset, len(buffer), os.POSIX_FADV_DONTNEED)
        return os.preadv(self._handle, [buffer], offset)

    def _read_direct(self, offset: int, buffer: memoryview) -> int:
        """Read past the page cache, by way of an aligned buffer unless `buffer` itself is one."""
        if offset % _ALIGNED == 0 and len(buffer) % _ALIGNED == 0:
            try:
                return os.preadv(self._handle, [buffer], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        begin = align_down(offset, _ALIGNED)
        length = min(_STAGING, align_up(offset + len(buffer), _ALIGNED) - begin)
        staging, before = aligned_buffer(length), offset - begin
        try:
            done = self._read_beyond(begin, staging, before) - before
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._direct = set_direct(self._handle, wanted=False)
            return self._read_some(offset, buffer)
        done = max(0, min(done, len(buffer)))
        buffer[:done] = staging[before : before + done]
        return done

    def _read_beyond(self, offset: int, buffer: memoryview, wanted: int) -> int:
        """Read until there are more than `wanted` bytes, or the file ends: a file system may read less than asked."""
        done = 0
        while done <= wanted:
            count = os.preadv(self._handle, [buffer[done:]], offset + done)
            if not count:
                break
            done += count
        return done
