# SPDX-License-Identifier: GPL-3.0-or-later
"""Trying a target out: files are written to it, timed, read back and removed, within a bound of time and of size."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overkeep.blocks.errors import TargetFailed, on_target
from overkeep.model.findings import Finding
from overkeep.model.probes import Probe, Terms, finding
from overkeep.repository.errors import RepositoryMissing
from overkeep.repository.identity import read_identity
from overkeep.repository.mounts import Mounts, find_mount, require_writable, space_of
from overkeep.units import KIB, MIB, align_down

QUICK = Terms(size=4 * MIB, seconds=2.0)
"""For who looks at much else as well."""

NAME = ".overkeep-check-"
_OLD = 3600.0  # seconds after which a file of somebody who died while he tried the target out is removed
_CHUNK = 4 * MIB
_SMALL = 4 * KIB
_SYNCS = 16
_FREE = 20  # at most one part in so many of what is free is written


def probe(mounts: Mounts, name: str, *, terms: Terms = QUICK) -> Finding:
    """Mount a target if need be, try it out, and say how it is. Errors as of `measure`."""
    return finding(name, measure(mounts, name, terms=terms))


def measure(mounts: Mounts, name: str, *, terms: Terms, repository: str = "") -> Probe:
    """Mount a target if need be and measure it; what is written is removed again, also after a failure.

    `repository` is the id of what should be there, when it is known: it matters where there are several addresses.
    A server that is away lets this hang on a hard mount: call it where that harms nobody. Raises the errors of
    `mounts`, and those of the block plane when it cannot be written or reads other data than were written.
    """
    root = mounts.ensure(name, repository=repository)
    require_writable(root)
    found = find_mount(root)
    with on_target(root):
        _sweep(root)
        with _file(root) as path:
            return _Measure(root, path, terms, source=found.source if found else "").run()


@contextmanager
def _file(root: Path) -> Iterator[Path]:
    path = root / f"{NAME}{uuid.uuid4().hex}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _sweep(root: Path) -> None:
    for path in root.glob(f"{NAME}*"):
        with suppress(FileNotFoundError):  # who tries the target out at the same time removes his own
            if time.time() - path.stat(follow_symlinks=False).st_mtime > _OLD:
                path.unlink()


class _Measure:
    def __init__(self, root: Path, path: Path, terms: Terms, *, source: str) -> None:
        self._root = root
        self._path = path
        self._source = source
        self._seconds = terms.seconds
        self._space = space_of(root)
        self._size = align_down(min(terms.size, self._space.free // _FREE), MIB)
        self._chunk = _filled(os.urandom(MIB), max(MIB, min(_CHUNK, self._size)))
        self._direct = False

    def run(self) -> Probe:
        """Small writes first, then as many large ones as time and size allow, then read those."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            owner = os.fstat(handle)
            synced = self._synced(handle)
        finally:
            os.close(handle)
        written, write_speed = self._written()
        read_speed = self._read(written)
        return Probe(
            root=str(self._root),
            source=self._source,
            repository=_repository_at(self._root),
            owner=(owner.st_uid, owner.st_gid),
            direct=self._direct,
            synced_ms=1000 * synced,
            size=written,
            write_speed=write_speed,
            read_speed=read_speed,
            space=self._space.size,
            free=self._space.free,
        )

    def _synced(self, handle: int) -> float:
        """The median of the seconds that a small write takes until it is durable."""
        taken: list[float] = []
        end = time.monotonic() + self._seconds / 4
        for number in range(_SYNCS):
            begun = time.monotonic()
            if taken and begun > end:
                break
            os.pwrite(handle, self._chunk[:_SMALL], number * _SMALL)
            os.fdatasync(handle)
            taken.append(time.monotonic() - begun)
        return statistics.median(taken)

    def _written(self) -> tuple[int, float | None]:
        """Bytes that were written, durable, and how many a second; past the page cache where that works."""
        handle = _opened(self._path, os.O_WRONLY)
        try:
            self._direct = _takes_direct(handle, self._chunk)
            if not self._size:
                return 0, None
            begun, done = time.monotonic(), 0
            while done < self._size and time.monotonic() - begun < self._seconds:
                done += os.pwrite(handle, self._piece(done, self._size), done)
                if not self._direct:  # else all of it would wait for the end, which no time bounds
                    os.fdatasync(handle)
            os.fsync(handle)
            return done, done / max(time.monotonic() - begun, 1e-6)
        finally:
            os.close(handle)

    def _read(self, written: int) -> float | None:
        """Bytes a second that are read from the server; raise `TargetFailed` when they are others than were written."""
        handle = _opened(self._path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            buffer = memoryview(mmap.mmap(-1, len(self._chunk)))
            begun, done, spent = time.monotonic(), 0, 0.0
            while done < written and time.monotonic() - begun < self._seconds:
                expected = self._piece(done, written)
                started = time.monotonic()
                count = os.preadv(handle, [buffer[: len(expected)]], done)
                spent += time.monotonic() - started
                if not count or buffer[:count] != expected[:count]:
                    raise TargetFailed(path=self._path, reason="what was written is read back differently")
                done += count
            return done / max(spent, 1e-6) if done else None
        finally:
            os.close(handle)

    def _piece(self, offset: int, end: int) -> memoryview:
        """What belongs at an offset of the file, up to `end`: the same again and again."""
        at = offset % len(self._chunk)
        return self._chunk[at : at + min(len(self._chunk) - at, end - offset)]


def _filled(piece: bytes, length: int) -> memoryview:
    """Aligned memory full of data that do not compress."""
    memory = memoryview(mmap.mmap(-1, length))
    for at in range(0, length, len(piece)):
        memory[at : at + len(piece)] = piece
    return memory


def _opened(path: Path, how: int) -> int:
    """Open a file past the page cache, or as usual where the file system refuses that."""
    try:
        return os.open(path, how | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, how | os.O_CLOEXEC)


def _takes_direct(handle: int, chunk: memoryview) -> bool:
    """Whether what is open past the page cache can be written; when it cannot, it is written as usual from now on."""
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    if not flags & os.O_DIRECT:
        return False
    try:
        os.pwrite(handle, chunk[:MIB], 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.fcntl(handle, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return False
    return True


def _repository_at(root: Path) -> str:
    try:
        return read_identity(root).id
    except RepositoryMissing:
        return ""
