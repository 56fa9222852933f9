# SPDX-License-Identifier: GPL-3.0-or-later
"""Images made to do harm: each is refused with a typed error, in bounded memory and without a long look."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from overkeep.blocks.compression import Compression, Compressor
from overkeep.blocks.errors import ImageDamaged, ImageTooLarge, ImageUnsupported, UnsafeImage
from overkeep.blocks.qcow2.check import check_image
from overkeep.blocks.qcow2.findings import Fault
from overkeep.blocks.qcow2.layout import COMPRESSED, COPIED, ZERO, Header, pack_header
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.qcow2.writer import ImageWriter
from overkeep.errors import OverkeepError
from overkeep.units import GIB, KIB, MIB, TIB
from tests.blocks.conftest import run

CLUSTER = 64 * KIB
L1, L2, DATA = CLUSTER, 2 * CLUSTER, 3 * CLUSTER
NAME = "a.qcow2"


def make(folder: Path, *, length: int = 4 * CLUSTER, name: str = NAME, **fields: Any) -> Path:
    """An image file of `length` bytes: header, L1 table, L2 table, one cluster of data."""
    header = {"size": MIB, "l1_offset": L1, "l1_entries": 1, "backing": None} | fields
    path = folder / name
    path.write_bytes(pack_header(Header(cluster_bits=16, refcount_offset=0, refcount_clusters=0, **header)))
    with path.open("r+b") as file:
        file.truncate(length)
    put(path, header["l1_offset"], L2 | COPIED)
    put(path, L2, DATA | COPIED)
    put(path, DATA, b"data" * (CLUSTER // 4))
    return path


def put(path: Path, offset: int, *values: int | bytes) -> None:
    """Write bytes, or numbers of 64 bits, into a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"".join(value if isinstance(value, bytes) else struct.pack(">Q", value) for value in values))


def read_all(folder: Path, *, most: int = MIB) -> None:
    """Go through all extents, and read the beginning of each."""
    with closing(ChainReader(folder, NAME)) as reader:
        for extent in reader.extents(dirty=False):
            reader.read_into(extent.start, memoryview(bytearray(min(most, extent.length))))


