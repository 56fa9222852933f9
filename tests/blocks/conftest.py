# SPDX-License-Identifier: GPL-3.0-or-later
"""Real qemu-img and qemu-nbd for the tests of the block plane."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

DEADLINE = 20.0


def run(*command: str | Path) -> str:
    """Run a program to its end and return its output; a failure fails the test with all of it."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Serve(Protocol):
    """Serves an image over NBD."""

    def __call__(self, image: Path, *options: str, format: str = "raw", export: str = "") -> str:
        """Return the URL of a new qemu-nbd that serves `image`."""


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

    def start(image: Path, *options: str, format: str = "raw", export: str = "") -> str:
        path = tmp_path / f"nbd{len(servers)}.sock"
        command = ["qemu-nbd", "--persistent", "--shared=8", f"--format={format}", f"--export-name={export}"]
        servers.append(subprocess.Popen([*command, f"--socket={path}", *options, str(image)]))
        deadline = time.monotonic() + DEADLINE
        while not path.exists():
            assert servers[-1].poll() is None, "qemu-nbd ended"
            assert time.monotonic() < deadline, "qemu-nbd made no socket"
            time.sleep(0.01)
        return f"nbd:unix:{path}" + (f":exportname={export}" if export else "")

    return start
