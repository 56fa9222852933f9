# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw files and block devices as source and sink."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from overkeep.blocks.buffers import ZEROES
from overkeep.blocks.ends import UNLIMITED, Extent
from overkeep.blocks.errors import BadRange, FileFailed, NoChangedBlocks, on_file
from overkeep.blocks.extents import Status, dirty_clusters
from overkeep.blocks.holes import punch


class _RawFile:
    parallel = UNLIMITED

    def __init__(self, path: Path, flags: int) -> None:
        self.path = path
        with on_file(path):
            self._handle = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer would wait
            try:
                self._require_disk()
                self.size = os.lseek(self._handle, 0, os.SEEK_END)
            except BaseException:
                self.close()
                raise

    def _require_disk(self) -> None:
        mode = os.fstat(self._handle).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            what = "a folder" if stat.S_ISDIR(mode) else "neither a regular file nor a block device"
            raise FileFailed(path=self.path, reason=f"it is {what}")

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self.size:
            raise BadRange(offset=offset, length=length, what="the disk", size=self.size)

    def close(self) -> None:
        """Close the file; may be called twice."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            with on_file(self.path):  # NFS may tell of a lost write only here
                os.close(handle)


class RawSource(_RawFile):
    """A raw file or device that is read; holes are zeroes. Safe for several threads; `clone` opens it again."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDONLY)

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield all extents, in whole clusters."""
        if dirty:
            raise NoChangedBlocks(url=str(self.path), reason="a raw file does not know what changed")
        return dirty_clusters(self._statuses())

    def _statuses(self) -> Iterator[Status]:
        position = 0
        while position < self.size:
            data = self._seek(position, os.SEEK_DATA)
            if data > position:
                yield Status(data - position, True, True)
            position = self._seek(data, os.SEEK_HOLE)
            if position > data:
                yield Status(position - data, True, False)

    def _seek(self, position: int, what: int) -> int:
        if position >= self.size:
            return self.size
        try:
            return os.lseek(self._handle, position, what)
        except OSError as error:
            if error.errno == errno.EINVAL:  # a block device knows no holes
                return position if what == os.SEEK_DATA else self.size
            if error.errno != errno.ENXIO:
                with on_file(self.path):
                    raise
            return self.size  # no data behind it

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`."""
        self._check(offset, len(buffer))
        with on_file(self.path):
            while buffer:
                done = os.preadv(self._handle, [buffer], offset)
                if not done:
                    raise FileFailed(path=self.path, reason=f"it ends at {offset}, before its {self.size} bytes")
                offset, buffer = offset + done, buffer[done:]

    def clone(self) -> RawSource:
        """Open the file once more."""
        return RawSource(self.path)


class RawSink(_RawFile):
    """A raw file or device that is written, as large as it is. Safe for several threads."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDWR)

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`."""
        self._check(offset, len(data))
        with on_file(self.path):
            while data:
                done = os.pwrite(self._handle, data, offset)
                offset, data = offset + done, data[done:]

    def zero(self, offset: int, length: int) -> None:
        """Punch a hole, or write zeroes where that cannot be."""
        self._check(offset, length)
        with on_file(self.path):
            if length and punch(self._handle, offset, length):
                return
        for at in range(offset, offset + length, len(ZEROES)):
            self.write(at, ZEROES[: min(len(ZEROES), offset + length - at)])

    def clone(self) -> RawSink:
        """Open the file once more."""
        return RawSink(self.path)

    def finish(self) -> None:
        """Make everything durable."""
        with on_file(self.path):
            os.fsync(self._handle)