@contextmanager
def memory_below(most: int) -> Iterator[None]:
    """Fail when more memory than this was in use at once."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


def test_the_image_is_sound_before_it_is_changed(tmp_path: Path) -> None:
    make(tmp_path)
    read_all(tmp_path)


def a_million_entries_with_the_same_table(path: Path) -> None:
    make(path.parent, length=10 * MIB, size=1_000_000 * 512 * MIB, l1_offset=MIB, l1_entries=1_000_000)
    put(path, MIB, struct.pack(">Q", L2 | COPIED) * 1_000_000)


def a_table_that_is_the_l1_table(path: Path) -> None:
    put(path, L1, L1 | COPIED)  # an L2 table whose first entry, as data, is the table again
    put(path, 24, TIB)
    put(path, 36, struct.pack(">I", 2048))


def a_table_behind_the_file(path: Path) -> None:
    put(path, L1, 4 * CLUSTER)


def a_table_that_ends_behind_the_file(path: Path) -> None:
    put(path, L1, DATA)
    with path.open("r+b") as file:
        file.truncate(DATA + CLUSTER - 1)


def a_table_in_the_header(path: Path) -> None:
    put(path, L1, 512)


def data_in_the_header(path: Path) -> None:
    put(path, L2, 512)


def data_that_are_not_aligned(path: Path) -> None:
    put(path, L2, DATA - 512)


def an_offset_of_all_bits(path: Path) -> None:
    put(path, L2, 0x00FF_FFFF_FFFF_FE00)


def a_compressed_cluster_behind_the_file(path: Path) -> None:
    put(path, L2, COMPRESSED | 1 << 40)


def a_compressed_cluster_in_the_header(path: Path) -> None:
    put(path, L2, COMPRESSED | 8)


def a_bomb_of_zstd(path: Path) -> None:
    make(path.parent, compression=Compression.ZSTD)
    put(path, L2, packed(DATA, sectors=100))
    put(path, DATA, zstandard.ZstdCompressor().compress(bytes(GIB)))


def a_window_of_128_mib(path: Path) -> None:
    make(path.parent, compression=Compression.ZSTD)
    put(path, L2, packed(DATA, sectors=100))
    settings = zstandard.ZstdCompressionParameters(window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    put(path, DATA, packer.compress(bytes(CLUSTER)) + packer.flush())


def an_unknown_compression(path: Path) -> None:
    make(path.parent, compression=Compression.ZSTD)
    put(path, 104, b"\2")


def a_compression_without_its_feature_bit(path: Path) -> None:
    make(path.parent, compression=Compression.ZSTD)
    put(path, 72, 0)


def subclusters_of_too_small_clusters(path: Path) -> None:
    put(path, 20, struct.pack(">I", 13))
    put(path, 72, 1 << 4)


def subclusters_that_are_data_and_zeroes(path: Path) -> None:
    put(path, 72, 1 << 4)
    put(path, L2, DATA | COPIED, 1 << 32 | 1)


def subclusters_with_data_and_no_place(path: Path) -> None:
    put(path, 72, 1 << 4)
    put(path, L2, 0, 1)


def zeroes_in_version_2(path: Path) -> None:
    put(path, 4, struct.pack(">I", 2))
    put(path, L2, ZERO)


def a_header_of_any_length(path: Path) -> None:
    put(path, 100, struct.pack(">I", 2**32 - 8))


def refcounts_of_any_width(path: Path) -> None:
    put(path, 96, struct.pack(">I", 7))


def an_extension_that_does_not_end(path: Path) -> None:
    put(path, 104, struct.pack(">II", 0x6803F857, 2**32 - 1))


def a_disk_of_all_bits(path: Path) -> None:
    put(path, 24, 2**64 - 1)


def a_refcount_table_of_all_bits(path: Path) -> None:
    put(path, 56, struct.pack(">I", 2**32 - 1))


def a_mark_of_corruption(path: Path) -> None:
    put(path, 72, 2)


def an_unknown_version(path: Path) -> None:
    put(path, 4, struct.pack(">I", 4))


def packed(offset: int, *, sectors: int) -> int:
    """The L2 entry of a compressed cluster."""
    return COMPRESSED | (sectors - 1) << 54 | offset


HARMS: list[Callable[[Path], None]] = [
    a_million_entries_with_the_same_table,
    a_table_behind_the_file,
    a_table_that_ends_behind_the_file,
    a_table_in_the_header,
    data_in_the_header,
    data_that_are_not_aligned,
    an_offset_of_all_bits,
    a_compressed_cluster_behind_the_file,
    a_compressed_cluster_in_the_header,
    a_bomb_of_zstd,
    a_window_of_128_mib,
    an_unknown_compression,
    a_compression_without_its_feature_bit,
    subclusters_of_too_small_clusters,
    subclusters_that_are_data_and_zeroes,
    subclusters_with_data_and_no_place,
    zeroes_in_version_2,
    a_header_of_any_length,
    refcounts_of_any_width,
    an_extension_that_does_not_end,
    a_disk_of_all_bits,
    a_refcount_table_of_all_bits,
    a_mark_of_corruption,
    an_unknown_version,
]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_an_image_that_does_harm_is_refused(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    harm(make(tmp_path))
    with memory_below(64 * MIB), pytest.raises((ImageDamaged, ImageUnsupported)) as caught:
        read_all(tmp_path)
    assert NAME in str(caught.value)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_its_check_ends_as_well(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    harm(make(tmp_path))
    with memory_below(64 * MIB):
        try:
            report = check_image(tmp_path, NAME)
        except (ImageDamaged, ImageUnsupported):
            return
    assert report.broken


def test_a_bomb_of_zlib_gives_a_cluster_and_no_more(tmp_path: Path) -> None:
    """As QEMU reads it: with raw deflate nobody can tell where the content should have ended."""
    path = make(tmp_path)
    bomb = Compressor(Compression.ZLIB).deflate(bytes(100 * MIB))
    assert bomb is not None
    put(path, L2, packed(DATA, sectors=128))
    put(path, DATA, bomb[:CLUSTER])
    with memory_below(64 * MIB):
        read_all(tmp_path)


def test_tables_that_name_one_another_are_read_once(tmp_path: Path) -> None:
    a_table_that_is_the_l1_table(make(tmp_path))
    with memory_below(64 * MIB):
        read_all(tmp_path)
        assert check_image(tmp_path, NAME).broken


def test_a_million_tables(tmp_path: Path) -> None:
    """A million tables, all in a hole of the file: they are looked at in pieces."""
    entries, tables = MIB, 64 * MIB
    path = make(tmp_path, length=CLUSTER, size=16 * MIB, l1_offset=CLUSTER)
    put(path, 20, struct.pack(">I", 9))  # clusters of 512 bytes: 64 entries in a table, 32 KiB of the disk
    put(path, 24, entries * 32 * KIB)
    put(path, 36, struct.pack(">I", entries))
    put(path, L1, (np.arange(entries, dtype=">u8") * 512 + tables).astype(">u8").tobytes())
    with path.open("r+b") as file:
        file.truncate(tables + entries * 512)
    with memory_below(64 * MIB), closing(ChainReader(tmp_path, NAME)) as reader:
        assert [extent.zero for extent in reader.extents(dirty=False)] == [True]


def test_the_tables_of_a_chain_have_a_limit_together(tmp_path: Path) -> None:
    for number in range(12):
        name, backing = f"{number}.qcow2" if number else NAME, f"{number + 1}.qcow2"
        make(tmp_path, name=name, length=36 * MIB, size=1024 * TIB, l1_offset=MIB, l1_entries=4 * MIB, backing=backing)
        put(tmp_path / name, 24, 4 * MIB * 256 * MIB)  # with entries of 16 bytes a table describes half as much
        put(tmp_path / name, 72, 1 << 4)
        put(tmp_path / name, MIB, 0)
    with memory_below(600 * MIB), pytest.raises(ImageDamaged, match="L1 tables"):
        ChainReader(tmp_path, NAME)


def test_a_disk_that_is_too_large_is_not_called_damaged(tmp_path: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", tmp_path / NAME, str(2048 * TIB))
    for look in (lambda: ChainReader(tmp_path, NAME), lambda: check_image(tmp_path, NAME)):
        with memory_below(64 * MIB), pytest.raises(ImageTooLarge) as caught:
            look()
        assert str(2048 * TIB) in str(caught.value)
    with pytest.raises(ImageTooLarge):
        ImageWriter(tmp_path, "b.qcow2", size=1024 * TIB + 512)
    assert not list(tmp_path.glob("b.qcow2*")), "nothing is written that could not be read"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", tmp_path / NAME, str(1024 * TIB))
    ChainReader(tmp_path, NAME).close()


@pytest.mark.parametrize(
    "backing",
    [
        "b\0.qcow2",
        "x:../disk/b.qcow2",
        "/",
        "./",
        "b.qcow2/",
        "",
        "~/b.qcow2",
        "-b.qcow2",
        "b:.qcow2",
        ".b.qcow2",
        "b\n.qcow2",
        "b\u202e.qcow2",
        "\x7fb.qcow2",
    ],
)
def test_backing_names_of_all_kinds(tmp_path: Path, backing: str) -> None:
    (tmp_path / "disk").mkdir()
    make(tmp_path / "disk", name="b.qcow2")
    path = make(tmp_path / "disk")
    name = backing.encode()
    put(path, 8, 1024, struct.pack(">I", len(name)))
    put(path, 1024, name)
    with pytest.raises((UnsafeImage, ImageDamaged)):
        ChainReader(tmp_path / "disk", NAME)


def test_a_backing_name_that_is_no_text_is_not_taken_for_another(tmp_path: Path) -> None:
    """Written with a backslash it is the name of a file that somebody else might have put there."""
    make(tmp_path, name="\\xff.qcow2")
    path = make(tmp_path)
    put(path, 8, 1024, struct.pack(">I", 7))
    put(path, 1024, b"\xff.qcow2")
    with pytest.raises(UnsafeImage):
        ChainReader(tmp_path, NAME)


@pytest.mark.parametrize(
    "form", ["b.qcow2", "./b.qcow2", "../disk/b.qcow2", "{folder}/b.qcow2", "{folder}/../disk/./b.qcow2"]
)
@pytest.mark.parametrize("through_link", [False, True])
def test_backing_names_that_lead_to_the_own_folder(tmp_path: Path, form: str, through_link: bool) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    make(folder, name="b.qcow2")
    path = make(folder)
    name = form.format(folder=folder)
    put(path, 8, 1024, struct.pack(">I", len(name)))
    put(path, 1024, name.encode())
    with closing(ChainReader(tmp_path / "link" if through_link else folder, NAME)) as reader:
        assert reader.names == (NAME, "b.qcow2")


def test_a_backing_name_is_not_looked_up(tmp_path: Path) -> None:
    """A link that leads to the folder is not followed: looking up what an image names may hang, or mount something."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "disk")
    make(tmp_path / "disk", name="b.qcow2")
    path, name = make(tmp_path / "disk"), "../elsewhere/b.qcow2"
    put(path, 8, 1024, struct.pack(">I", len(name)))
    put(path, 1024, name.encode())
    with pytest.raises(UnsafeImage, match="elsewhere"):
        ChainReader(tmp_path / "disk", NAME)


