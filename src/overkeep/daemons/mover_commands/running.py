# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one subcommand: progress on a terminal, a clean end on Ctrl-C, one sentence for an error, an exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import traceback
from typing import TextIO

from overkeep import exits
from overkeep.daemons.mover_commands.command import Command, Report
from overkeep.daemons.signals import Signals, stop_signals
from overkeep.errors import Cancelled, OverkeepError
from overkeep.mover.orders import Progress
from overkeep.mover.stopping import Stoppable
from overkeep.units import human_size

_SHOW_EVERY = 0.2  # seconds


def run(command: Command, options: argparse.Namespace) -> int:
    """Run `command` in a thread, and stop it when a signal comes; return the exit status.

    A second signal ends the process at once, and leaves what is unfinished under its partial name.
    """
    watch = Shown(sys.stderr)
    with stop_signals() as signals:
        work = _Work(command, options, watch, signals)
        work.start()
        while work.is_alive():
            if signals.wait():
                if watch.stopped:
                    os._exit(exits.INTERRUPTED)
                watch.stop(Cancelled(what=f"overkeep-mover {command.NAME}"))
            elif work.done:
                work.join()
    watch.wipe()
    return _tell(work, options)


def _tell(work: _Work, options: argparse.Namespace) -> int:
    if work.report is None:
        error = work.error
        _say(sys.stderr, f"overkeep-mover: {error}")
        if options.json:
            told = {"code": error.code, "message": error.message, "retry": error.retry}
            _say(sys.stdout, json.dumps({"error": told}))
        return exits.of(error)
    _say(sys.stdout, json.dumps(work.report.document) if options.json else work.report.line)
    return work.report.status


def _say(stream: TextIO, text: str) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Work(threading.Thread):
    def __init__(self, command: Command, options: argparse.Namespace, watch: Shown, signals: Signals) -> None:
        super().__init__(name=command.NAME, daemon=True)
        self.report: Report | None = None
        self.error = OverkeepError(reason="it ended without a word")
        self.done = False
        self._command, self._options, self._watch, self._signals = command, options, watch, signals

    def run(self) -> None:
        try:
            self.report = self._command.run(self._options, self._watch)
        except OverkeepError as error:
            self.error = self._watch.reason or error
        except Exception as error:  # noqa: BLE001 - the outermost of all
            traceback.print_exc()
            self.error = OverkeepError(reason=f"{type(error).__name__}: {error}")
        finally:
            self.done = True
            self._signals.wake()


class Shown(Stoppable):
    """A watch that shows on a terminal how far the work is, and nothing elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream if stream.isatty() else None
        self._begin = time.monotonic()
        self._shown = self._begin
        self._lock = threading.Lock()

    def progress(self, progress: Progress) -> None:
        """Show it, a few times a second."""
        now = time.monotonic()
        with self._lock:
            if self._stream is None or now - self._shown < _SHOW_EVERY:
                return
            self._shown = now
            self._stream.write(f"\r\033[K{_line(progress, now - self._begin)}")
            self._stream.flush()

    def wipe(self) -> None:
        """Take the line away."""
        with self._lock:
            if self._stream is not None:
                self._stream.write("\r\033[K")
                self._stream.flush()


def _line(progress: Progress, seconds: float) -> str:
    share = 100 * progress.done / progress.total if progress.total else 100.0
    speed = human_size(int(progress.moved / seconds)) if seconds else "0 B"
    return (
        f"{share:5.1f} %  {human_size(progress.done)} of {human_size(progress.total)}, "
        f"{human_size(progress.moved)} moved, {speed}/s"
    )
