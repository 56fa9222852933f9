# SPDX-License-Identifier: GPL-3.0-or-later
"""A file on the target that is written under a partial name, past the page cache where that works, and renamed once."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from overkeep.blocks.direct import set_direct
from overkeep.blocks.errors import TargetFailed, UnsafeImage, WriterReplaced, on_target, target_error
from overkeep.blocks.holes import punch
from overkeep.errors import OverkeepError
from overkeep.logs import fields

PARTIAL = ".partial"
"""What is appended to the name of a file that is not finished."""

_MOST_BUFFERS = 512  # pwritev takes at most 1024

log = logging.getLogger(__name__)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    with on_target(folder):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def open_regular(path: Path, mode: int = os.O_RDONLY) -> int:
    """Open a regular file of the target that is there; a link, device or pipe is refused with `UnsafeImage`."""
    flags = mode | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with on_target(path):
        try:
            handle = os.open(path, flags)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UnsafeImage(file=path.name, reason="it is a symbolic link") from error
            raise
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise UnsafeImage(file=path.name, reason="it is not a regular file")
    return handle


def forget_cached(path: Path) -> None:
    """Let this machine forget what it has of a file in memory, so that the next read asks the target."""
    handle = open_regular(path)
    try:
        with on_target(path):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def open_output(path: Path) -> OutputFile:
    """Open a regular file of the target that is there for writing, past the page cache; else as `open_regular`."""
    handle = open_regular(path, os.O_RDWR)
    try:
        with on_target(path):
            return OutputFile(path, handle, direct=set_direct(handle, wanted=True))
    except BaseException:
        os.close(handle)
        raise


class OutputFile:
    """An open file that is written, past the page cache as long as the file system and the buffers allow it.

    Writes may come from several threads. Raises the typed errors of the target for `path`.
    """

    def __init__(self, path: Path, handle: int, *, direct: bool) -> None:
        self.path = path
        self._handle = handle
        self._direct = direct

    def write(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """Write `pieces` one after the other from `offset` on."""
        for first in range(0, len(pieces), _MOST_BUFFERS):
            batch = list(pieces[first : first + _MOST_BUFFERS])
            while batch:
                done = self._moved(partial(os.pwritev, self._handle, batch, offset))
                offset += done
                batch = _rest(batch, done)

    def _moved(self, act: Callable[[], int]) -> int:
        """Read or write; return how much was moved. What does not fit the disk is tried through the page cache."""
        direct = self._direct  # as it is before: another thread may end it meanwhile
        try:
            return act()
        except OSError as error:
            if error.errno != errno.EINVAL or not direct:
                raise target_error(self.path, error) from error
        self._leave_direct()
        return self._moved(act)

    def _leave_direct(self) -> None:
        """Go through the page cache from now on: the file system or a buffer does not fit."""
        with on_target(self.path):
            self._direct = set_direct(self._handle, wanted=False)

    def read(self, offset: int, buffer: memoryview) -> None:
        """Read back what was written; through the page cache from then on when the place does not fit the disk."""
        while buffer:
            done = self._moved(partial(os.preadv, self._handle, [buffer], offset))
            if not done:
                raise TargetFailed(path=self.path, reason=f"it ends at {offset}, before what was written to it")
            offset, buffer = offset + done, buffer[done:]

    def sync(self) -> None:
        """Make durable what was written."""
        with on_target(self.path):
            os.fsync(self._handle)

    def truncate(self, size: int) -> None:
        """Let the file end at `size`."""
        with on_target(self.path):
            os.ftruncate(self._handle, size)

    def punch(self, offset: int, length: int) -> bool:
        """Give a part of the file back, which then reads as zeroes; False when the file system cannot."""
        with on_target(self.path):
            return punch(self._handle, offset, length)

    def close(self) -> None:
        """Close the file; may be called twice."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            with on_target(self.path):  # NFS may tell of a lost write only here
                os.close(handle)


class PartialFile(OutputFile):
    """`<final>.partial`, made anew and exclusively.

    A leftover of an earlier attempt is unlinked, never reused: should its writer still live, it writes into a file
    without a name.
    """

    def __init__(self, final: Path, *, direct: bool = False) -> None:
        self.final = final
        path = final.with_name(final.name + PARTIAL)
        handle, direct = _create(path, direct=direct)
        super().__init__(path, handle, direct=direct)

    def publish(self) -> None:
        """Make the file durable and give it its final name; after this it is closed.

        Raises `WriterReplaced` when the partial name is no longer this file, so that a writer that was thought dead
        harms no later attempt.
        """
        self.sync()
        self._check_owner()
        self.close()
        with on_target(self.path):
            self.path.rename(self.final)
        sync_folder(self.final.parent)

    def _check_owner(self) -> None:
        if not self._is_mine():
            raise WriterReplaced(path=self.final)

    def _is_mine(self) -> bool:
        with on_target(self.path):
            mine = os.fstat(self._handle)
            try:
                named = self.path.lstat()
            except FileNotFoundError:
                return False
        return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)

    def discard(self) -> None:
        """Close and remove the unfinished file; nothing happens when it was published or discarded before."""
        if self._handle < 0:
            return
        for act in (self._remove, self.close):  # also closed when it cannot be removed: an open file holds the mount
            try:
                act()
            except (OSError, OverkeepError) as error:  # it is garbage by its name, and the first error matters more
                log.info("unfinished file stays %s", fields(path=self.path, reason=error))

    def _remove(self) -> None:
        if self._is_mine():
            self.path.unlink(missing_ok=True)


def _create(path: Path, *, direct: bool) -> tuple[int, bool]:
    """Make a file anew; return it and whether it passes the page cache by."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with on_target(path):
        path.unlink(missing_ok=True)
        if direct:
            try:
                return os.open(path, flags | os.O_DIRECT, 0o666), True
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                path.unlink(missing_ok=True)  # some kernels make the file before they refuse the flag
        return os.open(path, flags, 0o666), False


def _rest(pieces: list[memoryview], done: int) -> list[memoryview]:
    """What is left of `pieces` after their first `done` bytes."""
    for index, piece in enumerate(pieces):
        if done < len(piece):
            return [piece[done:], *pieces[index + 1 :]]
        done -= len(piece)
    return []
