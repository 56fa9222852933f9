# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.filesystems.failing BELOW MOUNTPOINT`: a file system that fails when it is told to.

It takes an order a line from its standard input, as JSON, and answers each with a line that says how many calls were
counted since the order before. An order is an object: `count`, what is counted (`changes` or `reads`); `at`, the number
of the call that fails; `number`, with which error; `lasting`, whether all that follow fail, too; `short`, whether every
read and write moves only a part of what it is asked for; `bad`, a place that nobody can read: how the name of its file
ends, its offset, and the error. Whatever an order leaves out does not happen.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.filesystems.passthrough import Passthrough

_SECTOR = 512


class Failing(Passthrough):
    """Every call goes to the folder below, unless it has to fail."""

    def __init__(self, below: Path) -> None:
        super().__init__(below)
        self._lock = threading.Lock()
        self._rng = random.Random(1)
        self._writers: set[int] = set()
        self._order: Mapping[str, Any] = {}
        self._count = 0

    def obey(self, line: str) -> int:
        """Fail as the order in `line` says from now on; return how many calls were counted until now."""
        with self._lock:
            counted, self._count, self._order = self._count, 0, json.loads(line)
        return counted

    def _pass(self, kind: str) -> None:
        """Count a call, or fail."""
        with self._lock:
            if self._order.get("count") != kind:
                return
            self._count += 1
            at, number = self._order.get("at", 0), self._order.get("number", 0)
            if self._count == at or (self._order.get("lasting") and self._count > at > 0):
                raise OSError(number, os.strerror(number))

    def _part(self, size: int) -> int:
        """How much of `size` bytes is moved."""
        with self._lock:
            if not self._order.get("short") or size <= _SECTOR:
                return size
            return self._rng.randint(1, size // _SECTOR) * _SECTOR

    def readdir(self, path: str, fh: int) -> list[str]:
        self._pass("reads")
        return super().readdir(path, fh)

    def mkdir(self, path: str, mode: int) -> int:
        self._pass("changes")
        return super().mkdir(path, mode)

    def rmdir(self, path: str) -> int:
        self._pass("changes")
        return super().rmdir(path)

    def create(self, path: str, mode: int, fi: object = None) -> int:
        self._pass("changes")
        handle = super().create(path, mode, fi)
        self._writers.add(handle)
        return handle

    def open(self, path: str, flags: int) -> int:
        self._pass("reads")
        handle = super().open(path, flags)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._writers.add(handle)
        return handle

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._pass("reads")
        suffix, bad, number = self._order.get("bad", ("", -1, 0))
        if path.endswith(suffix) and offset <= bad < offset + size:
            raise OSError(number, os.strerror(number))
        return super().read(path, self._part(size), offset, fh)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._pass("changes")
        return super().write(path, data[: self._part(len(data))], offset, fh)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._pass("changes")
        return super().truncate(path, length, fh)

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        self._pass("changes")
        return super().fallocate(path, mode, offset, size, fh)

    def link(self, target: str, source: str) -> int:
        self._pass("changes")
        return super().link(target, source)

    def unlink(self, path: str) -> int:
        self._pass("changes")
        return super().unlink(path)

    def rename(self, old: str, new: str) -> int:
        self._pass("changes")
        return super().rename(old, new)

    def flush(self, path: str, fh: int) -> int:
        """Comes with each close; a server of NFS may tell only now that it has lost a write."""
        if fh in self._writers:
            self._pass("changes")
        return super().flush(path, fh)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._pass("changes")
        return super().fsync(path, datasync, fh)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._pass("changes")
        return super().fsyncdir(path, datasync, fh)

    def release(self, path: str, fh: int) -> int:
        self._writers.discard(fh)
        return super().release(path, fh)


if __name__ == "__main__":
    below, mountpoint = sys.argv[1:]
    # nothing is kept in memory by the kernel: each read and write comes here, and may move less than it was asked for
    Failing(Path(below)).serve(mountpoint, direct_io=True)
