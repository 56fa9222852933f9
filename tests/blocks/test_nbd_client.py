# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers to several NBD commands at once: in any order, in parts, refused, and wrong ones, which end the connection.

The wire format is that of the NBD protocol, "Transmission phase": simple and structured replies.
"""

from __future__ import annotations

import itertools
import mmap
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest

from overkeep.blocks.buffers import CLUSTER, aligned_buffer
from overkeep.blocks.errors import DiskFailed
from overkeep.blocks.nbd import FIRST, REQUEST, NbdSink, NbdSource
from overkeep.blocks.nbd_client import Client, nbd
from overkeep.units import MIB

_DONE = 1
_NONE, _DATA, _HOLE, _ERROR, _ERROR_AT = 0, 1, 2, 0x8001, 0x8002


def chunk(handle: int, kind: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    return struct.pack("!IHHQI", 0x668E33EF, _DONE if last else 0, kind, handle, len(payload)) + payload


def data(handle: int, offset: int, content: bytes, *, last: bool = True) -> bytes:
    return chunk(handle, _DATA, struct.pack("!Q", offset) + content, last=last)


def simple(handle: int, content: bytes = b"", *, error: int = 0) -> bytes:
    return struct.pack("!IIQ", 0x67446698, error, handle) + content


class _Connected(Client):  # type: ignore[misc] # its base has no types
    """A client behind the handshake, with a socket to a server that the test plays."""

    def __init__(self, sock: socket.socket, *, structured: bool) -> None:
        self._sock = sock
        self._structured_reply = structured
        self._counter = itertools.count()


Play = Callable[..., Any]


@pytest.fixture
def play() -> Iterator[Play]:
    """Read 8 bytes at 0 and 8 at 100, with what the server is to answer; return what failed and both buffers."""
    ours, theirs = socket.socketpair()

    def read(answers: bytes, *, structured: bool = True) -> Any:
        theirs.sendall(answers)
        theirs.shutdown(socket.SHUT_WR)
        buffers = [memoryview(bytearray(b"." * 8)) for _ in range(2)]
        failed = _Connected(ours, structured=structured).read_each([(0, buffers[0]), (100, buffers[1])])
        return failed, *(bytes(buffer) for buffer in buffers)

    with ours, theirs:
        yield read


def test_answers_come_in_any_order_and_in_parts(play: Play) -> None:
    answers = data(1, 104, b"efgh", last=False) + data(0, 0, b"ABCDEFGH") + data(1, 100, b"abcd")
    assert play(answers) == (None, b"ABCDEFGH", b"abcdefgh")


def test_holes_are_zeroes_and_an_answer_may_end_with_nothing(play: Play) -> None:
    hole = chunk(0, _HOLE, struct.pack("!QI", 4, 4), last=False)
    answers = hole + data(0, 0, b"ABCD", last=False) + chunk(0, _NONE) + data(1, 100, b"abcdefgh")
    assert play(answers) == (None, b"ABCD\0\0\0\0", b"abcdefgh")


def test_simple_answers(play: Play) -> None:
    assert play(simple(1, b"abcdefgh") + simple(0, b"ABCDEFGH"), structured=False) == (None, b"ABCDEFGH", b"abcdefgh")


@pytest.mark.parametrize(
    "refusal",
    [
        simple(0, error=5),
        chunk(0, _ERROR, struct.pack("!IH", 5, 2) + b"no"),
        chunk(0, _ERROR_AT, struct.pack("!IH", 5, 2) + b"no" + struct.pack("!Q", 4), last=False) + chunk(0, _NONE),
    ],
)
def test_one_that_is_refused_leaves_the_others(play: Play, refusal: bytes) -> None:
    failed, _, second = play(refusal + data(1, 100, b"abcdefgh"))
    assert (failed.command.offset, failed.error.code) == (0, 5)
    assert second == b"abcdefgh"


GOOD = data(1, 100, b"abcdefgh")


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(data(7, 0, b"ABCDEFGH"), id="a command that was not sent"),
        pytest.param(GOOD + GOOD, id="answered twice"),
        pytest.param(data(0, 4, b"ABCDEFGH"), id="behind what was asked for"),
        pytest.param(data(1, 92, b"ABCDEFGH"), id="before what was asked for"),
        pytest.param(data(0, 0, b"ABCDEFGHI"), id="more than was asked for"),
        pytest.param(data(0, 0, b"ABCD", last=False) + data(0, 0, b"ABCDE"), id="more, in parts"),
        pytest.param(data(0, 0, b"ABCD"), id="less than was asked for"),
        pytest.param(chunk(0, _NONE), id="nothing of what was asked for"),
        pytest.param(data(0, 0, b"", last=False), id="a part of no length"),
        pytest.param(chunk(0, _HOLE, struct.pack("!QI", 0, 1 << 31)), id="a hole of two GiB"),
        pytest.param(chunk(0, 77, b"12345678"), id="an unknown part"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="another protocol"),
        pytest.param(GOOD, id="the connection ends"),
    ],
)
def test_a_wrong_answer_ends_the_connection(play: Play, wrong: bytes) -> None:
    with pytest.raises(nbd.ProtocolError):
        play(wrong)


def test_a_structured_answer_that_was_not_agreed_on(play: Play) -> None:
    with pytest.raises(nbd.ProtocolError):
        play(GOOD, structured=False)


class Serve(Protocol):
    def __call__(self, image: Path | str, *options: str, format: str = "raw", export: str = "") -> str: ...


@pytest.fixture
def failing(tmp_path: Path, serve: Serve) -> str:
    """A disk of 4 MiB that cannot be written at 2 MiB: its URL; it lies in `d.raw`."""
    (tmp_path / "d.raw").write_bytes(bytes(4 * MIB))
    config = tmp_path / "faults.conf"
    config.write_text(f'[inject-error]\nevent = "none"\niotype = "write"\nsector = "{2 * MIB // 512}"\nonce = "off"\n')
    image = f"driver=raw,file.driver=blkdebug,file.config={config}"
    return serve(f"{image},file.image.driver=file,file.image.filename={tmp_path}/d.raw", format="")


def test_the_first_long_piece_is_one_request_and_those_that_follow_are_several(tmp_path: Path, failing: str) -> None:
    piece = memoryview(os.urandom(FIRST))
    with closing(NbdSink(failing)) as sink:
        with pytest.raises(DiskFailed, match=f"{FIRST} bytes at 0"):
            sink.write(0, piece)
        with pytest.raises(DiskFailed, match=f"{REQUEST} bytes at {2 * MIB}"):
            sink.write(0, piece)
    holds = memoryview((tmp_path / "d.raw").read_bytes())
    refused = slice(2 * MIB, 2 * MIB + REQUEST)
    assert holds[refused] == bytes(REQUEST)
    assert (holds[: refused.start], holds[refused.stop :]) == (piece[: refused.start], piece[refused.stop :])


def test_the_server_keeps_the_memory_of_requests(
    tmp_path: Path, serve: Serve, servers: list[subprocess.Popen[bytes]]
) -> None:
    size = 64 * MIB
    (tmp_path / "d.raw").write_bytes(os.urandom(size))
    buffer = aligned_buffer(4 * MIB)
    faults = []
    with closing(NbdSource(serve(tmp_path / "d.raw"))) as source:
        for _ in range(3):
            before = _page_faults(servers[-1].pid)
            for offset in range(0, size, len(buffer)):
                source.read_into(offset, buffer)
            faults.append(_page_faults(servers[-1].pid) - before)
    # without the long request at the beginning it takes a new page for each that it reads, for ever
    assert faults[-1] < size / mmap.PAGESIZE / 10


def _page_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def test_a_real_server_fails_one_of_many(tmp_path: Path, failing: str) -> None:
    pieces = [(at, memoryview(os.urandom(CLUSTER))) for at in range(0, 4 * MIB, 2 * CLUSTER)]
    with closing(NbdSink(failing)) as sink:
        with pytest.raises(DiskFailed, match=str(2 * MIB)):
            sink.write_each(pieces)
        sink.finish()  # the connection is as good as before
    written = (tmp_path / "d.raw").read_bytes()
    for at, data in pieces:
        assert written[at : at + CLUSTER] == (bytes(CLUSTER) if at == 2 * MIB else data)
