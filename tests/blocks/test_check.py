# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of an image's structure finds what `qemu-img check` finds, and nothing else."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from overkeep.blocks.errors import ImageDamaged, ImageUnsupported, UnsafeImage
from overkeep.blocks.qcow2.check import check_image
from overkeep.blocks.qcow2.findings import Fault, Report
from overkeep.blocks.qcow2.layout import COPIED, OFFSET_MASK
from overkeep.blocks.qcow2.writer import ImageWriter
from overkeep.errors import Cancelled
from overkeep.units import GIB, KIB, MIB
from tests.blocks.conftest import run
from tests.blocks.damage import Words, hurt
from tests.blocks.qemu_images import SHAPES, Shape, make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def as_qemu_checks(path: Path) -> tuple[bool, bool, dict[str, int]]:
    """Whether qemu-img finds errors, whether it finds leaks, and all that it says."""
    command = ["qemu-img", "check", "--output=json", "-f", "qcow2", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if not done.stdout:
        return True, False, {}  # it could not even be opened
    said = json.loads(done.stdout)
    errors = said.get("corruptions", 0) + said.get("check-errors", 0)
    return errors > 0, said.get("leaks", 0) > 0, said


def as_we_check(path: Path) -> tuple[bool, bool, Report | None]:
    try:
        report = check_image(path.parent, path.name)
    except (ImageDamaged, ImageUnsupported, UnsafeImage):
        return True, False, None
    return report.broken, report.leaks > 0, report


def assert_agree(path: Path, *, context: str = "") -> None:
    broken, leaky, said = as_qemu_checks(path)
    our_broken, our_leaky, report = as_we_check(path)
    assert (our_broken, our_leaky) == (broken, leaky), (context, said, report)
    if report and not broken:
        assert report.compressed == said.get("compressed-clusters", 0)
        assert report.data + report.compressed == said.get("allocated-clusters", 0)
        assert report.leaks == said.get("leaks", 0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_images_of_every_shape_are_whole(folder: Path, shape: Shape) -> None:
    rng = random.Random(f"check {shape}")
    for number in range(2):
        path = folder / f"{number}.qcow2"
        make(folder, path.name, rng, shape=shape)
        assert as_qemu_checks(path)[:2] == (False, False)
        assert_agree(path)


@pytest.mark.parametrize("seed", range(8))
def test_damage_is_found_as_qemu_finds_it(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    shape = rng.choice([shape for shape in SHAPES if shape.cluster < 2 * MIB])
    make(folder, "good.qcow2", rng, shape=shape)
    for _ in range(8):
        shutil.copy(folder / "good.qcow2", folder / "a.qcow2")
        done = hurt(folder / "a.qcow2", rng)
        assert_agree(folder / "a.qcow2", context=f"{shape}: {done}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_much_damage(tmp_path: Path) -> None:
    for seed in range(1000, 1150):
        (folder := tmp_path / str(seed) / "disk").mkdir(parents=True)
        test_damage_is_found_as_qemu_finds_it(folder, seed)
        shutil.rmtree(folder.parent)


def test_what_is_wrong_is_said(folder: Path) -> None:
    path = folder / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    run("qemu-io", "-f", "qcow2", "-c", "write -q 0 128k", path)
    words = Words(path)
    first, second = words.l2()
    words.put(first, words.get(second))
    words.save()
    report = check_image(folder, path.name)
    assert report.broken
    leak, overlap = report.findings
    assert (overlap.fault, leak.fault) == (Fault.OVERLAP, Fault.LEAK)
    assert "used more than once" in str(overlap)
    assert str(words.get(second) & OFFSET_MASK) in str(overlap)


def test_bitmaps_are_counted(folder: Path) -> None:
    path = folder / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
    for name in ("one", "two"):
        run("qemu-img", "bitmap", "--add", "-g", "4k", path, name)
        run("qemu-io", "-f", "qcow2", "-c", "write -q 5M 1M", path)
    assert_agree(path)
    assert not check_image(folder, path.name).leaks
    words = Words(path)
    words.put(88, 0)  # the autoclear bits: a program that knew no bitmaps was here
    words.save()
    assert_agree(path)
    assert check_image(folder, path.name).leaks


@pytest.mark.parametrize("missing", [1, 511, 64 * KIB, 100_000, 300_000])
def test_a_truncated_image_is_broken(folder: Path, missing: int) -> None:
    """Also where QEMU takes the missing end of the last cluster for zeroes: here it can only have been lost."""
    path = folder / "a.qcow2"
    writer = ImageWriter(folder, path.name, size=MIB)
    writer.write(0, memoryview(random.Random(1).randbytes(MIB)))
    writer.finish()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - missing)
    assert as_we_check(path)[0]


@pytest.mark.parametrize("overlay", [False, True])
def test_our_own_images_have_neither_errors_nor_leaks(folder: Path, overlay: bool) -> None:
    writer = ImageWriter(folder, "a.qcow2", size=MIB * 600, backing="b.qcow2" if overlay else None)
    writer.write(0, memoryview(random.Random(1).randbytes(MIB)))
    writer.zero(100 * MIB, 4 * MIB)
    writer.write(590 * MIB, memoryview(random.Random(1).randbytes(MIB)))
    writer.finish()
    report = check_image(folder, "a.qcow2")
    assert (report.errors, report.leaks, report.data) == (0, 0, 32)
    assert report.zero == (64 if overlay else 0)


def test_a_check_can_be_stopped_within_the_tables(folder: Path) -> None:
    writer = ImageWriter(folder, "a.qcow2", size=GIB * 100)
    for at in range(0, 100 * GIB, GIB):  # an L2 table each
        writer.write(at, memoryview(b"x" * 64 * KIB))
    writer.finish()
    looks = 0

    def watch() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise Cancelled(what="The check")

    with pytest.raises(Cancelled):
        check_image(folder, "a.qcow2", watch=watch)


def test_only_the_first_findings_of_a_kind_are_kept(folder: Path) -> None:
    path = folder / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "1M")
    run("qemu-io", "-f", "qcow2", "-c", "write -q 0 1M", path)
    words = Words(path)
    for at in words.l2():
        words.put(at, words.get(at) ^ COPIED)
    words.save()
    report = check_image(folder, path.name)
    assert report.errors == 256
    assert len(report.findings) == 20


def test_a_file_of_too_many_clusters_is_not_checked(folder: Path) -> None:
    path = folder / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "1M")
    with path.open("r+b") as file:
        file.truncate(512 << 29)
    with pytest.raises(ImageUnsupported, match="clusters"):
        check_image(folder, path.name)