def test_lists_of_snapshots_that_lie(tmp_path: Path) -> None:
    path = tmp_path / NAME
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
    run("qemu-img", "snapshot", "-c", "one", path)
    whole = path.read_bytes()
    place = struct.unpack_from(">Q", whole, 64)[0]
    for at, value in ((60, 2**32 - 1), (60, 60000), (place + 8, 2**32 - 1), (place + 36, 2**32 - 1)):
        path.write_bytes(whole)
        put(path, at, struct.pack(">I", value))
        with memory_below(64 * MIB):
            try:
                report = check_image(tmp_path, NAME)
            except ImageUnsupported:
                continue
        assert report.broken
        assert {finding.fault for finding in report.findings} & {
            Fault.LISTS,
            Fault.OUTSIDE,
            Fault.UNCOUNTED,
            Fault.OVERLAP,
        }


def test_an_image_of_noise(tmp_path: Path) -> None:
    rng = random.Random(3)
    for _ in range(50):
        path = make(tmp_path)
        for _ in range(rng.randrange(1, 9)):
            put(
                path,
                rng.choice([rng.randrange(112), L1, L2 + 8 * rng.randrange(16)]),
                rng.randbytes(rng.randrange(1, 9)),
            )
        with memory_below(64 * MIB), contextlib.suppress(OverkeepError):
            read_all(tmp_path)
