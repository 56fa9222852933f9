# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache of saved states: guests booted once, with the disks that belong to the memory they were saved with.

Layout: `<cache>/<key>/{shape.json,state.lz4,vda.raw,vdb.raw,...}` and `<cache>/initrd-<digest>`. A key is a hash of
all inputs. Entries appear by one rename under a lock, so that any number of processes may share a cache.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ovirtlab.machine.command import Boot, MachineSpec
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.images import make_data_disk, make_system_disk
from ovirtlab.machine.nodes import DiskNode
from ovirtlab.machine.parts import GuestParts, find_parts, initramfs
from ovirtlab.machine.qemu import Machine

log = logging.getLogger(__name__)

LOCK_TIMEOUT = 180.0
LOCK_POLL = 0.05
UNUSED_DAYS = 7
WARM_UP = ("sh", "-c", "sync; sha256sum /bin/qemu-ga; date; hostname")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What makes machines alike enough to start from one saved state; `sizes` in bytes, first disk first."""

    sizes: tuple[int, ...]
    agent: bool
    memory_mib: int


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """An entry of the cache."""

    key: str
    shape: Shape
    directory: Path

    @property
    def state(self) -> Path:
        return self.directory / "state.lz4"

    def disk(self, number: int) -> Path:
        """The raw image that belongs to the state."""
        return self.directory / f"{target_name(number)}.raw"


def target_name(number: int) -> str:
    """Name of the disk in place `number`, from 0: vda, vdb, ..."""
    return "vd" + "abcdefghijklmnopqrstuvwxyz"[number]


class StateCache:
    """Saved states in a directory that any number of labs on a machine share."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def boot(self, *, agent: bool) -> Boot:
        """Kernel and initramfs of the guest, made when they are not there."""
        parts = await asyncio.to_thread(find_parts)
        initrd = self._directory / f"initrd-{parts.digest[:24]}"
        if not initrd.exists():
            await asyncio.to_thread(_write_atomically, initrd, parts)
        return Boot(kernel=parts.kernel, initrd=initrd, agent=agent)

    def find(self, key: str) -> SavedState | None:
        """The entry `key`, or None when it was cleared away."""
        directory = self._directory / Path(key).name
        try:
            shape = json.loads((directory / "shape.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        os.utime(directory)
        return SavedState(key=key, shape=Shape(**{**shape, "sizes": tuple(shape["sizes"])}), directory=directory)

    async def ensure(self, shape: Shape) -> SavedState:
        """Return the saved state of `shape`; boot and save it when nobody has (about 4 s)."""
        parts = await asyncio.to_thread(find_parts)
        key = _key(shape, parts)
        if found := self.find(key):
            return found
        self._directory.mkdir(parents=True, exist_ok=True)
        async with _locked(self._directory / f".lock-{key}"):
            if found := self.find(key):
                return found
            self._clear_old()
            await self._make(key, shape, parts)
        if found := self.find(key):
            return found
        raise HostError(f"the saved state {key} vanished from {self._directory}")

    async def _make(self, key: str, shape: Shape, parts: GuestParts) -> None:
        began = time.monotonic()
        building = self._directory / f".building-{key}"
        shutil.rmtree(building, ignore_errors=True)  # of a process that died: the lock is ours
        building.mkdir()
        try:
            entry = SavedState(key=key, shape=shape, directory=building)
            await _make_disks(entry, parts)
            await _boot_and_save(entry, await self.boot(agent=shape.agent))
            (building / "shape.json").write_text(json.dumps(dataclasses.asdict(shape)))
            building.rename(self._directory / key)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        log.info("saved state %s of %s made in %.1f s", key, shape, time.monotonic() - began)

    def _clear_old(self) -> None:
        """Remove what nobody has used for a week: states of older kernels, scripts and shapes."""
        oldest = time.time() - UNUSED_DAYS * 86400
        for entry in self._directory.iterdir():
            if entry.is_dir() and not entry.name.startswith(".") and entry.stat().st_mtime < oldest:
                shutil.rmtree(entry, ignore_errors=True)


def _key(shape: Shape, parts: GuestParts) -> str:
    return hashlib.sha256(json.dumps([parts.digest, dataclasses.asdict(shape)]).encode()).hexdigest()[:24]


async def _make_disks(entry: SavedState, parts: GuestParts) -> None:
    await make_system_disk(entry.disk(0), entry.shape.sizes[0], parts=parts)
    for number, size in enumerate(entry.shape.sizes[1:], 1):
        await make_data_disk(entry.disk(number), size, label=f"data{number}")


async def _boot_and_save(entry: SavedState, boot: Boot) -> None:
    with tempfile.TemporaryDirectory(prefix="ovls-") as folder:  # short: sockets lie in it
        disks = tuple(
            DiskNode(path=entry.disk(number), format="raw", target=target_name(number), serial=f"disk{number}")
            for number in range(len(entry.shape.sizes))
        )
        memory = entry.shape.memory_mib
        spec = MachineSpec(name="guest", directory=Path(folder), memory_mib=memory, disks=disks, boot=boot)
        machine = await Machine.start(spec)
        try:
            # The console first: clones get their clock and name through it, and its programs are then in memory.
            await _must_run(machine.run_on_console(WARM_UP))
            await _must_run(machine.run(WARM_UP))
            await machine.save(entry.state)
            await machine.monitor.execute("quit")
        finally:
            await machine.stop(force=True)


async def _must_run(program: Awaitable[tuple[int, bytes, bytes]]) -> None:
    status, _, err = await program
    if status:
        raise HostError(f"a program in the guest failed: {err!r}")


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock between processes, which also a killed one lets go."""
    with path.open("wb") as lock:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise HostError(f"another process holds {path} for {LOCK_TIMEOUT:g} s") from error
                await asyncio.sleep(LOCK_POLL)
        yield


def _write_atomically(path: Path, parts: GuestParts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".initrd-", delete=False) as file:
        file.write(initramfs(parts))
    Path(file.name).replace(path)
