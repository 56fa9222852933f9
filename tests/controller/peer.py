# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller in a process of its own, at a site of `tests.controller.site`."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from overkeep import logs
from overkeep.config import WatchedTarget
from overkeep.controller.background.dispatcher import QUEUES, Dispatcher
from overkeep.controller.background.fence import fenced
from overkeep.controller.background.janitor import Janitor
from overkeep.controller.background.peers import Peers
from overkeep.controller.durable import Durable
from overkeep.controller.guard import Guard
from overkeep.controller.ports import Ports
from overkeep.controller.service import Controller, make_durable
from overkeep.controller.store import Store
from overkeep.controller.targets.configured import Targets
from tests.controller.twins import Remote
from tests.controller.world import HASTE, OneMover
from tests.postgres import driver

TTL = 6.0  # seconds: on a busy machine a controller that lives may be silent for two
PATIENCE = dataclasses.replace(HASTE, ready=20.0, retry=5.0, release=20.0, lease=30.0)


def main(folder: Path, url: str, *, ready: Callable[[], None], ttl: float = TTL) -> None:
    """Work until SIGTERM; `ready` is called once it does."""
    logs.setup("INFO")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if url.startswith("postgresql"):
        store = Store(driver(url))
        durable = Durable(folder, queues=QUEUES, url=url, shared=True)
        take_up, stopping = durable.take_up, durable.stopping
        peers = Faint(store.controllers, durable.executor_id, take_up=take_up, stopping=stopping, ttl=ttl)
        peers.silent = folder / f"silent-{os.getpid()}"
        with peers:
            _work(fenced(_ports(folder, store, durable), peers.fence), durable, stop, ready)
    else:
        with Guard(folder):
            store = Store(url)
            durable = Durable(folder, queues=QUEUES)
            _work(_ports(folder, store, durable), durable, stop, ready)
    store.close()


class Faint(Peers):
    """One whose beats do not come through while there is a file `silent`: it lives, and nobody hears of it."""

    silent = Path("/nonexistent")

    def beat(self) -> None:
        while self.silent.exists():
            time.sleep(0.05)
        super().beat()


def _ports(folder: Path, store: Store, durable: Durable) -> Ports:
    return Ports(
        engine=Remote(folder / "twins", "engine"),
        targets=Targets((WatchedTarget(name="nfs1", kind="path", mountpoint=folder / "target"),), store, patience=5),
        movers=OneMover({"host-1": Remote(folder / "twins", "mover", values=("host",))}),
        store=store,
        patience=PATIENCE,
        stopping=durable.stopping,
    )


def _work(ports: Ports, durable: Durable, stop: threading.Event, ready: Callable[[], None]) -> None:
    make_durable(ports, durable)
    durable.start()
    dispatcher, janitor = Dispatcher(ports, durable), Janitor(Controller(ports), durable, every=2.0)
    dispatcher.start()
    janitor.start()
    ready()
    stop.wait()
    durable.stopping.set()
    janitor.stop()
    dispatcher.stop()
    durable.stop(10)
