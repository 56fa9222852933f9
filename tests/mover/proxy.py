# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy before an NBD server: it counts connections and bytes, and breaks a connection or spoils data on demand."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

_PIECE = 256 * 1024
_DATA = 16 * 1024


class NbdProxy:
    """Listens at `path` and passes everything on to the server at `server`, both unix sockets.

    `most` is the greatest number of connections that were open at once, `opened` the number of all; `sent` and
    `received` are the bytes that clients sent and got. `break_after` breaks the connection on which the bytes of the
    answers reach that number, once.
    """

    def __init__(self, path: Path, server: Path) -> None:
        self.url = f"nbd:unix:{path}"
        self.most = self.opened = self.sent = self.received = self.broken = 0
        self._open = 0
        self._break_at: int | None = None
        self._armed_at: int | None = None
        self._count_of_break = 0
        self._spoiling = False
        self._only_writers = False
        self._writers: set[socket.socket] = set()
        self._server = server
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(32)
        self._start(self._accept)

    def break_after(self, count: int, *, sent: int = 0) -> None:
        """Break one connection when `count` more bytes were answered, counted once clients sent `sent` more.

        With `sent` it is one on which data were sent: a client that is not greeted can do without a connection.
        """
        with self._lock:
            self._break_at = None if sent else self.received + count
            self._armed_at, self._count_of_break = (self.sent + sent, count) if sent else (None, 0)
            self._only_writers = bool(sent)

    def spoil(self) -> None:
        """Change one byte of the next data that a client sends."""
        with self._lock:
            self._spoiling = True

    def close(self) -> None:
        """End everything."""
        for sock in (self._listener, *self._sockets):
            _end(sock)
        for thread in self._threads:
            thread.join(90)
        for sock in (self._listener, *self._sockets):
            sock.close()

    def _start(self, body: object, *args: object) -> threading.Thread:
        thread = threading.Thread(target=body, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server))
            with self._lock:
                self._sockets += [client, server]
                self._open += 1
                self.opened += 1
                self.most = max(self.most, self._open)
            self._start(self._serve, client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        requests = self._start(self._pass_on, client, server, True)
        self._pass_on(server, client, False)
        requests.join(90)
        with self._lock:
            self._open -= 1

    def _pass_on(self, source: socket.socket, sink: socket.socket, request: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                if self._count(len(piece), client=source if request else sink, request=request):
                    break
                sink.sendall(self._spoiled(piece) if request else piece)
        for sock in (source, sink):
            _end(sock)

    def _spoiled(self, piece: bytes) -> bytes:
        with self._lock:
            if not self._spoiling or len(piece) < _DATA:
                return piece
            self._spoiling = False
        middle = len(piece) // 2  # requests are short, so this is within the data of one
        return piece[:middle] + bytes([piece[middle] ^ 1]) + piece[middle + 1 :]

    def _count(self, count: int, *, client: socket.socket, request: bool) -> bool:
        """Count what passes; whether the connection is to be broken now."""
        with self._lock:
            if request:
                self.sent += count
                if count >= _DATA:
                    self._writers.add(client)
                if self._armed_at is not None and self.sent >= self._armed_at:
                    self._armed_at, self._break_at = None, self.received + self._count_of_break
                return False
            self.received += count
            if self._break_at is None or self.received < self._break_at:
                return False
            if self._only_writers and client not in self._writers:
                return False
            self._break_at = None
            self.broken += 1
            return True


def _end(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
