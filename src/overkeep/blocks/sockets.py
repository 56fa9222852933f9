# SPDX-License-Identifier: GPL-3.0-or-later
"""The sockets of an end and all its clones, to break off from another thread whatever waits for an answer on them."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Sockets:
    """Connected sockets that can be broken all at once, for good. Safe for several threads."""

    def __init__(self) -> None:
        self._open: set[socket.socket] = set()
        self._interrupted = False
        self._lock = threading.Lock()

    def add(self, sock: socket.socket) -> None:
        """Keep a socket that has just been connected; it is broken at once after an interrupt."""
        with self._lock:
            self._open.add(sock)
            if self._interrupted:
                _break(sock)

    def remove(self, sock: socket.socket) -> None:
        """Forget a socket that is about to be closed."""
        with self._lock:
            self._open.discard(sock)

    def interrupt(self) -> None:
        """Break all of them, now and later."""
        with self._lock:
            self._interrupted = True
            for sock in self._open:
                _break(sock)


def _break(sock: socket.socket) -> None:
    with suppress(OSError):  # the other side has closed it already
        sock.shutdown(socket.SHUT_RDWR)
