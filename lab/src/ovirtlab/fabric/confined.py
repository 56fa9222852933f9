# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program with private folders bound over global ones, as `rpcbind` and `ganesha.nfsd` have fixed paths."""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000


def command(binds: dict[Path, Path], keep: Path, program: list[str]) -> list[str]:
    """Return the command that runs `program` with each key of `binds` seen at its value, and `keep` left visible."""
    pairs = [f"--bind={source}:{place}" for source, place in binds.items()]
    return [sys.executable, "-m", "ovirtlab.fabric.confined", *pairs, f"--keep={keep}", "--", *program]


def main(arguments: list[str]) -> None:
    """Unshare the mount namespace, bind, and become the program."""
    parser = argparse.ArgumentParser(prog="python -m ovirtlab.fabric.confined", description=__doc__)
    parser.add_argument("--bind", action="append", default=[], metavar="FOLDER:PLACE")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("program", nargs="+")
    options = parser.parse_args(arguments)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        _fail("unsharing the mount namespace")
    _mount(libc, "none", "/", MS_REC | MS_PRIVATE)
    kept = os.open(options.keep, os.O_PATH)
    for pair in options.bind:
        source, _, place = pair.partition(":")
        _mount(libc, source, place, MS_BIND)
    if not options.keep.exists():  # it lay under one of the places
        options.keep.mkdir(parents=True)
        _mount(libc, f"/proc/self/fd/{kept}", str(options.keep), MS_BIND)
    os.close(kept)
    os.execvp(options.program[0], options.program)  # noqa: S606 - no shell is wanted


def _mount(libc: ctypes.CDLL, source: str, place: str, flags: int) -> None:
    if libc.mount(os.fsencode(source), os.fsencode(place), None, ctypes.c_ulong(flags), None) != 0:
        _fail(f"mounting {source} on {place}")


def _fail(act: str) -> None:
    sys.exit(f"{act}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(sys.argv[1:])
