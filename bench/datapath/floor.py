# SPDX-License-Identifier: GPL-3.0-or-later
"""What the disks alone allow: as many bytes read and written past the page cache, and nothing done with them.

A server of a disk reads into memory in pages of 4 KiB, wherever those lie, and a disk may take longer for many small
pieces of memory than for a large one. So there are two floors: with large pages at both ends, which is what the disks
could do, and with a server's pages for reading, which is what they can do for anybody who reads from such a server.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from overkeep.blocks.buffers import aligned_buffer
from overkeep.units import MIB

_PIECE = 2 * MIB  # in large pages
_REQUEST = MIB  # not in large pages
_THREADS = 8


def copy_bare(source: Path, target: Path, *, as_a_server: bool = False) -> None:
    """Copy a file with several threads, durably, with reads and writes side by side.

    With `as_a_server`, what is read goes through memory as that of a server; it is copied once from there.
    """
    places = iter(range(0, source.stat().st_size, _PIECE))
    lock = threading.Lock()

    def taken() -> Iterator[int]:
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                return
            yield place

    with ExitStack() as opened:
        reader = os.open(source, os.O_RDONLY | os.O_DIRECT)
        opened.callback(os.close, reader)
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o666)
        opened.callback(os.close, writer)

        def work() -> None:
            buffer = aligned_buffer(_PIECE)
            requests = [aligned_buffer(_REQUEST) for _ in range(_PIECE // _REQUEST)]
            for place in taken():
                if as_a_server:
                    count = os.preadv(reader, requests, place)
                    _gather(requests, buffer)
                else:
                    count = os.preadv(reader, [buffer], place)
                os.pwritev(writer, [buffer[:count]], place)

        threads = [threading.Thread(target=work) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os.fsync(writer)
    if target.stat().st_size != source.stat().st_size:
        raise RuntimeError(f"{target} is not a copy of {source}")


def _gather(pieces: Sequence[memoryview], buffer: memoryview) -> None:
    """Copy what lies in `pieces` into one buffer."""
    for number, piece in enumerate(pieces):
        buffer[number * _REQUEST : (number + 1) * _REQUEST] = piece
