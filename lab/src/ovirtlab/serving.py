# SPDX-License-Identifier: GPL-3.0-or-later
"""ASGI applications served inside the supervisor's event loop, on sockets that it has bound itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from ovirtlab.fabric.pki import Identity

BACKLOG = 128
STEP = 0.01


class _Server(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind_tcp(address: str, *, preferred: int) -> socket.socket:
    """Listen at `preferred`, or at any free port when that is taken."""
    for port in (preferred, 0):
        # asyncio sends small packets at once only on sockets that say they are TCP; else each answer waits 40 ms until
        # the client acknowledges its head
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            listener.close()
            if port == 0:
                raise
            continue
        return listener
    raise AssertionError("unreachable")


def bind_unix(path: Path) -> socket.socket:
    """Listen on a unix socket that only its owner may use; one that was left behind is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


@contextlib.asynccontextmanager
async def serving(app: Any, listener: socket.socket, *, identity: Identity | None = None) -> AsyncIterator[None]:
    """Serve `app` (over TLS with an `identity`) until the block is left; running requests get a moment to end."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        backlog=BACKLOG,
        timeout_graceful_shutdown=3,
        ssl_keyfile=None if identity is None else str(identity.key),
        ssl_certfile=None if identity is None else str(identity.certificate),
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not task.done():
            await asyncio.sleep(STEP)
        if task.done():
            await task
            raise RuntimeError("the server ended before it began to serve")
        yield
    finally:
        server.should_exit = True
        await task
        listener.close()
