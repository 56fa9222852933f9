# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of tests in memory: a controller syncs its data base some fifty times a job, which is not what they test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ENOUGH = 1 << 30  # bytes


@contextmanager
def folder_in_memory(elsewhere: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of one's own, on a disk where there is no memory for files."""
    if not (os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH):
        yield elsewhere.mktemp("test")
        return
    folder = Path(tempfile.mkdtemp(prefix="overkeep-test-", dir=MEMORY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of the test's own."""
    with folder_in_memory(tmp_path_factory) as folder:
        yield folder
