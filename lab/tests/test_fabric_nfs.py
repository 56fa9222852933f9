# SPDX-License-Identifier: GPL-3.0-or-later
"""The NFS target and its mounts: a real server, real mounts, and what programs see when things go wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ovirtlab.fabric import bridges, mounts
from ovirtlab.fabric.assembly import Fabric, Target, mount_command, unmount
from ovirtlab.fabric.mount import main as mount_main

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("fabric")]
MIB = 1 << 20


@pytest.fixture
def target(fabric: Fabric) -> Target:
    assert fabric.target is not None, fabric.target_missing
    return fabric.target


@pytest.fixture
def folder(target: Target, request: pytest.FixtureRequest) -> Path:
    """A fresh folder on the target as `host1` sees it."""
    path = target.mounts["host1"] / hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    path.mkdir()
    return path


def at_server(target: Target, path: Path) -> Path:
    """The same file where the server has it."""
    return target.exports[0].path / path.relative_to(target.mounts["host1"])


@contextmanager
def mounted(target: Target, place: Path, options: str) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    assert mount_main(["-t", "nfs", "-o", f"{target.options},{options}", target.source, str(place)]) == 0
    try:
        yield place
    finally:
        unmount(place)


def bridges_of(place: Path) -> list[int]:
    """The processes that serve a mount."""
    return [bridge.pid for bridge in bridges.running() if bridge.place == str(place)]


def listed(folder: Path) -> list[str]:
    """The names in a folder, each as often as it is given."""
    return sorted(path.name for path in folder.iterdir())


def test_mounts_are_real_and_named_after_their_source(target: Target):
    for path in target.mounts.values():
        found = mounts.at(path)
        assert found is not None
        assert found.source == target.source
        assert path.stat().st_dev != path.parent.stat().st_dev


def test_what_is_written_is_on_the_server_byte_for_byte(target: Target, folder: Path):
    content = os.urandom(5 * MIB + 12345)
    with (folder / "file").open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())
        assert at_server(target, folder / "file").read_bytes() == content
    assert (folder / "file").read_bytes() == content


def test_direct_and_scattered_writes(target: Target, folder: Path):
    path = folder / "disk"
    script = (
        "import mmap, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR | os.O_DIRECT)\n"
        "page = mmap.mmap(-1, 1 << 20)\n"
        "for number in (7, 0, 3):\n"
        "    page[:] = bytes([65 + number]) * (1 << 20)\n"
        "    os.pwrite(fd, page, number << 20)\n"
        "os.fsync(fd)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, path], timeout=90, check=False).returncode == 0
    expected = bytearray(8 * MIB)
    for number in (7, 0, 3):
        expected[number * MIB : (number + 1) * MIB] = bytes([65 + number]) * MIB
    assert at_server(target, path).read_bytes() == expected
    assert path.read_bytes() == expected


def test_another_client_sees_a_rename_and_a_longer_file_at_once(target: Target, folder: Path):
    other = target.mounts["controller"] / folder.name
    for number in range(5):
        (folder / "draft").write_text("x" * (number + 1))
        (folder / "draft").rename(folder / "point.json")
        assert (other / "point.json").read_text() == "x" * (number + 1)
        assert (other / "point.json").stat().st_size == number + 1
        assert not (other / "draft").exists()


def test_two_clients_list_a_large_folder_whole_while_it_changes(target: Target, folder: Path):
    other = target.mounts["controller"] / folder.name
    names = {f"a-name-that-fills-the-answers-{number:04}.qcow2" for number in range(1000)}
    for name in names:
        (at_server(target, folder) / name).touch()
    assert listed(folder) == listed(other) == sorted(names)
    for name in sorted(names)[::3]:
        (folder / name).unlink()
        names.remove(name)
    for name in sorted(names)[::4]:
        (other / name).rename(other / f".{name}.removed")
        names ^= {name, f".{name}.removed"}
    assert listed(folder) == listed(other) == sorted(names)


def test_names_that_exist_or_do_not(folder: Path):
    with pytest.raises(FileNotFoundError):
        (folder / "none").read_bytes()
    (folder / "one").touch()
    with pytest.raises(FileExistsError):
        os.open(folder / "one", os.O_CREAT | os.O_EXCL)
    (folder / "sub" / "deep").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty") as caught:
        (folder / "sub").rmdir()
    assert caught.value.errno == errno.ENOTEMPTY
    assert sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) == ["sub"]


def test_attributes_links_and_times(folder: Path):
    path = folder / "file"
    path.write_bytes(b"12345")
    path.chmod(0o640)
    os.chown(path, 36, 36)
    os.chown(path, -1, 0)
    os.utime(path, ns=(10**18, 2 * 10**18 + 5000))
    found = path.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o640, 36, 0)
    assert (found.st_atime_ns, found.st_mtime_ns) == (10**18, 2 * 10**18 + 5000)
    os.truncate(path, 3)
    assert path.read_bytes() == b"123"
    (folder / "link").symlink_to("file")
    os.link(path, folder / "hard")
    assert (folder / "link").readlink() == Path("file")
    assert path.stat().st_nlink == 2
    assert (folder / "hard").stat().st_ino == path.stat().st_ino


def test_a_file_stays_readable_after_it_was_removed(folder: Path):
    with (folder / "gone").open("w+b") as file:
        file.write(b"still here")
        file.flush()
        (folder / "gone").unlink()
        file.seek(0)
        assert file.read() == b"still here"


def test_files_belong_to_the_one_who_wrote_them(target: Target, folder: Path):
    target.exports[0].path.parents[1].chmod(0o711)  # let others come through the directory of the lab
    os.chown(folder, 36, 36)
    write = "import sys; open(sys.argv[1] + '/mine', 'x').write('x')"
    as_vdsm = ["setpriv", "--reuid", "36", "--regid", "36", "--clear-groups"]
    assert subprocess.run([*as_vdsm, "/usr/bin/python3", "-c", write, folder], timeout=90, check=False).returncode == 0
    assert ((folder / "mine").stat().st_uid, (folder / "mine").stat().st_gid) == (36, 36)
    folder.chmod(0o700)
    as_other = ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups"]
    refused = subprocess.run([*as_other, "cat", folder / "mine"], capture_output=True, timeout=90, check=False)
    assert b"Permission denied" in refused.stderr


def test_a_server_that_is_killed_and_comes_back_loses_nothing(target: Target, folder: Path):
    content = os.urandom(40 * MIB)
    target.server.kill()
    back = threading.Timer(1.0, target.server.restart)
    back.start()
    with (folder / "file").open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    back.join()
    assert hashlib.sha256(at_server(target, folder / "file").read_bytes()).digest() == hashlib.sha256(content).digest()
    assert (folder / "file").read_bytes() == content


def test_a_soft_mount_gives_an_error_in_time_and_works_again(target: Target, tmp_path: Path):
    with mounted(target, tmp_path / "soft", "soft,timeo=10,retrans=0") as place:
        with (place / "soft-file").open("wb", buffering=0) as file:
            file.write(b"before")
            target.server.kill()
            begin = time.monotonic()
            with pytest.raises(OSError, match="Input/output error"):
                file.write(b"during")
            assert time.monotonic() - begin < 8
            target.server.restart()
            assert file.write(b"after!") == 6
            os.fsync(file.fileno())
        assert (place / "soft-file").read_bytes() == b"beforeafter!"


def test_a_soft_mount_does_not_wait_for_a_frozen_server(target: Target, tmp_path: Path):
    with mounted(target, tmp_path / "soft", "soft,timeo=10,retrans=0") as place:
        target.server.freeze()
        try:
            begin = time.monotonic()
            with pytest.raises(OSError, match="Input/output error"):
                (place / "file").write_bytes(b"x")
            assert time.monotonic() - begin < 10
        finally:
            target.server.thaw()
        (place / "file").write_bytes(b"x")


def test_a_read_only_mount_refuses_writes(target: Target, tmp_path: Path):
    with mounted(target, tmp_path / "ro", "ro") as place, pytest.raises(OSError, match="Read-only") as caught:
        (place / "file").write_bytes(b"x")
    assert caught.value.errno == errno.EROFS


def test_unmounting_ends_the_bridge(target: Target, tmp_path: Path):
    with mounted(target, tmp_path / "once", "hard") as place:
        assert len(bridges_of(place)) == 1
    assert not bridges_of(tmp_path / "once")
    assert mounts.at(tmp_path / "once") is None


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("{server}:/none", "", "no such export"),
        ("{server}:/backup", "port=9", "does not accept NFS connections"),
        ("nonsense", "", "not of the form SERVER:/EXPORT"),
        ("{server}:/backup", "vers=4.1", "can only be vers=3"),
        ("{server}:/backup", "colour=red", "unknown mount option"),
    ],
)
def test_a_mount_that_fails_says_why(
    target: Target, tmp_path: Path, capfd: pytest.CaptureFixture[str], *, source: str, options: str, words: str
):
    arguments = ["-t", "nfs", "-o", options, source.format(server=target.server.address), str(tmp_path)]
    assert mount_main(arguments) != 0
    said = capfd.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert mounts.at(tmp_path) is None


def test_mounting_twice_or_on_nothing_is_refused(target: Target, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    where = str(target.mounts["controller"])
    assert mount_main(["-o", target.options, target.source, where]) == 32
    assert "is mounted there already" in capfd.readouterr().err
    assert mount_main(["-o", target.options, target.source, str(tmp_path / "none")]) == 32
    assert "not an existing folder" in capfd.readouterr().err


def test_the_command_is_installed():
    assert Path(mount_command()[0]).is_file()
