# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of a mover's work on a disk of 1 TiB that holds 500 GiB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.units import GIB, MIB

LIMIT = 200  # MiB
HELD = 500 * GIB
SMALL, MOST = HELD // 64, HELD // 4 * 3
CHAIN = [HELD, SMALL, SMALL, MOST]

WORKS = [
    ("make", CHAIN),
    ("verify", CHAIN),
    ("verify_within_a_time", CHAIN),
    ("restore", HELD),
    ("restore_what_differs", HELD),
    ("merge", SMALL),  # into the full image
    ("merge", SMALL),
    ("merge", HELD - MOST),  # into the large overlay
    ("verify", [HELD]),
]


def work(name: str, folder: Path, step: int) -> Any:
    """Let a process do it; return what it did."""
    command = [sys.executable, "-m", "tests.blocks.large_disk", name, str(folder), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["peak"] < LIMIT, (name, found)
    return found["done"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("step", [64 * MIB, MIB])
def test_a_copy_of_a_large_disk_fits(tmp_path: Path, step: int) -> None:
    assert work("make", tmp_path, step) == CHAIN
    assert work("restore", tmp_path, step) == HELD


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("step", [MIB, CLUSTER], ids=["pieces", "clusters"])
def test_all_work_on_a_large_disk_fits(tmp_path: Path, step: int) -> None:
    """Also when every other cluster of the whole disk holds data: then nothing can be told in fewer words."""
    for name, expected in WORKS:
        assert work(name, tmp_path, step) == expected, name
