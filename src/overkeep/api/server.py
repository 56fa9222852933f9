# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTPS server of the API, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

import uvicorn
from fastapi import FastAPI

from overkeep.errors import ConfigError, OverkeepError
from overkeep.logs import fields

START_TIMEOUT = 15.0
STOP_TIMEOUT = 10.0
GRACE = 1.0  # seconds for calls to be answered when the server stops

_log = logging.getLogger(__name__)


class ListenFailed(OverkeepError):
    """The address of the API cannot be used."""

    code = "listen-failed"
    template = "The controller cannot listen at {address} ({reason}); free the port or correct `listen` and `port`."


class ApiServer:
    """Serves `app` at `listen` and `port` (0: any free one) while its context is entered."""

    def __init__(self, app: FastAPI, *, listen: str, port: int, cert: Path, key: Path) -> None:
        self._server = _Server(_config(app, cert, key))
        self._socket = _listen(listen, port)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="https", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._socket.getsockname()[1])

    @property
    def alive(self) -> bool:
        """Whether it still serves."""
        return self._thread.is_alive()

    def __enter__(self) -> ApiServer:
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self._socket.close()
                raise OverkeepError(reason="the HTTPS server did not start")
            time.sleep(0.01)
        _log.info("api serves %s", fields(port=self.port))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT)
        self._socket.close()


class _Server(uvicorn.Server):
    """Does not wait for clients that hold an idle connection open."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        closing = asyncio.create_task(super().shutdown(sockets))
        await asyncio.wait({closing}, timeout=GRACE)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await closing


def _config(app: FastAPI, cert: Path, key: Path) -> uvicorn.Config:
    made = uvicorn.Config(
        app,
        ssl_certfile=cert,
        ssl_keyfile=key,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    try:
        made.load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = f"it and {key} are no certificate with its key ({error}); make them with `overkeep admin init`"
        raise ConfigError(path=cert, reason=reason) from error
    return made


def _listen(listen: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    try:
        return socket.create_server((listen, port), family=family, backlog=128)
    except OSError as error:
        raise ListenFailed(address=f"{listen} port {port}", reason=error.strerror) from error
