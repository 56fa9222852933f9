# SPDX-License-Identifier: GPL-3.0-or-later
"""NFSv3 calls on a pool of libnfs connections: parallel, reconnecting, hard or soft, with true error numbers."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ovirtlab.fabric.nfsfuse import libnfs
from ovirtlab.fabric.nfsfuse.status import errno_of

# A call that took this long on a hard mount gets a new connection and is sent again, as the kernel does (timeo=600).
HARD_PATIENCE = 60.0
RETRY_PAUSE = 0.3
WATCH_STEP = 0.25

log = logging.getLogger(__name__)

Act = Callable[[int], int]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is mounted, and how long to insist: `patience` in seconds is the limit of one call of a soft mount."""

    server: str
    path: str
    port: int = 0  # 0: ask the portmapper
    mount_port: int = 0
    hard: bool = True
    patience: float = HARD_PATIENCE
    connections: int = 8

    @property
    def url(self) -> str:
        """The URL as libnfs wants it; reconnecting is ours, as its own spins while the server is away."""
        ports = "".join(
            f"&{name}={value}" for name, value in (("nfsport", self.port), ("mountport", self.mount_port)) if value
        )
        return f"nfs://{self.server}{self.path}?version=3&autoreconnect=0&dircache=0{ports}"


@dataclass(frozen=True)
class Caller:
    """Whose rights a call uses on the server (AUTH_SYS)."""

    uid: int
    gid: int


class ConnectionLost(OSError):
    """No server answered; what libnfs said is in `strerror`."""


class Session:
    """One libnfs context, used by one thread at a time."""

    def __init__(self, library: Any, export: Export) -> None:
        self._library = library
        self._context = library.nfs_init_context()
        self._url = export.url
        self.server_path = export.path
        self.since = 0.0  # when the running call began; 0 for none

    def connect(self) -> None:
        """Mount the export; raise `ConnectionLost`, or `OSError` when the server refuses."""
        url = self._library.nfs_parse_url_dir(self._context, self._url.encode())
        if not url:
            raise OSError(errno.EINVAL, self.error().decode(errors="replace"))
        try:
            self.since = time.monotonic()
            result = self._library.nfs_mount(self._context, url.contents.server, url.contents.path)
        finally:
            self.since = 0.0
            self._library.nfs_destroy_url(url)
        if result < 0:
            raise self._refusal(result)

    def _refusal(self, result: int) -> OSError:
        text = self.error().decode(errors="replace")
        if "MNT3ERR_" in text:
            return OSError(-result, text)
        return ConnectionLost(errno.EIO, text)

    def run(self, act: Act, caller: Caller) -> int:
        """Do `act` with the rights of `caller`; raise `ConnectionLost`, or `OSError` with the server's error."""
        self._library.nfs_set_uid(self._context, caller.uid)
        self._library.nfs_set_gid(self._context, caller.gid)
        try:
            self.since = time.monotonic()
            result = act(self._context)
        finally:
            self.since = 0.0
        if result >= 0:
            return result
        text = self.error()
        number = errno_of(result, text)
        if number is None:
            raise ConnectionLost(errno.EIO, text.decode(errors="replace"))
        raise OSError(number, os.strerror(number))

    def error(self) -> bytes:
        """Return what libnfs last said."""
        return bytes(self._library.nfs_get_error(self._context) or b"")

    def interrupt(self) -> None:
        """Break the connection from another thread, so that the running call fails."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._descriptor())) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """Close the connection and leave the context alone.

        After a lost connection libnfs may still hold calls whose answers go to a stack frame that is gone, and
        destroying the context would write there. It is left to leak: a few KiB, and the data of one write.
        """
        with contextlib.suppress(OSError):
            os.close(self._descriptor())

    def close(self) -> None:
        """Free a context on which no call is under way."""
        self._library.nfs_destroy_context(self._context)

    def _descriptor(self) -> int:
        return int(self._library.nfs_get_fd(self._context))


class Client:
    """A pool of sessions on one export. Every call may be made from any thread."""

    def __init__(self, export: Export, *, library: Any = None) -> None:
        self.export = export
        self.library = library or libnfs.load()
        self._idle: list[Session] = []
        self._all: set[Session] = set()
        self._changed = threading.Condition()
        self._watch: threading.Thread | None = None

    def connect(self) -> None:
        """Open the first session, so that a wrong server or export shows at once; raise `OSError`."""
        self._give_back(self._borrow())

    def start_watching(self) -> None:
        """Start the thread that breaks calls which take too long; needs to run in the process that serves."""
        self._watch = threading.Thread(target=self._watch_sessions, name="nfs-watch", daemon=True)
        self._watch.start()

    def call(self, act: Act, caller: Caller) -> int:
        """Do `act` on a session, again after a lost connection: for ever when hard, else until patience ends.

        An act that was not idempotent and whose answer was lost may report EEXIST or ENOENT when sent again, as
        with any NFSv3 client whose server restarted. Raises `OSError`; EIO when patience ended.
        """
        deadline = time.monotonic() + self.export.patience
        while True:
            try:
                return self._attempt(act, caller)
            except OSError as error:
                # EAGAIN is NFS3ERR_JUKEBOX: the server asks to come back later
                again = isinstance(error, ConnectionLost) or error.errno == errno.EAGAIN
                if not again or (not self.export.hard and time.monotonic() >= deadline):
                    raise
                log.debug("again in %g s: %s", RETRY_PAUSE, error)
                time.sleep(RETRY_PAUSE)

    def _attempt(self, act: Act, caller: Caller) -> int:
        session = self._borrow()
        try:
            result = session.run(act, caller)
        except ConnectionLost:
            self._drop(session)
            raise
        except OSError:
            self._give_back(session)
            raise
        self._give_back(session)
        return result

    def _borrow(self) -> Session:
        with self._changed:
            while not self._idle and len(self._all) >= self.export.connections:
                self._changed.wait()
            if self._idle:
                return self._idle.pop()
            session = Session(self.library, self.export)
            self._all.add(session)
        return self._connected(session)

    def _connected(self, session: Session) -> Session:
        try:
            session.connect()
        except OSError:
            self._drop(session)
            raise
        return session

    def _give_back(self, session: Session) -> None:
        with self._changed:
            self._idle.append(session)
            self._changed.notify()

    def _drop(self, session: Session) -> None:
        """Forget a broken session, and the idle ones with it: when one connection went, the others did too."""
        with self._changed:
            idle, self._idle = self._idle, []
            self._all.discard(session)
            self._all.difference_update(idle)
            self._changed.notify_all()
        session.abandon()
        for other in idle:
            other.close()

    def _watch_sessions(self) -> None:
        while True:
            time.sleep(WATCH_STEP)
            limit = time.monotonic() - self.export.patience
            with self._changed:
                late = [session for session in self._all if 0 < session.since < limit]
            for session in late:
                session.interrupt()
