# SPDX-License-Identifier: GPL-3.0-or-later
"""Real qemu-img and qemu-nbd for the tests of the block plane."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.filesystems.mounting import FailingTarget, failing_target

DEADLINE = 90.0


def run(*command: str | Path) -> str:
    """Run a program to its end and return its output; a failure fails the test with all of it."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def listens(path: Path) -> bool:
    """Whether anybody takes connections at a socket; its file is there a moment before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def wait_for(what: Callable[[], bool], *, seconds: float = DEADLINE) -> None:
    """Wait until `what` holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class Serve(Protocol):
    """Serves an image over NBD."""

    def __call__(self, image: Path | str, *options: str, format: str = "raw", export: str = "") -> str:
        """Return the URL of a new qemu-nbd that serves `image`, options of an image if `format` is empty."""


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[FailingTarget]:
    """A file system whose calls fail when they should."""
    with failing_target(tmp_path) as target:
        yield target


@pytest.fixture
def qemu() -> Callable[..., str]:
    """Run one of QEMU's programs."""
    return run


@pytest.fixture
def servers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """The qemu-nbd processes of the test, ended with it."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait(DEADLINE)


@pytest.fixture
def serve(tmp_path: Path, servers: list[subprocess.Popen[bytes]]) -> Serve:
    """Start qemu-nbd as VDSM does, on a socket of its own."""

    def start(image: Path | str, *options: str, format: str = "raw", export: str = "") -> str:
        path = tmp_path / f"nbd{len(servers)}.sock"
        command = ["qemu-nbd", "--persistent", "--shared=8", f"--export-name={export}", f"--socket={path}"]
        command += [f"--format={format}"] if format else ["--image-opts"]
        servers.append(subprocess.Popen([*command, *options, str(image)]))
        deadline = time.monotonic() + DEADLINE
        while not listens(path):
            assert servers[-1].poll() is None, "qemu-nbd ended"
            assert time.monotonic() < deadline, "qemu-nbd does not listen"
            time.sleep(0.01)
        return f"nbd:unix:{path}" + (f":exportname={export}" if export else "")

    return start
