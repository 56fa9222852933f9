# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine on hosts in memory, inside this process: no root, no QEMU, up in a fraction of a second.

All calls of the REST interface work, and disks are remembered; but no byte of them exists, and none can be transferred.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ovirtlab import environment as environments
from ovirtlab.engine.app import Engine, create_engine
from ovirtlab.environment import Environment
from ovirtlab.facts import host_id
from ovirtlab.faults.active import ActiveFaults, Cleared
from ovirtlab.faults.base import FaultError, Lab
from ovirtlab.faults.client import AnyFaults
from ovirtlab.host.api import HostError
from ovirtlab.host.memory import MemoryHost, Storage
from ovirtlab.remote import LabError
from ovirtlab.serving import bind_tcp, serving

T = TypeVar("T")

ADDRESS = "127.0.0.1"
LIMIT = 30.0
TIME_SCALE = 20.0
_NO_CA = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"


@dataclass(frozen=True)
class EngineLab:
    """A served engine: `url` is that of its API, over plain HTTP."""

    url: str
    username: str
    password: str
    engine: Engine
    loop: asyncio.AbstractEventLoop
    faults: EngineFaults

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the engine's own loop, as all that touches its state must."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(LIMIT)


class EngineFaults(AnyFaults):
    """The faults of an engine alone; those of hosts, networks and daemons are refused."""

    def __init__(self, active: ActiveFaults, loop: asyncio.AbstractEventLoop) -> None:
        self._active = active
        self._loop = loop

    def do(self, name: str, **parameters: Any) -> str:
        return self._run(self._active.do(name, parameters))

    def active(self) -> list[dict[str, Any]]:
        return self._active.status()

    def mend(self, which: str = "") -> Cleared:
        return self._run(self._active.clear(which))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT)
        except (FaultError, HostError) as error:
            raise LabError(str(error)) from error


@contextlib.contextmanager
def served(environment: Environment | None = None) -> Iterator[EngineLab]:
    """Serve an engine until the block ends; without an environment the default one at twenty times its speed."""
    chosen = environment or dataclasses.replace(environments.default(), time_scale=TIME_SCALE)
    with tempfile.TemporaryDirectory(prefix="ovl-") as directory:
        ready: Future[tuple[EngineLab, asyncio.Event]] = Future()
        thread = threading.Thread(target=_work, args=(chosen, Path(directory), ready), name="ovirtlab engine")
        thread.start()
        lab, ended = ready.result(LIMIT)
        try:
            yield lab
        finally:
            lab.loop.call_soon_threadsafe(ended.set)
            thread.join(LIMIT)


def _work(environment: Environment, directory: Path, ready: Future[tuple[EngineLab, asyncio.Event]]) -> None:
    try:
        asyncio.run(_serve(environment, directory, ready))
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)


async def _serve(environment: Environment, directory: Path, ready: Future[tuple[EngineLab, asyncio.Event]]) -> None:
    storage, ended = Storage(), asyncio.Event()
    hosts = [MemoryHost(name=plan.name, id=host_id(plan.name), storage=storage) for plan in environment.hosts]
    listener = bind_tcp(ADDRESS, preferred=0)
    base_url = f"http://{ADDRESS}:{listener.getsockname()[1]}"
    engine = create_engine(environment, hosts, directory, base_url=base_url, ca_pem=_NO_CA)
    await engine.start()
    try:
        async with serving(engine.asgi, listener):
            described = engine.describe()
            loop = asyncio.get_running_loop()
            faults = EngineFaults(ActiveFaults(Lab(engine=engine, hosts={}, fabric=None)), loop)
            lab = EngineLab(described["url"], described["username"], described["password"], engine, loop, faults)
            ready.set_result((lab, ended))
            await ended.wait()
    finally:
        await engine.stop()
