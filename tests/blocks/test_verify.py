# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of images: sound ones are found sound, and damage that a restore would suffer from is always told."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.compression import Compression
from overkeep.blocks.copy import copy
from overkeep.blocks.digesting import make_digests
from overkeep.blocks.digests import sums_name
from overkeep.blocks.errors import OverkeepError, TargetStale
from overkeep.blocks.expected import ChainDigests
from overkeep.blocks.image import ImageSink
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.qcow2.form import PLAIN, Form
from overkeep.blocks.verify import Findings, Sample, verify_image
from overkeep.units import KIB, MIB
from tests.filesystems.mounting import FailingTarget

SIZE = 5 * MIB + 512
NAMES = ("p0.qcow2", "p1.qcow2", "p2.qcow2")


def chain(folder: Path, form: Form = PLAIN) -> MemoryDisk:
    """A chain of three images of a disk that compresses in part."""
    rng, disk = random.Random(5), MemoryDisk(SIZE)
    for number, name in enumerate(NAMES):
        disk.mark()
        for _ in range(12):
            data = rng.randbytes(16 * KIB) * 4 if rng.random() < 0.5 else rng.randbytes(CLUSTER)
            disk.write(rng.randrange(SIZE // CLUSTER) * CLUSTER, memoryview(data))
        disk.zero(rng.randrange(40) * CLUSTER, 3 * CLUSTER)
        with closing(ImageSink(folder, name, size=SIZE, backing=NAMES[number - 1] if number else None, form=form)) as s:
            copy(disk, s, disk.extents(dirty=number > 0), chunk=4 * CLUSTER)
    return disk


@pytest.mark.parametrize("form", [PLAIN, Form(compression=Compression.ZSTD)])
def test_sound_images_are_sound_and_read_whole(tmp_path: Path, form: Form) -> None:
    chain(tmp_path, form)
    for name in NAMES:
        found = verify_image(tmp_path, name)
        assert found.sound, found
        assert found.checked == found.held > 0
        assert (found.damaged, found.undigested, found.leaked) == (0, 0, 0)


def test_damaged_clusters_are_counted_and_named(tmp_path: Path) -> None:
    disk = MemoryDisk(SIZE)
    disk.write(0, memoryview(os.urandom(40 * CLUSTER)))
    with closing(ImageSink(tmp_path, "a.qcow2", size=SIZE)) as sink:
        copy(disk, sink, disk.extents(dirty=False), workers=1, chunk=CLUSTER)  # so that clusters lie in order
    with (tmp_path / "a.qcow2").open("r+b") as file:
        for cluster in (3, 7, 39):
            file.seek((1 + cluster) * CLUSTER + 100)
            file.write(b"rotten")
    found = verify_image(tmp_path, "a.qcow2")
    assert (found.damaged, found.named, found.sound) == (3, (3, 7, 39), False)


def test_a_sample_reads_a_share_and_a_budget_ends(tmp_path: Path) -> None:
    disk = MemoryDisk(64 * MIB)
    disk.write(0, memoryview(os.urandom(64 * MIB)))
    with closing(ImageSink(tmp_path, "a.qcow2", size=disk.size)) as sink:
        copy(disk, sink, disk.extents(dirty=False))
    part = verify_image(tmp_path, "a.qcow2", sample=Sample(share=0.25))
    assert part.sound
    assert 0 < part.checked < part.held == 64 * MIB
    none = verify_image(tmp_path, "a.qcow2", sample=Sample.within(0))
    assert (none.checked, none.held) == (0, 64 * MIB)
    everything = verify_image(tmp_path, "a.qcow2", sample=Sample.within(3600))
    assert everything.checked == everything.held


def test_missing_files_and_digests_are_told(tmp_path: Path) -> None:
    chain(tmp_path)
    (tmp_path / sums_name("p1.qcow2")).unlink()
    assert "not on the backup target" in verify_image(tmp_path, "p1.qcow2").errors[0]
    assert verify_image(tmp_path, "p2.qcow2").sound
    (tmp_path / "p0.qcow2").unlink()
    assert not verify_image(tmp_path, "p2.qcow2").sound
    assert not verify_image(tmp_path, "p0.qcow2").sound


@pytest.mark.parametrize("bit", [9, 12, 17, 28])
def test_a_disk_of_another_size_is_told(tmp_path: Path, bit: int) -> None:
    chain(tmp_path)
    turn(tmp_path / "p1.qcow2", 24 + 7 - bit // 8, 1 << bit % 8)  # a bit of the virtual size in the header
    assert not verify_image(tmp_path, "p1.qcow2").sound
    assert verify_image(tmp_path, "p2.qcow2").sound, "it is of the size that it was"


def test_a_cluster_without_a_digest_is_told(tmp_path: Path) -> None:
    chain(tmp_path)
    with closing(ImageSink(tmp_path, "other.qcow2", size=SIZE)) as sink:
        sink.write(0, memoryview(os.urandom(CLUSTER)))
        sink.finish()
    (tmp_path / "other.sums").replace(tmp_path / "p0.sums")
    found = verify_image(tmp_path, "p0.qcow2")
    assert found.undigested > 0
    assert not found.sound


def seen(folder: Path) -> list[bytes | None]:
    """What qemu-img makes of each image: its disk, or nothing when it finds the structure broken."""
    found: list[bytes | None] = []
    for name in NAMES:
        check = subprocess.run(["qemu-img", "check", "-q", folder / name], capture_output=True, timeout=60, check=False)
        raw = folder / "raw"
        convert = ["qemu-img", "convert", "-O", "raw", folder / name, raw]
        done = subprocess.run(convert, capture_output=True, timeout=60, check=False)
        broken = check.returncode not in (0, 3) or done.returncode  # 3: leaks, which harm nobody
        found.append(None if broken else raw.read_bytes())
    return found


def flip(path: Path, rng: random.Random) -> tuple[int, int]:
    """Turn one bit over; tables and headers, which are small, are hit as often as data."""
    size = path.stat().st_size
    where = rng.choice([rng.randrange(size), rng.randrange(min(size, 512)), size - 1 - rng.randrange(min(size, 400))])
    bit = 1 << rng.randrange(8)
    turn(path, where, bit)
    return where, bit


def turn(path: Path, where: int, bit: int) -> None:
    """Turn bits of one byte over."""
    with path.open("r+b") as file:
        file.seek(where)
        old = file.read(1)[0]
        file.seek(where)
        file.write(bytes([old ^ bit]))


def flips(folder: Path, count: int, seed: int) -> None:
    """Turn bits over one by one; whatever changes a disk, the structure or a digest must be found."""
    rng = random.Random(seed)
    form = rng.choice([PLAIN, Form(compression=Compression.ZSTD)])
    chain(folder, form)
    whole = seen(folder)
    assert None not in whole
    for number in range(count):
        name = rng.choice(NAMES)
        image = rng.random() < 0.7
        path = folder / (name if image else sums_name(name))
        before = None if image else digests(folder)
        where, bit = flip(path, rng)
        sound = {verify_image(folder, each).sound for each in NAMES} == {True}
        harmed = seen(folder) != whole if image else digests(folder) != before
        assert not (harmed and sound), (seed, number, path.name, where, bit)
        turn(path, where, bit)
    assert all(verify_image(folder, each).sound for each in NAMES)


def digests(folder: Path) -> list[bytes | str]:
    """What the digests of each chain say, or why they do not."""
    found: list[bytes | str] = []
    for name in NAMES:
        try:
            with closing(ChainDigests(folder, name)) as chain_digests:
                found.append(chain_digests.range(0, -(-SIZE // CLUSTER)).tobytes())
        except OverkeepError as error:
            found.append(error.code)
    return found


def test_bits_that_turn_over_are_found(tmp_path: Path) -> None:
    flips(tmp_path, 60, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 10))
def test_a_thousand_bits_that_turn_over_are_found(tmp_path: Path, seed: int) -> None:
    flips(tmp_path, 125, seed)


# a file system that fails


def verify_all(folder: Path) -> list[Findings]:
    return [verify_image(folder, name) for name in NAMES]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE], ids=errno.errorcode.get)
@pytest.mark.parametrize("form", [PLAIN, Form(compression=Compression.ZSTD)], ids=["plain", "zstd"])
def test_a_target_that_cannot_be_read_is_told_and_is_no_damage(failing: FailingTarget, form: Form, number: int) -> None:
    chain(failing.root, form)
    count = failing.count("reads", lambda: verify_all(failing.root))
    assert count > 30
    for at in range(1, count + 1, 3):
        with failing.failing("reads", at, number, lasting=True), pytest.raises(OverkeepError) as caught:
            verify_all(failing.root)
        assert caught.value.code == ("target-stale" if number == errno.ESTALE else "target-failed")
        assert not failing.opened, "an open file holds the mount"
        with failing.failing("reads", at, number, lasting=False), suppress(TargetStale):
            assert all(found.sound for found in verify_all(failing.root))
    assert all(found.sound for found in verify_all(failing.root))


# parts of the file's length: of digests, the header, their page and the index
BAD = {"p1.qcow2": (0.0, 0.2, 0.4, 0.6, 0.999), "p1.sums": (0.0, 0.6, 0.9999)}


@pytest.mark.parametrize("suffix", BAD)
def test_a_bad_place_of_the_server_is_a_finding_of_its_image(failing: FailingTarget, suffix: str) -> None:
    chain(failing.root)
    size = (failing.root / suffix).stat().st_size
    for part in BAD[suffix]:
        with failing.bad(suffix, int(part * size)):
            below, image, above = verify_all(failing.root)
        assert below.sound
        assert above.sound or suffix.endswith("qcow2"), "an image is not opened without those below it"
        assert not image.sound
        [told] = image.errors
        assert told.startswith(f"{suffix} cannot be read on the backup target, which answers otherwise: Input/output")
    assert all(found.sound for found in verify_all(failing.root))


@pytest.mark.parametrize("form", [PLAIN, Form(compression=Compression.ZSTD)], ids=["plain", "zstd"])
def test_sound_images_are_sound_where_reads_move_only_a_part(failing: FailingTarget, form: Form) -> None:
    chain(failing.root, form)
    with failing.short():
        assert all(found.sound and found.checked == found.held for found in verify_all(failing.root))
        for name in NAMES:
            make_digests(failing.root, name)
    assert all(found.sound for found in verify_all(failing.root))
