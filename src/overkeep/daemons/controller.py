# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-controller`: the central service, from its settings file to its clean end."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from overkeep import __version__, config, logs
from overkeep.api.app import create_app
from overkeep.api.asked import Backend
from overkeep.api.server import ApiServer
from overkeep.config import ControllerConfig
from overkeep.controller.background.capacity_watch import CapacityWatch
from overkeep.controller.background.catalogue import Catalogue
from overkeep.controller.background.couriers import Courier
from overkeep.controller.background.dispatcher import QUEUES, Dispatcher
from overkeep.controller.background.fence import fenced
from overkeep.controller.background.janitor import Janitor
from overkeep.controller.background.manager_log import ManagerLog
from overkeep.controller.background.mover_watch import MoverWatch
from overkeep.controller.background.peers import Peers
from overkeep.controller.background.scheduler import Scheduler
from overkeep.controller.background.thawer import Thawer
from overkeep.controller.databases import Databases
from overkeep.controller.durable import Durable
from overkeep.controller.events import Draft, Kind
from overkeep.controller.guard import Guard
from overkeep.controller.inspection import Inspection, Surroundings, account_login
from overkeep.controller.movers.directory import MoverDirectory
from overkeep.controller.movers.enrolment import Pki
from overkeep.controller.ports import Patience, Ports
from overkeep.controller.service import Controller, make_durable
from overkeep.controller.store import SLOTS, Store
from overkeep.controller.targets.configured import Targets
from overkeep.controller.targets.target import Target
from overkeep.daemons import garbage
from overkeep.daemons.signals import stop_signals
from overkeep.engine.access import OvirtAccess
from overkeep.engine.ovirt.engine import OvirtEngine
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.model.admission import ResourceKind
from overkeep.mover.signing import load_private_key

DEFAULT_CONFIG = Path("/etc/overkeep/controller.toml")

_log = logging.getLogger(__name__)


def run() -> None:
    """Entry point; ends the process with the status of `main`."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT. Returns 0 after a clean stop, 1 when the server broke, 2 for bad settings."""
    options = _parser().parse_args(arguments)
    try:
        settings = config.load(ControllerConfig, options.config)
        logs.setup(settings.log_level)
        with stop_signals() as signals, serving(settings) as server:
            while not signals.wait(1.0):
                if not server.alive:
                    _log.error("controller broke %s", fields(reason="the HTTPS server ended"))
                    return 1
            _log.info("controller stops; jobs go on at the next start")
    except OverkeepError as error:
        print(f"overkeep-controller: {error}", file=sys.stderr)  # noqa: T201 - a terminal or the journal reads it
        return 2
    return 0


@contextmanager
def serving(settings: ControllerConfig) -> Iterator[ApiServer]:
    """Put the controller together, take up unfinished jobs, and serve the API; the reverse on the way out."""
    pki = Pki(folder=settings.pki_dir)
    with ExitStack() as stack:
        stack.enter_context(Guard(settings.state_dir))
        databases = Databases.of(settings)
        slots = {**SLOTS, ResourceKind.TOTAL: settings.parallel_vms}
        store = Store(databases.store, slots=slots)
        stack.callback(store.close)
        engine = OvirtEngine(settings.engine)
        stack.callback(engine.close)
        movers = MoverDirectory(engine, config=settings, ca_file=pki.ca_cert, key=load_private_key(pki.order_key))
        stack.callback(movers.close)
        access = OvirtAccess(settings.engine.url, settings.engine.ca_file)
        stack.callback(access.close)
        durable = Durable(settings.state_dir, queues=QUEUES, url=databases.jobs, shared=databases.shared)
        ports = Ports(
            engine=engine,
            targets=Targets(settings.target, store),
            movers=movers,
            store=store,
            patience=Patience(lease=settings.order_lease),
            stopping=durable.stopping,
        )
        if databases.shared:
            ports = _among_peers(ports, durable, stack)
        thawer = Thawer(ports, alone=not databases.shared)
        thawer.start()
        stack.callback(thawer.stop)
        controller = _start(ports, durable, stack)
        _tell_of_service(store, stack)
        courier = Courier(store, ManagerLog(engine))
        courier.start()
        stack.callback(courier.stop)
        dispatcher = Dispatcher(ports, durable)
        dispatcher.start()
        stack.callback(dispatcher.stop)
        catalogue = Catalogue(ports, alone=not databases.shared)
        catalogue.start()
        stack.callback(catalogue.stop)
        janitor = Janitor(controller, durable, kept=settings.events)
        janitor.start()
        stack.callback(janitor.stop)
        capacity = CapacityWatch(ports)
        capacity.start()
        stack.callback(capacity.stop)
        watch = MoverWatch(controller)
        watch.start()
        stack.callback(watch.stop)
        scheduler = Scheduler(controller)
        scheduler.start()
        stack.callback(scheduler.stop)
        around = Surroundings(
            settings=settings, engine=engine, access=access, movers=movers, log_in=account_login(settings)
        )
        app = create_app(Backend(controller=controller, access=access, janitor=janitor, inspect=Inspection(around).run))
        server = ApiServer(app, listen=settings.listen, port=settings.port, cert=pki.api_cert, key=pki.api_key)
        stack.enter_context(server)
        garbage.settle()
        stack.callback(durable.stopping.set)  # first of all: it also ends the calls that wait for news
        yield server


def _among_peers(ports: Ports, durable: Durable, stack: ExitStack) -> Ports:
    """Join the other controllers on the data base; return the world behind this one's fence."""
    controllers = ports.store.controllers
    peers = Peers(controllers, durable.executor_id, take_up=durable.take_up, stopping=durable.stopping)
    stack.enter_context(peers)
    return fenced(ports, peers.fence)


def _tell_of_service(store: Store, stack: ExitStack) -> None:
    fields = {"version": __version__}
    store.events.add(
        Draft(kind=Kind.CONTROLLER_STARTED, text=f"The controller {__version__} began to serve", fields=fields)
    )
    stack.callback(store.events.add, Draft(kind=Kind.CONTROLLER_STOPPED, text="The controller was stopped"))


def _start(ports: Ports, durable: Durable, stack: ExitStack) -> Controller:
    """Start the job engine, which goes on with what it finds; the targets are mounted beside it.

    A dead NFS server holds the mount command for minutes, and no user should wait that long for an answer.
    """
    make_durable(ports, durable)
    durable.start()
    stack.callback(durable.stop)
    for target in ports.targets:
        threading.Thread(target=_mount, args=(target,), name=f"mount-{target.name}", daemon=True).start()
    _log.info("controller started %s", fields(version=__version__, executor=durable.executor_id))
    return Controller(ports)


def _mount(target: Target) -> None:
    try:
        target.ready()
    except OverkeepError as error:
        _log.warning("target unavailable %s", fields(target=target.name, code=error.code, error=repr(str(error))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="overkeep-controller", description="The central service of Overkeep.")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--version", action="version", version=f"overkeep-controller {__version__}")
    return parser
