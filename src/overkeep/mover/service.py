# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole mover put together from its settings: table, queue, copier and HTTPS server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

import uvicorn

from overkeep import __version__
from overkeep.config import MoverConfig
from overkeep.errors import ConfigError, OverkeepError
from overkeep.logs import fields
from overkeep.mover.bookkeeping import Bookkeeper
from overkeep.mover.checking import SelfCheck
from overkeep.mover.copying import Copier
from overkeep.mover.executing import Executor
from overkeep.mover.imageio import Imageio
from overkeep.mover.orders import Result
from overkeep.mover.probing import Prober
from overkeep.mover.queue import Limits, OrderQueue
from overkeep.mover.server import LooksAtHost, OrderServer
from overkeep.mover.signing import Verifier, load_public_key
from overkeep.mover.table import OrderTable
from overkeep.mover.targets import Targets
from overkeep.mover.work import Work
from overkeep.repository.mounts import Mounts

START_TIMEOUT = 15.0
GRACE = 1.0  # seconds for calls to be answered when the mover stops
WAITING = 64  # orders that may wait beside those that run
STOP_TIMEOUT = 20.0  # seconds for running copies to end; below the 90 s after which systemd kills

log = logging.getLogger(__name__)


class ListenFailed(OverkeepError):
    """The address of the mover cannot be used."""

    code = "listen-failed"
    template = "The mover cannot listen at {address} ({reason}); free the port or correct `listen` and `port`."


class MoverService:
    """A mover that runs while its context is entered.

    `execute` replaces the copier in tests of everything around it.
    """

    def __init__(self, config: MoverConfig, *, execute: Callable[[Work], Result] | None = None) -> None:
        self._config = config
        self._mounts = Mounts(config.target, host=config.host)
        self._execute = execute
        self._stack = contextlib.ExitStack()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    @property
    def alive(self) -> bool:
        """Whether the server still serves."""
        return self._thread is not None and self._thread.is_alive()

    def __enter__(self) -> MoverService:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def try_mounts(self) -> None:
        """Mount all targets; one that fails is logged and tried again by the first order that needs it."""
        for name in sorted(self._mounts.names):
            try:
                self._mounts.ensure(name)
            except OverkeepError as error:
                log.warning("target unavailable %s", fields(target=name, code=error.code, error=repr(str(error))))

    def _imageio(self) -> Imageio:
        config = self._config
        return Imageio(control=config.imageio_control_socket, local=config.imageio_local_socket)

    def _executor(self, table: OrderTable) -> Callable[[Work], Result]:
        targets = Targets(self._mounts)
        return Executor(Copier(self._imageio(), targets, finished_fence=table.finished_fence), Bookkeeper(targets)).run

    def _start(self, stack: contextlib.ExitStack) -> None:
        config = self._config
        key = load_public_key(config.controller_key_file)
        table = OrderTable(config.state_dir / "orders.sqlite", host=config.host)
        stack.callback(table.close)
        limits = Limits(at_once=config.orders_at_once, waiting=WAITING)
        execute = self._execute or self._executor(table)
        queue = OrderQueue(table, execute, host=config.host, limits=limits)
        verifier = Verifier(key, host=config.host, nonces=table)
        looks = LooksAtHost(
            check=SelfCheck(self._imageio(), self._mounts, cert_file=config.cert_file).run,
            probe=Prober(self._mounts).run,
        )
        orders = OrderServer(queue, verifier, host=config.host, targets=self._mounts.names, looks=looks)
        server = _Server(_uvicorn_config(config, orders), queue)
        self._socket = _listen(config)
        stack.callback(self._socket.close)
        queue.start()
        self._thread = threading.Thread(target=server.run, args=([self._socket],), name="https", daemon=True)
        stack.callback(self._stop, server, queue)
        self._thread.start()
        _wait_started(server, self._thread)
        log.info("mover serves %s", fields(host=config.host, port=self.port, version=__version__))

    def _stop(self, server: _Server, queue: OrderQueue) -> None:
        server.should_exit = True
        if not queue.stop(timeout=STOP_TIMEOUT):
            log.error("a copy did not end %s", fields(seconds=STOP_TIMEOUT))
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT)
        log.info("mover stopped %s", fields(host=self._config.host))


class _Server(uvicorn.Server):
    """Wakes long polls before it waits for the connections to end; `run` outside the main thread sets no signals."""

    def __init__(self, config: uvicorn.Config, queue: OrderQueue) -> None:
        super().__init__(config)
        self._queue = queue

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._queue.refuse()
        closing = asyncio.create_task(super().shutdown(sockets))
        await asyncio.wait({closing}, timeout=GRACE)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()  # an idle client does not answer the goodbye of TLS
        await closing


def _uvicorn_config(config: MoverConfig, orders: OrderServer) -> uvicorn.Config:
    made = uvicorn.Config(
        orders.app,
        ssl_certfile=config.cert_file,
        ssl_keyfile=config.key_file,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=256,
        timeout_graceful_shutdown=5,
    )
    try:
        made.load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = f"it and {config.key_file} are no certificate with its key ({error})"
        raise ConfigError(path=config.cert_file, reason=reason) from error
    return made


def _listen(config: MoverConfig) -> socket.socket:
    address = (config.listen, config.port)
    family = socket.AF_INET6 if ":" in config.listen else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=128)
    except OSError as error:
        raise ListenFailed(address=f"{config.listen} port {config.port}", reason=error.strerror) from error


def _wait_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise OverkeepError(reason="the HTTPS server did not start")
        time.sleep(0.01)
