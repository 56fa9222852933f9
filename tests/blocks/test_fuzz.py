# SPDX-License-Identifier: GPL-3.0-or-later
"""Fuzzing of the reader and of the check, for a minute; `fuzz_images.py` can be run for longer by itself."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from overkeep.units import KIB
from tests.blocks.conftest import run
from tests.blocks.qemu_images import Shape, fill

SHAPES = [
    Shape(512),
    Shape(512, compression="zstd"),
    Shape(512, refcount_bits=1),
    Shape(512, version=2),
    Shape(4 * KIB, refcount_bits=64),
    Shape(16 * KIB, subclusters=True),
    Shape(16 * KIB, subclusters=True, compression="zstd"),
]


def make_corpus(folder: Path) -> None:
    """Small images of many shapes, with snapshots, bitmaps and backing files."""
    (folder / "corpus").mkdir()
    (folder / "disk").mkdir()
    (folder / "b.raw").write_bytes(b"")
    for number, shape in enumerate(SHAPES * 2):
        rng, path = random.Random(number), folder / "disk" / f"{number}.qcow2"
        size = max(40 * KIB, 3 * shape.cluster)
        below = ["-u", "-F", "raw", "-b", "b.raw"] if number % 3 == 0 else []
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", shape.options, *below, path, str(size))
        if number % 3 != 0:
            fill(path, rng, shape=shape, size=size, writes=4)
        if number % 4 == 1 and shape.version == 3 and shape.refcount_bits > 4:
            run("qemu-img", "bitmap", "--add", path, "some")
            run("qemu-img", "snapshot", "-c", "kept", path)
        (folder / "corpus" / path.name).write_bytes(path.read_bytes())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_images_of_noise_give_typed_errors_only(tmp_path: Path) -> None:
    make_corpus(tmp_path)
    options = [
        "-runs=6000",
        "-max_total_time=120",
        "-timeout=20",
        "-rss_limit_mb=1200",
        "-max_len=150000",
        "-len_control=0",
        f"-artifact_prefix={tmp_path}/",
    ]
    command = [sys.executable, "-m", "tests.blocks.fuzz_images", str(tmp_path), *options]
    # a child of a child: the peak of memory that a process is told of begins with that of the one that started it
    command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
