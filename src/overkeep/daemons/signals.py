# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGTERM and SIGINT as bytes of a pipe: the one thing a signal handler may do without a dead-lock."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """Waits for a signal to stop, or for being woken."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds; whether a signal came. Without one it returns when it is woken, too."""
        ready, _, _ = select.select([self._reader], [], [], timeout)
        return bool(ready) and os.read(self._reader, 1) == b"x"

    def wake(self) -> None:
        """Let `wait` return, from any thread."""
        _poke(self._writer, b"-")


@contextmanager
def stop_signals() -> Iterator[Signals]:
    """Catch the signals during the body."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: _poke(writer, b"x")) for number in numbers]
    try:
        yield Signals(reader, writer)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _poke(writer: int, word: bytes) -> None:
    try:
        os.write(writer, word)
    except BlockingIOError:  # the pipe is full of the same word
        return
