# SPDX-License-Identifier: GPL-3.0-or-later
"""The subcommands of `overkeep-mover`, as processes, on real NBD servers, files and images."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from overkeep import exits
from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digests import Digests, row
from overkeep.blocks.errors import WriterReplaced
from overkeep.blocks.sockets import Sockets
from overkeep.daemons.mover import main
from overkeep.daemons.mover_commands.ends import Raw, opened_sink
from overkeep.units import KIB, MIB
from tests.mover.bench import CANCELLED_WITHIN, SIZE, SPEED, assert_same, tool, write
from tests.mover.conftest import wait_for

DEADLINE = 60.0
COMMAND = (sys.executable, "-c", "from overkeep.daemons.mover import run; run()")


def start(*words: object, **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([*COMMAND, *(str(word) for word in words)], **pipes)


class Command:
    """The command within this process, which begins sooner."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, expect: int = exits.OK) -> tuple[str, str]:
        """Run it; return what it wrote to standard output and standard error."""
        try:
            status: object = main([str(word) for word in words])
        except SystemExit as error:  # so ends argparse
            status = error.code
        out, err = self._capsys.readouterr()
        assert status == expect, (words, out, err)
        return out, err

    def copy(self, *words: object) -> dict[str, Any]:
        """Copy, and return what was done."""
        out, err = self("copy", "--json", *words)
        assert err == ""
        found: dict[str, Any] = json.loads(out)
        return found


