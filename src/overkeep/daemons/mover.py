# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover`: the data mover of a host, from its settings file to its clean end."""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from overkeep import __version__, config, logs
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.mover.service import MoverService

DEFAULT_CONFIG = Path("/etc/overkeep/mover.toml")

log = logging.getLogger(__name__)


def run() -> None:
    """Entry point; ends the process with the status of `main`."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT. Returns 0 after a clean stop, 1 when the server broke, 2 for bad settings."""
    options = _parser().parse_args(arguments)
    try:
        settings = config.load(config.MoverConfig, options.config)
        logs.setup(settings.log_level)
        with _stop_signals() as stopped, MoverService(settings) as mover:
            # beside the server: a dead NFS server holds the mount command for minutes
            threading.Thread(target=mover.try_mounts, name="mounts", daemon=True).start()
            while not stopped(1.0):
                if not mover.alive:
                    log.error("mover broke %s", fields(reason="the HTTPS server ended"))
                    return 1
    except OverkeepError as error:
        print(f"overkeep-mover: {error}", file=sys.stderr)  # noqa: T201 - a terminal or the journal reads it
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="overkeep-mover", description="Data mover of one host.")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--version", action="version", version=f"overkeep-mover {__version__}")
    return parser


class _Stopped:
    def __init__(self, reader: int) -> None:
        self._reader = reader

    def __call__(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for a signal to stop; whether one came."""
        ready, _, _ = select.select([self._reader], [], [], timeout)
        return bool(ready)


@contextmanager
def _stop_signals() -> Iterator[_Stopped]:
    """Turn SIGTERM and SIGINT into bytes of a pipe: the one thing a signal handler may do without a dead-lock."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: _poke(writer)) for number in numbers]
    try:
        yield _Stopped(reader)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _poke(writer: int) -> None:
    try:
        os.write(writer, b"x")
    except BlockingIOError:  # the pipe is full of the same word
        return
