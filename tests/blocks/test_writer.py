# SPDX-License-Identifier: GPL-3.0-or-later
"""The stream writer: images that qemu-img finds sound and equal, small ones, and none at all after a failure."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.compression import Compression
from overkeep.blocks.copy import copy
from overkeep.blocks.ends import Extent
from overkeep.blocks.errors import BadRange, ImageDamaged, TargetMissing, UnsafeImage, WriterReplaced
from overkeep.blocks.image import ImageSink
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.qcow2 import tables
from overkeep.blocks.qcow2.form import PLAIN, Form
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.qcow2.writer import ImageWriter
from overkeep.units import GIB, MIB, TIB

Qemu = Callable[..., str]

# (cluster, clusters, what): written over one another in this order
acts = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 12), st.sampled_from(["data", "zero", "zero data", "mixed", "packs"])),
    max_size=12,
)


FORMS = [
    PLAIN,
    Form(cluster=2 * CLUSTER),
    Form(compression=Compression.ZSTD),
    Form(compression=Compression.ZLIB, level=1),
    Form(compression=Compression.ZSTD, cluster=2 * MIB, level=1),
]


def apply(sink: MemoryDisk | ImageWriter, steps: list[tuple[int, int, str]], seed: int, cluster: int) -> None:
    """Do the same with a disk in memory and with an image."""
    rng = random.Random(seed)
    for first, count, what in steps:
        offset = first % -(-sink.size // cluster) * cluster
        length = min(count * cluster, sink.size - offset)
        data = bytearray(rng.randbytes(length) if what != "zero data" else bytes(length))
        if what == "mixed":
            data[cluster : 2 * cluster] = bytes(len(data[cluster : 2 * cluster]))
        if what == "packs":
            data = bytearray((rng.randbytes(1000) * (length // 1000 + 1))[:length])
        if what == "zero":
            sink.zero(offset, length)
        else:
            sink.write(offset, memoryview(data))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.lists(st.tuples(acts, st.sampled_from(FORMS)), min_size=1, max_size=3),
    tail=st.sampled_from([0, 512, CLUSTER - 512]),
    seed=st.integers(0, 9),
)
def test_any_writes_make_the_chain_qemu_img_reads(
    qemu: Qemu, layers: list[tuple[list[tuple[int, int, str]], Form]], tail: int, seed: int
) -> None:
    unit = max(form.cluster for _, form in layers)
    disk = MemoryDisk((70 if unit < 2 * MIB else 8) * unit + tail)
    with TemporaryDirectory() as name:
        folder, backing = Path(name), None
        for number, (steps, form) in enumerate(layers):
            writer = ImageWriter(folder, f"{number}.qcow2", size=disk.size, backing=backing, form=form)
            apply(writer, steps, seed + number, unit)
            writer.finish()
            apply(disk, steps, seed + number, unit)
            qemu("qemu-img", "check", "-q", folder / f"{number}.qcow2")
            backing = f"{number}.qcow2"
        top = folder / f"{backing}"
        qemu("qemu-img", "check", "-q", top)
        (folder / "model").write_bytes(disk.content)
        qemu("qemu-img", "compare", "-f", "qcow2", "-F", "raw", top, folder / "model")
        reader = ChainReader(folder, top.name)
        copied = MemoryDisk(disk.size)
        copy(reader, copied, reader.extents(dirty=False), workers=2, chunk=4 * CLUSTER)
        reader.close()
        assert copied.content == disk.content
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            [*(f"{n}.qcow2" for n in range(len(layers))), "model"]
        )


def test_more_tables_than_memory_holds(tmp_path: Path, qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_RESIDENT_BYTES", 2 * CLUSTER)
    writer = ImageWriter(tmp_path, "a.qcow2", size=8 * GIB)
    expected = {}
    for round_ in range(3):
        for stretch in range(16):
            offset = stretch * 512 * MIB + round_ * CLUSTER
            expected[offset] = os.urandom(CLUSTER)
            writer.write(offset, memoryview(expected[offset]))
    writer.finish()
    qemu("qemu-img", "check", "-q", tmp_path / "a.qcow2")
    assert (tmp_path / "a.qcow2").stat().st_size == writer.stored <= (48 + 16 + 4) * CLUSTER
    reader = ChainReader(tmp_path, "a.qcow2")
    for offset, data in expected.items():
        buffer = bytearray(CLUSTER)
        reader.read_into(offset, memoryview(buffer))
        assert buffer == data
    reader.close()


def test_a_tebibyte_that_holds_100_mib_takes_110_mib_at_most(tmp_path: Path, qemu: Qemu) -> None:
    rng = random.Random(1)
    sink = ImageSink(tmp_path, "a.qcow2", size=TIB)
    data = memoryview(bytearray(os.urandom(MIB)))
    places = sorted(rng.sample(range(GIB // MIB), 90)) + sorted(rng.sample(range(GIB // MIB, TIB // MIB // 2), 10))
    for place in places:
        sink.write(place * MIB, data)
    sink.zero(TIB // 2, 256 * GIB)
    sink.finish()
    image = tmp_path / "a.qcow2"
    assert image.stat().st_size <= 110 * MIB
    assert (tmp_path / "a.sums").stat().st_size <= 2 * MIB
    qemu("qemu-img", "check", "-q", image)
    reader = ChainReader(tmp_path, "a.qcow2")
    found = sum(extent.length for extent in reader.extents(dirty=False) if not extent.zero)
    reader.close()
    assert found == 100 * MIB


def test_an_incremental_holds_what_changed_and_little_else(tmp_path: Path) -> None:
    ImageWriter(tmp_path, "a.qcow2", size=10 * GIB).finish()
    dirty = [Extent(number * 5 * CLUSTER, CLUSTER, False) for number in range(1638)]
    writer = ImageWriter(tmp_path, "b.qcow2", size=10 * GIB, backing="a.qcow2")
    data = memoryview(bytearray(os.urandom(CLUSTER)))
    for extent in dirty:
        writer.write(extent.start, data)
    writer.finish()
    total = sum(extent.length for extent in dirty)
    assert (tmp_path / "b.qcow2").stat().st_size <= 1.05 * total + MIB


def test_zeroes_hide_the_backing_image_and_cost_nothing_in_a_full_one(tmp_path: Path, qemu: Qemu) -> None:
    full = ImageWriter(tmp_path, "a.qcow2", size=GIB)
    full.write(0, memoryview(os.urandom(MIB)))
    full.zero(512 * MIB, 512 * MIB)
    full.finish()
    assert (tmp_path / "a.qcow2").stat().st_size == MIB + 5 * CLUSTER
    overlay = ImageWriter(tmp_path, "b.qcow2", size=GIB, backing="a.qcow2")
    overlay.zero(0, CLUSTER)
    overlay.write(CLUSTER, memoryview(bytearray(CLUSTER)))
    overlay.finish()
    map_ = qemu("qemu-img", "map", "--output=json", tmp_path / "b.qcow2")
    assert '"start": 0, "length": 131072, "depth": 0, "present": true, "zero": true, "data": false' in map_


@pytest.mark.parametrize("size", [0, 512, CLUSTER, 512 * MIB, 512 * MIB + 512])
def test_empty_disks_of_odd_sizes(tmp_path: Path, qemu: Qemu, size: int) -> None:
    ImageWriter(tmp_path, "a.qcow2", size=size).finish()
    qemu("qemu-img", "check", "-q", tmp_path / "a.qcow2")
    assert f'"virtual-size": {size}' in qemu("qemu-img", "info", "--output=json", tmp_path / "a.qcow2")
    reader = ChainReader(tmp_path, "a.qcow2")
    assert list(reader.extents(dirty=False)) == ([Extent(0, size, True)] if size else [])
    reader.close()


@pytest.mark.parametrize("offset", [512, -CLUSTER, MIB])
def test_ranges_that_are_not_whole_clusters_of_the_disk_are_refused(tmp_path: Path, offset: int) -> None:
    writer = ImageWriter(tmp_path, "a.qcow2", size=MIB)
    with pytest.raises(BadRange):
        writer.write(offset, memoryview(bytes(CLUSTER)))
    with pytest.raises(BadRange):
        writer.write(0, memoryview(bytes(512)))
    writer.close()


@pytest.mark.parametrize("name", ["../a.qcow2", "/etc/shadow", "", ".hidden", "json:{}", "nbd://host/x"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeImage):
        ImageWriter(tmp_path, name, size=MIB)
    with pytest.raises(UnsafeImage):
        ImageWriter(tmp_path, "a.qcow2", size=MIB, backing=name)
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_image_never_looks_whole_and_is_removed(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path, "a.qcow2", size=MIB)
    sink.write(0, memoryview(os.urandom(MIB)))
    partial = tmp_path / "a.qcow2.partial"
    (tmp_path / "stolen.qcow2").write_bytes(partial.read_bytes())
    with pytest.raises(ImageDamaged):
        ChainReader(tmp_path, "stolen.qcow2")
    assert not (tmp_path / "a.qcow2").exists()
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["stolen.qcow2"]


def test_a_killed_writer_leaves_only_a_partial_name(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from overkeep.blocks.image import ImageSink
sink = ImageSink(Path(sys.argv[1]), "a.qcow2", size=1 << 20)
sink.write(0, memoryview(os.urandom(1 << 20)))
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=90, check=False)
    assert done.returncode == -9
    assert {path.name for path in tmp_path.iterdir()} == {"a.qcow2.partial", "a.sums.partial"}
    sink = ImageSink(tmp_path, "a.qcow2", size=MIB)
    sink.finish()
    assert {path.name for path in tmp_path.iterdir()} == {"a.qcow2", "a.sums"}


def test_a_writer_that_was_replaced_harms_nobody(tmp_path: Path) -> None:
    late = ImageWriter(tmp_path, "a.qcow2", size=MIB)
    late.write(0, memoryview(os.urandom(MIB)))
    second = ImageWriter(tmp_path, "a.qcow2", size=2 * MIB)
    with pytest.raises(WriterReplaced):
        late.finish()
    late.close()
    second.finish()
    reader = ChainReader(tmp_path, "a.qcow2")
    assert reader.size == 2 * MIB
    reader.close()
    third = ImageWriter(tmp_path, "a.qcow2", size=MIB)
    (tmp_path / "a.qcow2.partial").unlink()
    with pytest.raises(WriterReplaced):
        third.finish()
    third.close()


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TargetMissing):
        ImageWriter(tmp_path / "gone", "a.qcow2", size=MIB)


FULL = """
import os, resource, signal, sys
from pathlib import Path
from overkeep.blocks.errors import TargetFull, TargetReadOnly
from overkeep.blocks.image import ImageSink
folder, how = Path(sys.argv[1]), sys.argv[2]
if how == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
expected = TargetReadOnly if how == "read-only" else TargetFull
try:
    sink = ImageSink(folder, "a.qcow2", size=16 << 20)
    try:
        sink.write(0, memoryview(bytearray(os.urandom(8 << 20))))
        sink.finish()
    finally:
        sink.close()
except expected as error:
    assert str(folder) in str(error), error
    assert not list(folder.iterdir()), list(folder.iterdir())
    sys.exit(42)
"""


def test_a_limit_on_file_sizes_says_there_is_no_room(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path), "limit"], timeout=90, check=False)
    assert done.returncode == 42


@pytest.mark.parametrize(("how", "option"), [("full", "size=4m"), ("read-only", "ro")])
def test_a_full_and_a_read_only_target(tmp_path: Path, how: str, option: str) -> None:
    mount = f'mount -t tmpfs -o {option} tmpfs "$1"'
    probe = subprocess.run(["unshare", "--mount", "sh", "-c", mount, "sh", str(tmp_path)], check=False, timeout=90)
    if probe.returncode:
        pytest.skip("mounting in a name space of its own needs root")
    command = [sys.executable, "-c", FULL, str(tmp_path), how]
    script = f'{mount} && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), *command], check=False, timeout=90
    )
    assert done.returncode == 42