@pytest.fixture
def mover(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def points(tmp_path: Path) -> Path:
    folder = tmp_path / "points"
    folder.mkdir()
    return folder


def test_backups_and_restores_by_hand(mover: Command, disk: Path, nbd: Any, points: Path, tmp_path: Path) -> None:
    first = mover.copy("--from", nbd(disk), "--to", points / "p1.qcow2", "--read-back", 1)
    assert_same(disk, points / "p1.qcow2")
    assert (first["virtual_size"], first["covered"]) == (SIZE, SIZE)
    assert first["stored"] == (points / "p1.qcow2").stat().st_size
    assert {"source", "digest", "target", "read_back"} == set(first["stages"])
    nbd.stop()
    write(disk, "write -P 0x44 1M 128k", "write -z 12M 64k")
    url = nbd(disk, "--bitmap=cp1").removeprefix("nbd:unix:")
    dirty = mover.copy(
        "--from", f"nbd+unix:///?socket={url}", "--to", points / "p2.qcow2", "--base", "p1.qcow2", "--dirty"
    )
    assert dirty["covered"] == 192 * KIB
    assert_same(disk, points / "p2.qcow2")
    words = ("--compare", "--base", points / "p1.qcow2", "--compress", "--cluster", "128K")
    compared = mover.copy("--from", f"nbd:unix:{url}", "--to", points / "p3.qcow2", *words)
    assert compared["covered"] == SIZE
    assert compared["stored"] <= 8 * 128 * KIB
    assert_same(disk, points / "p3.qcow2")

    restored, expected = tmp_path / "restored.raw", tmp_path / "expected.raw"
    tool("qemu-img", "convert", "-O", "raw", disk, expected)
    mover.copy("--from", points / "p3.qcow2", "--to", restored, "--bandwidth", "1G")
    assert restored.read_bytes() == expected.read_bytes()
    assert restored.stat().st_blocks * 512 < SIZE / 2, "zeroes are holes"
    nbd.stop()
    write(disk, "write -P 0x55 1M 64k")
    differential = mover.copy("--from", points / "p2.qcow2", "--to", nbd(disk, write=True), "--differential")
    assert differential["covered"] == 64 * KIB
    nbd.stop()
    assert_same(disk, points / "p2.qcow2")


def test_from_disk_to_disk_and_from_image_to_image(
    mover: Command, disk: Path, nbd: Any, points: Path, tmp_path: Path
) -> None:
    raw, other = tmp_path / "disk.raw", tmp_path / "other.qcow2"
    mover.copy("--from", nbd(disk), "--to", raw)
    tool("qemu-img", "create", "-q", "-f", "qcow2", other, SIZE + MIB)
    mover.copy("--from", raw, "--to", nbd(other, write=True))
    nbd.stop()
    tool("qemu-img", "resize", "--shrink", "-q", other, str(SIZE))
    assert_same(disk, other)
    mover.copy("--from", raw, "--to", points / "p1.qcow2")
    mover.copy("--from", points / "p1.qcow2", "--to", points / "small.qcow2", "--compress=9", "--cluster", "1M")
    assert_same(disk, points / "small.qcow2")
    info = json.loads(tool("qemu-img", "info", "--output=json", points / "small.qcow2"))
    assert (info["cluster-size"], info["format-specific"]["data"]["compression-type"]) == (MIB, "zstd")


def test_people_get_one_line(mover: Command, disk: Path, nbd: Any, points: Path) -> None:
    out, err = mover("copy", "--from", nbd(disk), "--to", points / "p1.qcow2")
    assert err == "", "progress is for terminals"
    [line] = out.splitlines()
    assert line.startswith("64.0 MiB disk: 64.0 MiB copied, 7.0 MiB read, ")
    assert line.endswith("/s)")


def figures(line: str) -> dict[str, float]:
    """The figures of the line that a copy prints, in MiB, seconds and MiB a second."""
    found = re.fullmatch(
        r".* disk: .* copied, (?P<read>\S+) MiB read(, .* stored)? in (?P<seconds>\S+) s"
        r"(, (?P<back>\S+) s of them reading back)? \((?P<speed>\S+) MiB/s\)",
        line.strip(),
    )
    assert found, line
    return {name: float(value or 0) for name, value in found.groupdict().items()}


def test_the_speed_is_that_of_what_was_read(mover: Command, disk: Path, nbd: Any, points: Path) -> None:
    out, _ = mover("copy", "--from", nbd(disk), "--to", points / "p1.qcow2", "--bandwidth", "8M", "--read-back", "1")
    found = figures(out)
    assert found["read"] == 7.0
    assert found["back"] > 0
    assert found["speed"] == pytest.approx(found["read"] / (found["seconds"] - found["back"]), rel=0.1)
    nbd.stop()
    write(disk, "write -P 0x55 1M 64k")
    words = ("--from", points / "p1.qcow2", "--to", nbd(disk, write=True), "--differential", "--bandwidth", "8M")
    out, _ = mover("copy", *words)
    found = figures(out)
    assert found["read"] == pytest.approx(7.1, abs=0.05), "what was compared, and a cluster"
    assert found["seconds"] >= 0.3  # 7 MiB, of which the first piece need not wait
    assert found["speed"] == pytest.approx(found["read"] / found["seconds"], rel=0.1)


def test_progress_is_shown_on_a_terminal(large: Path, nbd: Any, points: Path) -> None:
    ours, theirs = pty.openpty()
    with start("copy", "--from", nbd(large, speed=SPEED), "--to", points / "p1.qcow2", stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
        out, _ = process.communicate(timeout=DEADLINE)
    os.close(ours)
    assert process.returncode == exits.OK
    assert b"% " in shown
    assert b"of 64.0 MiB" in shown
    assert shown.endswith(b"\r\x1b[K"), "the line is taken away at the end"
    assert len(out.splitlines()) == 1


def test_digests_are_made_anew(mover: Command, disk: Path, nbd: Any, points: Path) -> None:
    mover.copy("--from", nbd(disk), "--to", points / "p1.qcow2")
    sums = points / "p1.sums"
    before = sums.read_bytes()
    sums.write_bytes(b"nonsense")
    out, _ = mover("digest", points / "p1.qcow2", "--json")
    assert json.loads(out)["moved"] >= 7 * MIB
    assert len(sums.read_bytes()) == len(before)
    mover.copy("--from", nbd(disk), "--to", points / "p2.qcow2", "--base", "p1.qcow2", "--compare")
    assert (points / "p2.qcow2").stat().st_size <= 6 * 64 * KIB
    assert mover("digest", points / "p1.qcow2")[0].startswith(f"{sums}: digests of 7.0 MiB")


@pytest.mark.parametrize("kind", ["nbd", "image", "raw"])
def test_digests_of_any_disk(mover: Command, disk: Path, nbd: Any, tmp_path: Path, kind: str) -> None:
    raw, sums = tmp_path / "disk.raw", tmp_path / "disk.sums"
    tool("qemu-img", "convert", "-O", "raw", disk, raw)
    end = {"nbd": lambda: nbd(disk), "image": lambda: disk, "raw": lambda: raw}[kind]()
    found = json.loads(mover("digest", end, "--to", sums, "--json")[0])
    assert found["covered"] == SIZE
    assert found["moved"] < SIZE  # zeroes are not read
    with closing(Digests(sums)) as digests:
        expected = row(digests.hashing.of(memoryview(raw.read_bytes())))
        assert (digests.range(0, digests.clusters) == expected).all()


@pytest.mark.parametrize("kind", ["nbd", "image", "raw"])
@pytest.mark.parametrize("against", ["image", "foreign", "digests"])
def test_a_disk_is_compared(
    mover: Command, disk: Path, nbd: Any, points: Path, tmp_path: Path, kind: str, against: str
) -> None:
    image, raw = points / "p1.qcow2", tmp_path / "disk.raw"
    mover.copy("--from", nbd(disk), "--to", image)
    nbd.stop()
    tool("qemu-img", "convert", "-O", "raw", disk, raw)
    expected = {"image": image, "foreign": disk, "digests": tmp_path / "d.sums"}[against]
    if against == "foreign":  # without digests beside it
        shutil.copy(disk, expected := points / "foreign.qcow2")
    if against == "digests":
        mover("digest", raw, "--to", expected)
    end = {"nbd": lambda: nbd(disk), "image": lambda: disk, "raw": lambda: raw}[kind]
    out, _ = mover("compare", end(), expected)
    assert out.startswith(f"{end() if kind != 'nbd' else 'nbd:'}")
    assert f"holds what {expected} says" in out
    nbd.stop()
    write(disk, "write -P 0x99 2M 64k", "write -P 0x98 20M 1")
    with raw.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"\x99" * 64 * KIB)
        file.seek(20 * MIB)
        file.write(b"\x98")
    found = json.loads(mover("compare", end(), expected, "--json", expect=exits.FAILED)[0])
    assert (found["same"], found["differs"], found["beyond"]) == (False, 2 * CLUSTER, 0)
    assert sorted(piece["start"] for piece in found["pieces"]) == [2 * MIB, 20 * MIB]


def test_a_longer_disk_is_compared_as_far_as_the_image_goes(mover: Command, points: Path, tmp_path: Path) -> None:
    raw, sums = tmp_path / "disk.raw", tmp_path / "d.sums"
    raw.write_bytes(os.urandom(MIB))
    mover("digest", raw, "--to", sums)
    with raw.open("ab") as file:
        file.write(b"more")
    out, _ = mover("compare", raw, sums)
    assert "4 B more that were not read" in out
    os.truncate(raw, MIB - 1)
    mover("compare", raw, sums, expect=exits.CONFLICT)


def test_digests_on_which_a_merge_counts_stay(mover: Command, disk: Path, nbd: Any, points: Path) -> None:
    mover.copy("--from", nbd(disk), "--to", points / "p1.qcow2")
    before = (points / "p1.sums").read_bytes()
    (points / "merge.json").write_text("{}")
    _, err = mover("digest", points / "p1.qcow2", expect=exits.CONFLICT)
    assert "has not ended" in err
    assert (points / "p1.sums").read_bytes() == before


def test_programs_are_told_what_is_wrong(mover: Command, points: Path) -> None:
    out, err = mover("copy", "--from", points / "no.raw", "--to", points / "p.qcow2", "--json", expect=exits.NOT_FOUND)
    found = json.loads(out)["error"]
    assert (found["code"], found["retry"]) == ("file-missing", False)
    assert err == f"overkeep-mover: {found['message']}\n"


def test_what_is_wrong_is_one_sentence(mover: Command, disk: Path, nbd: Any, points: Path, tmp_path: Path) -> None:
    def refused(status: int, *words: object) -> None:
        out, err = mover(*words, expect=status)
        assert out == ""
        assert err.splitlines()[-1].startswith("overkeep-mover"), err
        assert "Traceback" not in err

    url, image = nbd(disk), points / "p1.qcow2"
    odd = tmp_path / "odd.raw"
    odd.write_bytes(b"x" * 1000)
    mover.copy("--from", url, "--to", image)
    plain = tmp_path / "disk.img"
    shutil.copy(image, plain)
    new = points / "p2.qcow2"
    cases: list[tuple[int, tuple[object, ...]]] = [
        (exits.CONFLICT, ("--from", url, "--to", image)),
        (exits.USAGE, ("--from", url, "--to", new, "--compare")),
        (exits.USAGE, ("--from", odd, "--to", new)),
        (exits.USAGE, ("--from", image, "--to", new, "--base", "p1.qcow2", "--dirty")),
        (exits.USAGE, ("--from", url, "--to", new, "--base", tmp_path / "p1.qcow2")),
        (exits.USAGE, ("--from", url, "--to", tmp_path / "raw", "--base", "p1.qcow2")),
        (exits.USAGE, ("--from", url, "--to", tmp_path / "raw", "--differential")),
        (exits.USAGE, ("--from", url, "--to", new, "--differential")),
        (exits.USAGE, ("--from", url, "--to", new, "--read-back", 2)),
        (exits.USAGE, ("--from", url, "--to", new, "--read-back", "nan")),
        (exits.USAGE, ("--from", url, "--to", tmp_path / "raw", "--read-back", 1)),
        (exits.USAGE, ("--from", image, "--to", tmp_path / "raw", "--compress")),
        (exits.USAGE, ("--from", image, "--to", tmp_path / "raw", "--cluster", "128K")),
        (exits.USAGE, ("--from", url, "--to", new, "--bandwidth", "0.5")),
        (exits.USAGE, ("--from", url, "--to", new, "--from-format", "raw")),
        (exits.USAGE, ("--from", plain, "--to", new)),  # begins like an image
        (exits.USAGE, ("--from", "nbd://localhost:99999/", "--to", new)),
        (exits.USAGE, ("--from", "nbds://localhost/", "--to", new)),
        (exits.USAGE, ("--from", "https://localhost/", "--to", new)),
        (exits.USAGE, ("--from", "nbd+unix:///x?socket=relative", "--to", new)),
        (exits.FAILED, ("--from", tmp_path, "--to", new)),
        (exits.FAILED, ("--from", "/dev/null", "--to", new)),
        (exits.USAGE, ("--from", url, "--to", new, "--compress=99")),
        (exits.USAGE, ("--from", url, "--to", new, "--cluster", "100K")),
        (exits.USAGE, ("--from", url, "--to", new, "--cluster", "many")),
        (exits.USAGE, ("--from", "nbd:nonsense", "--to", new)),
        (exits.UNREACHABLE, ("--from", f"nbd:unix:{tmp_path}/nobody", "--to", new)),
        (exits.UNREACHABLE, ("--from", f"{url}:exportname=other", "--to", new)),
        (exits.CONFLICT, ("--from", url, "--to", new, "--base", "p1.qcow2", "--dirty")),  # no bitmap
        (exits.NOT_FOUND, ("--from", url, "--to", new, "--base", "p0.qcow2", "--compare")),
        (exits.NOT_FOUND, ("--from", points / "p9.qcow2", "--to", new)),
        (exits.NOT_FOUND, ("--from", tmp_path / "no.raw", "--to", new)),
        (exits.FORBIDDEN, ("--from", image, "--to", url)),  # open for reading only
        (exits.CONFLICT, ("--from", image, "--to", odd)),  # too small
    ]
    for status, words in cases:
        refused(status, "copy", *words)
    assert sorted(path.name for path in points.iterdir()) == ["p1.qcow2", "p1.sums"]
    assert not (tmp_path / "raw").exists()
    refused(exits.NOT_FOUND, "digest", points / "p9.qcow2")
    refused(exits.USAGE, "digest", tmp_path / "no.raw")
    refused(exits.NOT_FOUND, "digest", tmp_path / "no.raw", "--to", tmp_path / "no.sums")
    refused(exits.USAGE, "digest", odd, "--to", tmp_path / "no.digests")
    refused(exits.USAGE, "compare", odd, odd)
    refused(exits.NOT_FOUND, "compare", odd, tmp_path / "no.sums")
    refused(exits.NOT_FOUND, "compare", tmp_path / "no.raw", image)
    refused(exits.USAGE, "compare", plain, image)
    refused(exits.CONFLICT, "digest", odd, "--to", points / "p1.sums")
    refused(exits.USAGE, "nonsense")


@pytest.mark.parametrize("kind", ["image", "raw"])
@pytest.mark.parametrize("hangs", [False, True], ids=["moving", "hanging"])
def test_ctrl_c_leaves_nothing(large: Path, nbd: Any, points: Path, kind: str, hangs: bool) -> None:
    url = nbd(large, speed=SPEED)
    sink = points / ("p1.qcow2" if kind == "image" else "disk.raw")
    with start("copy", "--from", url, "--to", sink) as process:
        wait_for(lambda: any(path.stat().st_blocks > 2048 for path in points.glob("*.partial")))
        if hangs:
            nbd.newest.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
        seconds = time.monotonic() - began
        if hangs:
            nbd.newest.send_signal(signal.SIGCONT)
    assert process.returncode == exits.INTERRUPTED, err
    assert out == ""
    assert err == "overkeep-mover: overkeep-mover copy was cancelled; nothing of it was kept.\n"
    assert list(points.iterdir()) == []
    assert seconds < CANCELLED_WITHIN, "it waited for the disk"


@pytest.mark.parametrize("end", ["read", "written", "compared"])
def test_ctrl_c_while_a_server_says_nothing(disk: Path, nbd: Any, points: Path, tmp_path: Path, end: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"nbd://127.0.0.1:{server.getsockname()[1]}/"
        words: tuple[object, ...] = ("--from", silent, "--to", points / "p1.qcow2")
        if end != "read":
            words = ("--from", disk, "--to", silent, *(("--differential",) if end == "compared" else ()))
        before = sorted(points.iterdir())
        with start("copy", *words) as process:
            accepted, _ = server.accept()
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=DEADLINE)
            seconds = time.monotonic() - began
            accepted.close()
    assert (process.returncode, err) == (
        exits.INTERRUPTED,
        "overkeep-mover: overkeep-mover copy was cancelled; nothing of it was kept.\n",
    )
    assert sorted(points.iterdir()) == before
    assert seconds < CANCELLED_WITHIN


@pytest.mark.parametrize("kind", ["image", "raw"])
def test_what_somebody_else_makes_meanwhile_is_not_replaced(large: Path, nbd: Any, points: Path, kind: str) -> None:
    sink = points / ("p1.qcow2" if kind == "image" else "disk.raw")
    with start("copy", "--from", nbd(large, speed=4 * SPEED), "--to", sink) as process:
        wait_for(lambda: any(path.stat().st_blocks > 2048 for path in points.glob("*.partial")))
        sink.write_text("of somebody else")
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == exits.CONFLICT, err
    assert sink.read_text() == "of somebody else"
    assert list(points.iterdir()) == [sink]


def test_what_has_a_format_that_its_name_does_not_say(mover: Command, disk: Path, points: Path, tmp_path: Path) -> None:
    plain, out, same = tmp_path / "plain.img", points / "out.qcow2", points / "same.raw"
    shutil.copy(disk, plain)
    mover.copy("--from", plain, "--from-format", "qcow2", "--to", out)
    assert_same(disk, out)
    found = mover.copy("--from", plain, "--from-format", "raw", "--to", same)
    assert found["virtual_size"] == plain.stat().st_size
    assert same.read_bytes() == plain.read_bytes()
    guests = tmp_path / "guests.qcow2"  # a raw disk that is called an image
    guests.write_bytes(os.urandom(MIB))
    mover.copy("--from", guests, "--from-format", "raw", "--to", points / "guests.raw")
    assert (points / "guests.raw").read_bytes() == guests.read_bytes()


@pytest.mark.parametrize("differential", [False, True])
def test_a_disk_that_is_written_is_read_back(
    mover: Command, disk: Path, nbd: Any, points: Path, tmp_path: Path, differential: bool
) -> None:
    image, raw = points / "p1.qcow2", tmp_path / "disk.raw"
    mover.copy("--from", nbd(disk), "--to", image)
    words = ("--differential",) if differential else ()
    raw.touch()
    os.truncate(raw, SIZE)
    found = mover.copy("--from", image, "--to", raw, "--read-back", 1, *words)
    assert found["stages"]["read_back"] > 0
    tool("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", disk, raw)


def test_a_reader_that_has_seen_enough(disk: Path, nbd: Any, points: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with start("copy", "--from", nbd(disk), "--to", points / "p1.qcow2", stdout=writer) as process:
        os.close(writer)
        _, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (exits.OK, "")


def test_who_makes_a_raw_file_anew_is_not_disturbed_by_who_was_first(tmp_path: Path) -> None:
    path = tmp_path / "w.raw"
    made = ExitStack()
    first = made.enter_context(opened_sink(Raw(path), size=2 * CLUSTER, sockets=Sockets()))
    first.write(0, memoryview(b"1" * CLUSTER))
    with opened_sink(Raw(path), size=CLUSTER, sockets=Sockets()) as second:
        second.write(0, memoryview(b"2" * CLUSTER))
        first.write(CLUSTER, memoryview(b"1" * CLUSTER))
        with pytest.raises(WriterReplaced):
            made.close()
    assert path.read_bytes() == b"2" * CLUSTER
    assert [each.name for each in tmp_path.iterdir()] == ["w.raw"]
