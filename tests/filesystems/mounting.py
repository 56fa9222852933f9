# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts the file systems of this folder, and orders those that take orders."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from overkeep.errors import OverkeepError

Place = TypeVar("Place")
_DEADLINE = 90.0
_ROOT = Path(__file__).parents[2]


@contextmanager
def mounted(kind: str, folder: Path, *arguments: object) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Mount the file system `kind` in `folder`; yields its root and the process behind it. Skips where that cannot be.

    What is written there lies in `folder / "below"`.
    """
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("a file system of our own needs root and /dev/fuse")
    below, mountpoint, log = folder / "below", folder / kind, folder / f"{kind}.log"
    below.mkdir()
    mountpoint.mkdir()
    command = [sys.executable, "-m", f"tests.filesystems.{kind}", below, mountpoint, *arguments]
    with log.open("w") as errors:
        server = subprocess.Popen(
            [str(word) for word in command],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        deadline = time.monotonic() + _DEADLINE
        while not mountpoint.is_mount():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield mountpoint, server
    finally:
        server.communicate(timeout=_DEADLINE)  # closes its input, which ends it


class FailingTarget:
    """A place whose calls fail when they should; see `tests/filesystems/failing.py`."""

    def __init__(self, root: Path, server: subprocess.Popen[str]) -> None:
        self.root = root
        self._server = server

    def _order(self, **order: object) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{json.dumps(order)}\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    @property
    def opened(self) -> list[str]:
        """The files there that this process has open."""
        names = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        return [str(name) for name in names if name.is_relative_to(self.root)]

    def count(self, kind: str, work: Callable[[], object]) -> int:
        """How many calls of a kind (`changes` or `reads`) `work` makes."""
        self._order(count=kind)
        try:
            work()
        finally:
            counted = self._order()
        return counted

    @contextmanager
    def failing(self, kind: str, at: int, number: int, *, lasting: bool) -> Iterator[None]:
        """Let call `at` of a kind fail in the body, and `lasting` also all those after it."""
        self._order(count=kind, at=at, number=number, lasting=lasting)
        try:
            yield
        finally:
            self._order()

    def calls(self, fresh: Callable[[], Place], work: Callable[[Place], object]) -> Iterator[tuple[str, int]]:
        """The calls that `work` makes in a `fresh` place: their kind, and their number among those of the kind."""
        for kind in ("changes", "reads"):
            count = self.count(kind, partial(work, fresh()))
            yield from ((kind, at) for at in range(1, count + 1))

    def fail(self, call: tuple[str, int], number: int, work: Callable[[], object], *, told: bool = True) -> None:
        """Let a call of `work` fail: nothing stays open, and an error is raised unless it need not be `told`.

        Every other call goes on failing, as does each after one for which the file became stale: the kernel looks
        again for that. What fails once may be tried again, and then there is no error.
        """
        kind, at = call
        lasting = number == errno.ESTALE or at % 2 == 1
        with self.failing(kind, at, number, lasting=lasting), suppress(OverkeepError):
            work()
            assert not (lasting and told), "it was told that all is well"
        assert not self.opened, "an open file holds the mount"

    @contextmanager
    def bad(self, suffix: str, offset: int, number: int = errno.EIO) -> Iterator[None]:
        """Let nobody read the place at `offset` of the files whose names end with `suffix`, in the body."""
        self._order(bad=(suffix, offset, number))
        try:
            yield
        finally:
            self._order()

    @contextmanager
    def short(self) -> Iterator[None]:
        """Let reads and writes move only a part of what they are asked for, in the body."""
        self._order(short=True)
        try:
            yield
        finally:
            self._order()


@contextmanager
def failing_target(folder: Path) -> Iterator[FailingTarget]:
    """Mount one in `folder`."""
    with mounted("failing", folder) as (root, server):
        yield FailingTarget(root, server)
