# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage domains with a size: each a file system of its own, in memory, so that it can be full."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack

from ovirtlab.engine.seed import stable_id
from ovirtlab.environment import Environment
from ovirtlab.fabric.assembly import MOUNT_LIMIT, unmount
from ovirtlab.fabric.commands import run
from ovirtlab.ledger import Ledger
from ovirtlab.places import Places


@contextlib.contextmanager
def mounted(environment: Environment, places: Places, ledger: Ledger) -> Iterator[None]:
    """Keep the file systems of all domains that have a size until the block ends; the others are plain folders."""
    with ExitStack() as stack:
        for domain in environment.storage_domains:
            if domain.size:
                path = places.storage / stable_id("storagedomain", domain.name)
                path.mkdir(parents=True)
                ledger.record("mount", path)
                stack.callback(unmount, path)
                run(["mount", "-t", "tmpfs", "-o", f"size={domain.size}", "tmpfs", str(path)], timeout=MOUNT_LIMIT)
        yield
