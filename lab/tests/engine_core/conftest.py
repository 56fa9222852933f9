# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine on memory hosts behind a real HTTP server on the loopback, for tests that use the SDK."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import ovirtsdk4
import pytest
import uvicorn

from ovirtlab.engine.app import Engine, create_engine
from ovirtlab.environment import Environment, parse
from ovirtlab.host.api import HostError
from ovirtlab.host.memory import MemoryHost, Storage

T = TypeVar("T")

ENVIRONMENT = """
hosts:
  - name: host1
  - name: host2
storage_domains:
  - name: data
  - name: data2
username: admin@internal
password: secret
time_scale: 20
vms:
  - name: web
    host: host1
    guest: linux
    disks:
      - {name: web_system, size: 64 MiB, backup: incremental}
      - {name: web_data, size: 32 MiB, format: raw}
  - name: db
    host: host2
    running: false
    disks:
      - {name: db_system, size: 16 MiB, backup: incremental}
"""
CA = "-----BEGIN CERTIFICATE-----\nbGFi\n-----END CERTIFICATE-----\n"
DEADLINE = 90.0


class Hold:
    """Calls of a host's verb that wait; `calls` is how many have come, after the end too."""

    def __init__(self, *, failing: bool) -> None:
        self.failing = failing
        self.calls = 0
        self.over = asyncio.Event()

    def before(self, verb: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
        async def wait(*args: Any, **kwargs: Any) -> T:
            self.calls += 1
            await self.over.wait()
            if self.failing:
                raise HostError("the host has failed")
            return await verb(*args, **kwargs)

        return wait


@dataclass
class Lab:
    """A served engine; `run` runs a coroutine in its event loop, `call` a function."""

    engine: Engine
    hosts: tuple[MemoryHost, MemoryHost]
    url: str
    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def connect(self, login: str = "admin@internal", password: str = "secret") -> ovirtsdk4.Connection:
        return ovirtsdk4.Connection(url=f"{self.url}/ovirt-engine/api", username=login, password=password)

    def vm_id(self, name: str) -> str:
        return self.engine.find_vm(name)[0]

    def disk_id(self, alias: str) -> str:
        return next(disk.id for disk in self.engine.state.disks.values() if disk.alias == alias)

    def http(self) -> httpx.Client:
        """A plain client, logged in with name and password, below the API."""
        return httpx.Client(base_url=f"{self.url}/ovirt-engine/api/", auth=("admin@internal", "secret"))

    def wait(self, condition: Callable[[], object]) -> None:
        """Poll until the condition holds."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, "the condition did not come true in time"
            time.sleep(0.01)

    @contextmanager
    def hold(self, verb: str, *, failing: bool = False) -> Iterator[Hold]:
        """Let calls of a verb of the hosts wait until the end of the block; then they are done, or fail."""
        hold = Hold(failing=failing)
        for host in self.hosts:
            setattr(host, verb, hold.before(getattr(host, verb)))
        try:
            yield hold
        finally:
            for host in self.hosts:
                delattr(host, verb)
            self.loop.call_soon_threadsafe(hold.over.set)

    def codes(self) -> list[int]:
        """The codes of all events, oldest first."""
        return [event.code for event in self.engine.state.events]


@contextmanager
def serve(directory: Path, environment: Environment | None = None) -> Iterator[Lab]:
    """Run an engine until the end of the block; nothing is left behind."""
    environment = environment or parse(ENVIRONMENT, origin="test")
    storage = Storage()
    hosts = tuple(
        MemoryHost(name=plan.name, id=f"00000000-0000-4000-8000-00000000000{number}", storage=storage)
        for number, plan in enumerate(environment.hosts, start=1)
    )
    server = uvicorn.Server(uvicorn.Config(_nothing, port=0, log_level="warning", lifespan="off"))
    ready = threading.Event()
    over = asyncio.Event()
    made: dict[str, Any] = {}

    async def main() -> None:
        made["loop"] = asyncio.get_running_loop()
        engine = create_engine(environment, hosts, directory, base_url="http://127.0.0.1", ca_pem=CA)
        made["engine"] = engine
        await engine.start()
        server.config.app = engine.asgi
        await open_server(server)
        made["port"] = server.servers[0].sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        await close_server(server)
        await engine.stop()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        if not ready.wait(DEADLINE):
            raise TimeoutError("the engine did not start")
        yield Lab(made["engine"], (hosts[0], hosts[1]), f"http://127.0.0.1:{made['port']}", made["loop"])
    finally:
        with suppress(RuntimeError):  # the loop has ended already, with an error
            made["loop"].call_soon_threadsafe(over.set)
        thread.join(DEADLINE)


async def open_server(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
    """Let it listen; it serves for as long as the event loop runs."""
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=sockets)
    await server.on_tick(0)


async def close_server(server: uvicorn.Server) -> None:
    """What `Server.main_loop` and `Server.shutdown` do at the end, without their sleeps: hundreds of tests do it."""
    for listener in server.servers:
        listener.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()
    while server.server_state.connections or server.server_state.tasks:
        await asyncio.sleep(0.001)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with serve(tmp_path) as running:
        yield running


@pytest.fixture
def system(lab: Lab) -> Iterator[Any]:
    """The SDK's system service, logged in as the administrator."""
    connection = lab.connect()
    yield connection.system_service()
    connection.close()


@pytest.fixture
def http(lab: Lab) -> Iterator[httpx.Client]:
    with lab.http() as client:
        yield client


async def _nothing(scope: object, receive: object, send: object) -> None:
    raise AssertionError("the engine's application takes this place before the first request")
