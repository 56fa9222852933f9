# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends a lab and all that is left of it, also after its supervisor was killed; doing it twice does no harm."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ovirtlab.fabric import bridges, mounts, net
from ovirtlab.ledger import LAB_VARIABLE, Ledger, start_time
from ovirtlab.places import Places

TERM_LIMIT = 60.0
KILL_LIMIT = 10.0
STEP = 0.05
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8


class TeardownError(Exception):
    """Something of the lab could not be removed; the text says what."""


def tear_down(directory: Path) -> list[str]:
    """End the lab in `directory` and remove everything it made; return what was removed, in words.

    Raises `TeardownError` when something is still there afterwards.
    """
    places = Places(directory.resolve())
    with locked(places.directory) as there:
        if not there:
            return []
        removed = clean(places)
        with contextlib.suppress(OSError):  # not empty: something in it is not the lab's
            places.directory.rmdir()
        return removed


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Keep others from starting or ending a lab in `directory` at the same time; False when it does not exist."""
    with contextlib.ExitStack() as stack:
        while (descriptor := _opened(directory)) is not None:
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # the one who held the lock may have removed the directory, and another may have made it again
            if directory.exists() and os.path.samestat(os.fstat(descriptor), directory.stat()):
                break
            stack.pop_all().close()
        yield descriptor is not None


def _opened(directory: Path) -> int | None:
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None


def clean(places: Places) -> list[str]:
    """End and remove all but the directory itself, whose lock the caller holds; return what was removed."""
    ledger = Ledger(places.directory)
    servers = {entry.name for entry in ledger.entries() if entry.kind == "server"}
    removed = _end_supervisor(places)
    removed += _detach_mounts(places.directory, servers)
    removed += _end_processes(ledger, servers)
    removed += net.remove(ledger.lab_id)
    _remove_sockets(ledger)
    return removed + _remove_files(places)


def leftovers(directory: Path) -> list[str]:
    """Say in words what of a lab is there: processes, mounts, namespaces. Empty after `tear_down`."""
    ledger = Ledger(directory.resolve())
    servers = {entry.name for entry in ledger.entries() if entry.kind == "server"}
    found = [f"process {pid}" for pid in sorted(_lab_processes(ledger, servers))]
    found += [f"mount {mount.path}" for mount in _lab_mounts(directory.resolve(), servers)]
    return found + [f"network namespace {name}" for name in net.existing(ledger.lab_id)]


def supervisor_pid(places: Places) -> int | None:
    """Return the pid of the running supervisor, if there is one."""
    for entry in Ledger(places.directory).entries():
        if entry.kind == "supervisor" and start_time(int(entry.name)) == entry.start:
            return int(entry.name)
    return None


def _end_supervisor(places: Places) -> list[str]:
    pid = supervisor_pid(places)
    if pid is None:
        return []
    _end([pid], signal.SIGTERM, TERM_LIMIT)
    return [f"supervisor {pid}"]


def _detach_mounts(directory: Path, servers: set[str]) -> list[str]:
    """Unmount lazily, as the server may be gone; the bridge of a mount ends with the last open file."""
    libc = ctypes.CDLL(None, use_errno=True)
    removed = []
    for mount in _lab_mounts(directory, servers):
        if libc.umount2(os.fsencode(mount.path), MNT_DETACH | UMOUNT_NOFOLLOW) != 0:
            raise TeardownError(f"{mount.path} cannot be unmounted: {os.strerror(ctypes.get_errno())}")
        removed.append(f"mount {mount.path}")
    return removed


def _lab_mounts(directory: Path, servers: set[str]) -> list[mounts.Mount]:
    found = [
        mount
        for mount in mounts.current()
        if mount.source.partition(":/")[0] in servers or mount.path.is_relative_to(directory)
    ]
    return found[::-1]  # what was mounted last comes off first


def _end_processes(ledger: Ledger, servers: set[str]) -> list[str]:
    removed = []
    deadline = time.monotonic() + KILL_LIMIT
    # several rounds, as a process may be starting another one just now
    while pids := _lab_processes(ledger, servers):
        if time.monotonic() > deadline:
            raise TeardownError(f"the processes {', '.join(map(str, sorted(pids)))} do not end when killed")
        removed += [f"process {pid} ({_name(pid)})" for pid in sorted(pids)]
        _end(pids, signal.SIGKILL, KILL_LIMIT)
    return list(dict.fromkeys(removed))


def _end(pids: Iterable[int], number: int, limit: float) -> None:
    """Signal processes and wait until they are gone; kill those that are not after `limit` seconds."""
    started = {pid: start_time(pid) for pid in pids}
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    deadline = time.monotonic() + limit
    while (left := [pid for pid, start in started.items() if start and start_time(pid) == start]) and (
        time.monotonic() < deadline
    ):
        time.sleep(STEP)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _lab_processes(ledger: Ledger, servers: set[str]) -> set[int]:
    """Find the lab's processes: recorded ones, those that carry its id, and the bridges of its mounts."""
    recorded = {int(entry.name): entry.start for entry in ledger.entries() if entry.kind in ("process", "supervisor")}
    found = {pid for pid, start in recorded.items() if start and start_time(pid) == start}
    sign = f"{LAB_VARIABLE}={ledger.lab_id}".encode()
    for pid in _pids():
        if sign in _read(pid, "environ").split(b"\0"):
            found.add(pid)
    found |= {bridge.pid for bridge in bridges.running() if bridge.server in servers}
    return {pid for pid in found - _own_line() if start_time(pid) is not None}


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _own_line() -> set[int]:
    """This process and its ancestors: they may have inherited the lab's variable, and are not the lab."""
    line, pid = set(), os.getpid()
    while pid > 0 and pid not in line:
        line.add(pid)
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        pid = int(fields[1]) if fields else 0
    return line


def _read(pid: int, name: str) -> bytes:
    try:
        return Path("/proc", str(pid), name).read_bytes()
    except OSError:
        return b""


def _name(pid: int) -> str:
    return _read(pid, "comm").decode(errors="replace").strip() or "ended"


def _remove_sockets(ledger: Ledger) -> None:
    for entry in ledger.entries():
        if entry.kind == "socket":
            Path(entry.name).unlink(missing_ok=True)


def _remove_files(places: Places) -> list[str]:
    still = [mount.path for mount in mounts.current() if mount.path.is_relative_to(places.directory)]
    if still:
        raise TeardownError(f"{', '.join(map(str, still))} are still mounted, so the files of the lab are kept")
    if not Ledger(places.directory).exists:  # no lab of ours: whatever is there belongs to somebody
        return []
    for path in places.all():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return [f"files in {places.directory}"]
