# SPDX-License-Identifier: GPL-3.0-or-later
"""One controller at a time on one state folder: a lock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from overkeep.errors import OverkeepError


class AnotherController(OverkeepError):
    """The state folder is in use."""

    code = "another-controller"
    template = "Another controller (process {pid}) already works in {folder}; stop it first."
    status = 409


class Guard:
    """Hold `<folder>/controller.lock` while the controller runs; raise `AnotherController` when it is held.

    SQLite and the job engine below it are for one process: a second one would take over jobs that still run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "controller.lock"
        self._file = -1

    def __enter__(self) -> Guard:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(file, 20).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise AnotherController(pid=holder, folder=self._path.parent) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        self._file = -1
