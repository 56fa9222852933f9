# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one of the SDK's example programs as it is, with the addresses and passwords in it replaced from outside.

Usage: launch.py URL LOGIN PASSWORD PROGRAM [ARGUMENT...]. Its waits are shorter, as the engine's time is faster.
"""

from __future__ import annotations

import builtins
import io
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import ovirtsdk4

LONGEST_SLEEP = 0.1


def redirect(url: str, login: str, password: str) -> None:
    """Make every connection one to this engine, whatever the program asks for."""
    begin = ovirtsdk4.Connection.__init__

    def connect(self: Any, **wanted: Any) -> None:
        for name in ("ca_file", "ca_path"):
            wanted.pop(name, None)
        begin(self, **{**wanted, "url": url, "username": login, "password": password, "insecure": True})

    ovirtsdk4.Connection.__init__ = connect


class TolerantFile(io.TextIOWrapper):
    """A text file that takes bytes as well, as those of Python 2 did, for which some of the programs were written."""

    def write(self, text: str | bytes) -> int:  # type: ignore[override]
        return super().write(text.decode() if isinstance(text, bytes) else text)


def open_tolerant(name: str, mode: str = "r") -> Any:
    """What `open` is for the programs."""
    return TolerantFile(builtins.open(name, "wb")) if mode == "w" else builtins.open(name, mode)


def main(url: str, login: str, password: str, program: str, *arguments: str) -> None:
    redirect(url, login, password)
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, LONGEST_SLEEP))
    sys.argv = [program, *arguments]
    sys.path.insert(0, str(Path(program).parent))
    runpy.run_path(program, {"open": open_tolerant}, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
