# SPDX-License-Identifier: GPL-3.0-or-later
"""Trying a target out: what it measures on real file systems, what it leaves, and that it ends in time."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from overkeep.blocks.errors import TargetFailed, TargetFull, TargetReadOnly
from overkeep.config import TargetConfig
from overkeep.model.findings import Verdict
from overkeep.model.probes import Probe, Terms, finding
from overkeep.repository import probe
from overkeep.repository.identity import create_identity
from overkeep.repository.mounts import Mounts, TargetFolderMissing
from overkeep.units import GIB, MIB, TIB


def tried(root: Path, *, size: int = 4 * MIB, seconds: float = 5.0) -> Probe:
    target = TargetConfig(name="t", kind="path", mountpoint=root)
    return probe.measure(Mounts((target,)), "t", terms=Terms(size=size, seconds=seconds))


def test_a_folder_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    held = create_identity(tmp_path).id
    found = tried(tmp_path, size=5 * MIB)
    assert (found.root, found.repository, found.owner) == (str(tmp_path), held, (os.geteuid(), os.getegid()))
    assert found.size == 5 * MIB
    assert found.write_speed is not None
    assert found.read_speed is not None
    assert min(found.write_speed, found.read_speed, found.synced_ms) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["overkeep.json"]


def test_a_target_without_a_repository_has_none(tmp_path: Path) -> None:
    assert tried(tmp_path).repository == ""
    assert list(tmp_path.iterdir()) == []


def test_it_ends_in_time_on_a_slow_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwrite, os.preadv

    def slowly(*args: object) -> int:
        time.sleep(0.05)
        return write(*args) if len(args) == 3 and isinstance(args[1], memoryview) else read(*args)  # type: ignore[arg-type] # told apart by what they are given

    monkeypatch.setattr(os, "pwrite", slowly)
    monkeypatch.setattr(os, "preadv", slowly)
    begun = time.monotonic()
    found = tried(tmp_path, size=GIB, seconds=0.4)
    assert time.monotonic() - begun < 5
    assert 0 < found.size < GIB
    assert found.synced_ms >= 50
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_o_direct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that refuses it when a file is opened, as some do, and one that refuses it when it is written."""
    opened, write = os.open, os.pwrite

    def refused(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, flags, *more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        found = tried(tmp_path)
    assert not found.direct
    assert found.size == 4 * MIB

    def refused_later(handle: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", refused_later)
    found = tried(tmp_path)
    assert not found.direct
    assert found.size == 4 * MIB


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, TargetFull), (errno.EIO, TargetFailed)])
def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    write = os.pwrite

    def fails(handle: int, data: memoryview, offset: int) -> int:
        if offset >= 2 * MIB:
            raise OSError(number, os.strerror(number))
        return write(handle, data[:MIB], offset)

    monkeypatch.setattr(os, "pwrite", fails)
    with pytest.raises(error):
        tried(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_data_than_were_written_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.preadv

    def rotten(handle: int, buffers: list[memoryview], offset: int) -> int:
        count = read(handle, buffers, offset)
        buffers[0][count // 2] ^= 1
        return count

    monkeypatch.setattr(os, "preadv", rotten)
    with pytest.raises(TargetFailed, match="differently"):
        tried(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_one_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    old, new = tmp_path / f"{probe.NAME}old", tmp_path / f"{probe.NAME}new"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    tried(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_others_that_come_and_go_meanwhile_disturb_nobody(tmp_path: Path) -> None:
    """Hosts try one target out at the same time, and each removes its own file."""
    done = threading.Event()
    paths = [tmp_path / f"{probe.NAME}{number}" for number in range(50)]

    def come_and_go() -> None:
        while not done.is_set():
            for path in paths:
                path.touch()
            for path in paths:
                path.unlink()

    others = threading.Thread(target=come_and_go)
    others.start()
    try:
        for _ in range(300):
            probe._sweep(tmp_path)
    finally:
        done.set()
        others.join()


def test_what_cannot_be_used_says_so(tmp_path: Path) -> None:
    with pytest.raises(TargetFolderMissing):
        tried(tmp_path / "none")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(TargetReadOnly):
            tried(tmp_path)


def test_little_room_is_not_used_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = probe.space_of(tmp_path)
    monkeypatch.setattr(probe, "space_of", lambda _root: type(space)(size=100 * MIB, used=90 * MIB, free=10 * MIB))
    found = tried(tmp_path)
    assert (found.size, found.write_speed, found.read_speed) == (0, None, None)
    assert found.synced_ms > 0


GOOD = Probe(
    root="/t",
    source="server:/t",
    repository="r",
    owner=(36, 36),
    direct=True,
    synced_ms=2.5,
    size=64 * MIB,
    write_speed=100.0 * MIB,
    read_speed=200.0 * MIB,
    space=TIB,
    free=TIB // 2,
)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, Verdict.OK, "durable after 2.5 ms, 100 MiB/s are written and 200 MiB/s read"),
        ({"direct": False}, Verdict.OK, "O_DIRECT does not work there"),
        ({"owner": (0, 0)}, Verdict.WARNING, "belong to 0:0 there and must belong to 36:36"),
        ({"free": TIB // 30}, Verdict.WARNING, "nearly full"),
        ({"synced_ms": 250.0}, Verdict.WARNING, "That is slow"),
        ({"write_speed": None, "read_speed": None}, Verdict.OK, "after 2.5 ms; "),
    ],
)
def test_what_a_probe_says(changes: dict[str, object], verdict: Verdict, words: str) -> None:
    found = finding("nfs1", Probe(**{**vars(GOOD), **changes}))  # type: ignore[arg-type] # fields of any kind
    assert found.verdict is verdict
    assert words in found.text
