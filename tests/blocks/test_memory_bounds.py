# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of a mover's work on a disk of 1 TiB that holds 500 GiB. What is written of the data itself is dropped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 200  # MiB

COPY = """
import json, re, sys
from contextlib import closing
from pathlib import Path
from overkeep.blocks import image
from overkeep.blocks.copy import copy
from overkeep.blocks.ends import UNLIMITED, Extent
from overkeep.blocks.qcow2 import writer
from overkeep.blocks.extents import PackedExtents
from overkeep.units import GIB, KIB, TIB

folder, step = Path(sys.argv[1]), int(sys.argv[2])
known = bytes(range(16)) * 32
image.digests_of = lambda data: known[: len(data) // 65536 * 16]  # the real ones would take minutes
writer._joined = lambda pieces: ()  # a file with holes where the data were: tables and digests are all there


class Disk:
    size, parallel = TIB, UNLIMITED

    def read_into(self, offset, buffer):
        buffer[::65536] = b"x" * (len(buffer) // 65536)

    def clone(self):
        return self

    def close(self):
        pass


def pieces():
    at = 0
    while at < 1000 * GIB:
        yield Extent(at, step, False)
        at += 2 * step


extents = PackedExtents(pieces())
with closing(image.ImageSink(folder, "a.qcow2", size=TIB)) as sink:
    stats = copy(Disk(), sink, extents)
with closing(image.ChainReader(folder, "a.qcow2")) as chain:
    data = sum(extent.length for extent in chain.extents(dirty=False) if not extent.zero)
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps({"covered": stats.covered, "data": data, "peak": int(peak[1]) / 1024}))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("step", [64 << 20, 1 << 20])
def test_a_copy_of_a_large_disk_fits(tmp_path: Path, step: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COPY, str(tmp_path), str(step)], capture_output=True, text=True, timeout=880, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["covered"] == found["data"] == 500 << 30
    assert found["peak"] < LIMIT, found
