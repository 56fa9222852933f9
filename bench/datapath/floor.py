# SPDX-License-Identifier: GPL-3.0-or-later
"""What the disks alone allow: as many bytes read and written past the page cache, and nothing done with them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from overkeep.blocks.buffers import aligned_buffer
from overkeep.units import MIB

_PIECE = 2 * MIB
_THREADS = 8


def copy_bare(source: Path, target: Path) -> None:
    """Copy a file with several threads, durably, with reads and writes side by side."""
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
            for place in taken():
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
