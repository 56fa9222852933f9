# SPDX-License-Identifier: GPL-3.0-or-later
"""Short directories, and a whole fabric of two hosts that the tests of a module share."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from ovirtlab import teardown
from ovirtlab.environment import default
from ovirtlab.fabric import net
from ovirtlab.fabric.assembly import Fabric, assembled
from ovirtlab.ledger import Ledger
from ovirtlab.places import Places


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory with a short path, as unix sockets lie in it; whatever lives in it is ended with the block."""
    directory = Path(tempfile.mkdtemp(prefix="ovl-"))
    try:
        yield directory
    finally:
        try:
            teardown.tear_down(directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def nothing_left(directory: Path) -> None:
    """Fail when something of a lab stays; what was told to end may take a moment to do so."""
    deadline = time.monotonic() + 60
    while left := teardown.leftovers(directory):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.fixture
def lab_directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def needs_isolation() -> None:
    """Skip where the machine gives no network namespaces."""
    if os.geteuid() != 0 or not net.can_isolate():
        pytest.skip("needs root and network namespaces")


@pytest.fixture(scope="module")
def fabric(needs_isolation: None) -> Iterator[Fabric]:
    """A network with `host1` and `host2`, the NFS target mounted for both, and their imageio daemons."""
    with short_directory() as directory:
        ledger = Ledger(directory)
        with assembled(default(), Places(directory), ledger=ledger, report=lambda _: nullcontext()) as built:
            yield built
        nothing_left(directory)
