# SPDX-License-Identifier: GPL-3.0-or-later
"""Long-running programs of the lab: started in a namespace, logged to a file, recorded, and ended for certain."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ovirtlab.ledger import LAB_VARIABLE, Ledger

STEP = 0.02
TERM_LIMIT = 5.0
KILL_LIMIT = 5.0
LOG_TAIL = 1500


class StartError(Exception):
    """A program did not come up; the text has the end of its log."""


def in_netns(netns: str | None, command: Sequence[str]) -> list[str]:
    """Return `command` as it is run in a network namespace; the mount namespace stays, so mounts are seen by all."""
    return ["nsenter", f"--net=/run/netns/{netns}", *command] if netns else list(command)


class Daemon:
    """One long-running program. `start` again after `stop` or `kill` is a restart."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, ledger: Ledger) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._ledger = ledger
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The pid while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, answers: Callable[[], bool], *, timeout: float = 10.0) -> None:
        """Start it and wait until it `answers`; raise `StartError` with the end of its log when it does not."""
        environment = os.environ | {LAB_VARIABLE: self._ledger.lab_id}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
                cwd="/",
            )
        self._ledger.record_process(self._process.pid)
        try:
            self._wait(answers, timeout)
        except StartError:
            self.kill()
            raise

    def _wait(self, answers: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not answers():
            if self._process is None or self._process.poll() is not None:
                status = self._process.returncode if self._process else "none"
                raise StartError(f"{self.name} ended at once with status {status}: {self.log_tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} did not answer within {timeout:g} s: {self.log_tail()}")
            time.sleep(STEP)

    def stop(self) -> None:
        """End it, by force after a while; nothing when it has ended."""
        self._end(signal.SIGTERM, TERM_LIMIT)
        self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._end(signal.SIGKILL, KILL_LIMIT)

    def signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: int, limit: float) -> None:
        if self._process is None:
            return
        self.signal(number)
        try:
            self._process.wait(limit)
        except subprocess.TimeoutExpired:
            return
        self._process = None

    def log_tail(self) -> str:
        """Return the end of the log, in one line."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " | ".join(text[-LOG_TAIL:].split("\n")).strip(" |") or "it wrote nothing to its log"
