# SPDX-License-Identifier: GPL-3.0-or-later
"""The process behind one mount: connects, mounts, says so on a pipe, serves until it is unmounted."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import mfusepy

from ovirtlab.fabric import mounts
from ovirtlab.fabric.nfsfuse import libnfs
from ovirtlab.fabric.nfsfuse.client import HARD_PATIENCE, Client, Export
from ovirtlab.fabric.nfsfuse.operations import TRANSFER, Operations

READY = "ready"
PORTMAP_PORT = 111
MAX_THREADS = 16
BUSY_STEP = 0.1
# <malloc.h>: keep the buffers of transfers on the heap; mapping and unmapping each costs a third of the speed
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# libnfs keeps a folder in memory while it lists it; a list without an end ends this process and not the machine.
MOST_DATA = 2 << 30


class Bridge(mfusepy.FUSE):  # type: ignore[misc]
    """`mfusepy.FUSE` without its copies of what is read and written, and with honest renames."""

    def read(self, path: bytes, buffer: object, size: int, offset: int, file: object) -> int:
        return self.operations.read(file.contents.fh, _address(buffer), size, offset)  # type: ignore[attr-defined,no-any-return]

    def write(self, path: bytes, buffer: object, size: int, offset: int, file: object) -> int:
        return self.operations.write(file.contents.fh, _address(buffer), size, offset)  # type: ignore[attr-defined,no-any-return]

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        if flags:  # NFSv3 can neither exchange nor refuse to replace; dropping the flag would replace a file
            raise OSError(22, "renaming with flags is not possible over NFSv3")
        return self.rename_fuse_2(old, new)  # type: ignore[no-any-return]


def _address(buffer: object) -> int:
    return ctypes.cast(buffer, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_DATA, MOST_DATA))
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 64 << 20)
    libc.mallopt(M_TRIM_THRESHOLD, 256 << 20)
    status = os.fdopen(options.status_fd, "w")
    try:
        client = _connect(_export(options), wait=options.wait, status=status)
        _serve(client, options, lambda: _say(status, READY))
    except (OSError, RuntimeError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else f"FUSE failed ({error})"
        _say(status, text)
        return 1
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ovirtlab.fabric.nfsfuse", description=__doc__)
    parser.add_argument("source", help="SERVER:/EXPORT")
    parser.add_argument("mountpoint")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mount-port", type=int, default=0)
    parser.add_argument("--soft", type=float, metavar="SECONDS", help="give up a call after this long")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--wait", type=float, default=10.0, help="seconds to wait for the server's first answer")
    parser.add_argument("--status-fd", type=int, required=True)
    return parser.parse_args(arguments)


def _export(options: argparse.Namespace) -> Export:
    server, _, path = options.source.partition(":")
    return Export(
        server=server,
        path=path,
        port=options.port,
        mount_port=options.mount_port,
        hard=options.soft is None,
        patience=HARD_PATIENCE if options.soft is None else options.soft,
    )


def _connect(export: Export, *, wait: float, status: TextIO) -> Client:
    """Open the first connection; a server that accepts it and never answers ends this process after `wait` seconds."""

    def give_up() -> None:
        _say(status, f"no answer from {export.server} within {wait:g} s")
        os._exit(1)

    guard = threading.Timer(wait, give_up)
    guard.daemon = True
    guard.start()
    # libnfs says only "nfs_service failed" of a server that is not there; the system says why
    socket.create_connection((export.server, export.port or PORTMAP_PORT), timeout=wait).close()
    client = Client(export, library=libnfs.load())
    client.connect()
    guard.cancel()
    return client


def _say(status: TextIO, text: str) -> None:
    """Tell the one who started this process how it went; it may have gone away."""
    with contextlib.suppress(OSError, ValueError):
        status.write(f"{text}\n")
        status.close()


def _serve(client: Client, options: argparse.Namespace, ready: Callable[[], None]) -> None:
    def begin() -> None:
        threading.Thread(target=_end_with_mount, args=(Path(options.mountpoint), operations), daemon=True).start()
        ready()

    operations = Operations(client, lambda: mfusepy.fuse_get_context()[:2], begin)
    settings: dict[str, object] = {
        "fsname": options.source.replace(",", r"\,"),
        "subtype": "nfs",
        "max_read": TRANSFER,
        "max_threads": MAX_THREADS,
    }
    settings |= {"ro": options.read_only, "allow_other": os.geteuid() == 0}
    Bridge(operations, options.mountpoint, foreground=True, **settings)


def _end_with_mount(place: Path, operations: Operations) -> None:
    """End this process when its mount was taken off, once no file is open any more.

    The kernel ends the session only when no mount namespace has the mount, and any program that was started in a
    namespace of its own meanwhile has a copy of it.
    """
    poll = select.poll()
    with mounts.MOUNTINFO.open() as table:
        poll.register(table, select.POLLPRI | select.POLLERR)  # proc(5): signals each change of the table
        while mounts.at(place) is not None:
            poll.poll()
    while operations.busy:
        time.sleep(BUSY_STEP)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
