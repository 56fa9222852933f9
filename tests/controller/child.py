# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller in a process of its own, that may be stopped, killed, and read the log of."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from tests.controller import peer
from tests.forks import FORKS, preload

READY = 120.0  # seconds for a controller to begin

preload("tests.controller.peer")


class Child:
    """Works at the site in `folder`, with the data base `url`; what it logs is in `log`."""

    def __init__(self, folder: Path, url: str, log: Path) -> None:
        self.log = log
        self._ready = FORKS.Event()
        self._process: BaseProcess = FORKS.Process(target=_work, args=(folder, url, log, self._ready), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def status(self) -> int | None:
        """How it ended; negative: the signal that killed it."""
        return self._process.exitcode

    def await_ready(self) -> None:
        """Return when it works, or has ended."""
        deadline = time.monotonic() + READY
        while not self._ready.wait(0.1) and self.alive:
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.kill(self.pid, number)

    def end(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait(90)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; how it ended, or nothing if it still lives."""
        self._process.join(seconds)
        return self.status


def _work(folder: Path, url: str, log: Path, ready: Event) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    peer.main(folder, url, ready=ready.set)
