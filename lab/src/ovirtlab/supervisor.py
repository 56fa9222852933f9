# SPDX-License-Identifier: GPL-3.0-or-later
"""The background process of a lab: brings all parts up, says so, serves, and takes them down again."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TextIO

from ovirtlab import domains, facts
from ovirtlab import environment as environments
from ovirtlab.control import Control
from ovirtlab.engine.app import Engine, create_engine
from ovirtlab.engine.context import Proxy
from ovirtlab.environment import Environment
from ovirtlab.fabric.assembly import Fabric, assembled
from ovirtlab.fabric.imageio import LOOPBACK
from ovirtlab.faults.active import ActiveFaults
from ovirtlab.faults.base import Lab
from ovirtlab.host.local import LocalHost
from ovirtlab.host.tickets import TicketClient
from ovirtlab.ledger import LAB_VARIABLE, Ledger
from ovirtlab.places import Places
from ovirtlab.serving import bind_tcp, bind_unix, serving

log = logging.getLogger(__name__)

ENGINE_PORT = 8443
ENGINE_NAME = "engine"
READY, STEP, FAILED = "ready", "step", "failed"


class Reporter:
    """Tells the one who started this process how far it is, one line an event; nobody may be listening."""

    def __init__(self, status: TextIO) -> None:
        self._status = status

    def say(self, event: str, text: str = "") -> None:
        """Write one event."""
        with contextlib.suppress(OSError, ValueError):
            self._status.write(f"{event} {' '.join(text.split())}\n")
            self._status.flush()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Report and log a step of starting with its time when it has succeeded."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        log.info("started %s in %.2f s", name, seconds)
        self.say(STEP, f"{seconds:.2f} {name}")


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    reporter = Reporter(os.fdopen(options.status_fd, "w"))
    try:
        asyncio.run(_supervise(options, reporter))
    except Exception as error:  # the outermost worker: whatever it was, the starter must be told, and the log has it
        log.exception("the lab ended")
        reporter.say(FAILED, str(error) or repr(error))
        return 1
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ovirtlab.supervisor", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--environment", type=Path)
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--vms", type=int)
    parser.add_argument("--status-fd", type=int, required=True)
    return parser.parse_args(arguments)


async def _supervise(options: argparse.Namespace, reporter: Reporter) -> None:
    """Bring the lab up and keep it until a signal comes, also when that is before it is up."""
    places = Places(options.dir)
    ledger = Ledger(places.directory)
    os.environ[LAB_VARIABLE] = ledger.lab_id
    chosen = environments.load(options.environment) if options.environment else environments.default()
    environment = environments.scaled(chosen, hosts=options.hosts, vms=options.vms)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    running = asyncio.create_task(_run(environment, places, ledger, (options.cache, reporter)))
    waiting = asyncio.create_task(ended.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    log.info("the lab is down")


async def _run(environment: Environment, places: Places, ledger: Ledger, starting: tuple[Path, Reporter]) -> None:
    cache, reporter = starting
    names = [host.name for host in environment.hosts]
    async with AsyncExitStack() as stack:
        fabric = stack.enter_context(assembled(environment, places, ledger=ledger, report=reporter.step))
        stack.enter_context(domains.mounted(environment, places, ledger))
        hosts = [await stack.enter_async_context(_host(name, fabric, places, cache)) for name in names]
        listener = bind_tcp(fabric.network.root, preferred=ENGINE_PORT)
        address = facts.EngineAddress(base_url=f"https://{fabric.network.root}:{listener.getsockname()[1]}")
        engine = create_engine(
            environment,
            hosts,
            places.directory,
            base_url=address.base_url,
            ca_pem=fabric.authority.pem,
            proxy=_proxy(fabric),
        )
        with reporter.step("Engine and VMs"):
            await stack.enter_async_context(_started(engine))
        identity = fabric.authority.issue(ENGINE_NAME, addresses=[fabric.network.root])
        await stack.enter_async_context(serving(engine.asgi, listener, identity=identity))
        lab = Lab(engine=engine, hosts={host.name: host for host in hosts}, fabric=fabric)
        control = Control(engine=engine, hosts=hosts, fabric=fabric, faults=ActiveFaults(lab))
        ledger.record("socket", places.control)
        await stack.enter_async_context(serving(control.asgi, bind_unix(places.control)))
        described = engine.describe()
        facts.write(places.facts, facts.collect(environment, fabric, places, engine=address, described=described))
        stack.callback(places.facts.unlink, missing_ok=True)
        reporter.say(READY)
        await asyncio.Event().wait()


def _proxy(fabric: Fabric) -> Proxy:
    return Proxy(port=fabric.proxy.port, tickets=TicketClient((LOOPBACK, fabric.proxy.control_port)))


@contextlib.asynccontextmanager
async def _started(engine: Engine) -> AsyncIterator[None]:
    try:
        await engine.start()
        yield
    finally:
        await engine.stop()


@contextlib.asynccontextmanager
async def _host(name: str, fabric: Fabric, places: Places, cache: Path) -> AsyncIterator[LocalHost]:
    daemon = fabric.imageio[name]
    host = LocalHost(
        name=name,
        id=facts.host_id(name),
        address=daemon.address,
        imageio_port=daemon.port,
        directory=places.host(name),
        control_socket=daemon.control_socket,
        netns=fabric.network.host_netns[name],
        cache=cache,
    )
    try:
        yield host
    finally:
        await host.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
