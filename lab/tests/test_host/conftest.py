# SPDX-License-Identifier: GPL-3.0-or-later
"""A real host on this machine for each test, which must leave no process and no socket behind."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ovirtlab.host.api import VmDefinition, VmDisk
from ovirtlab.host.local import LocalHost


def processes_of(directory: Path) -> list[str]:
    """Command lines of running processes that name `directory`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:
            continue
        if str(directory).encode() in line:
            found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


class Bench:
    """A host's folder, and what tests do with it again and again."""

    def __init__(self, directory: Path, cache: Path) -> None:
        self.directory = directory
        self.cache = cache
        self.control_socket = directory / "control"

    @asynccontextmanager
    async def host(self, name: str = "host1", netns: str | None = None):
        host = LocalHost(
            name=name,
            id=name,
            address="127.0.0.1",
            imageio_port=0,
            directory=self.directory / name,
            control_socket=self.control_socket,
            netns=netns,
            cache=self.cache,
        )
        try:
            yield host
        finally:
            await host.close()
            assert not list((self.directory / name).rglob("*.sock"))

    def processes(self) -> list[str]:
        return processes_of(self.directory)

    def path(self, name: str) -> Path:
        return self.directory / name

    def disk(self, target: str = "vda", fmt: str = "qcow2") -> VmDisk:
        return VmDisk(disk_id=f"disk-{target}", path=self.path(f"{target}.{fmt}"), format=fmt, target=target)

    def definition(self, *disks: VmDisk, **fields) -> VmDefinition:
        return VmDefinition(**{"vm_id": "vm1", "name": "one, two", "memory_mib": 128, "disks": disks} | fields)


@pytest.fixture
def bench(guest_cache: Path) -> Iterator[Bench]:
    # tmp_path is too long for Unix sockets
    directory = Path(tempfile.mkdtemp(prefix="ovlh-"))
    try:
        yield Bench(directory, guest_cache)
        assert processes_of(directory) == []
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def guest_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of saved states for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "guests"


@pytest.fixture
def run():
    """Run a coroutine with a deadline."""

    def runner(coroutine, seconds: float = 90):
        async def limited():
            async with asyncio.timeout(seconds):
                return await coroutine

        return asyncio.run(limited())

    return runner
