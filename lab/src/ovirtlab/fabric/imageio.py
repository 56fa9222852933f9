# SPDX-License-Identifier: GPL-3.0-or-later
"""Unmodified ovirt-imageio daemons with TLS from the lab's authority: one a host, and the proxy of the Engine."""

from __future__ import annotations

import http.client
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from ovirtlab.fabric.pki import Identity
from ovirtlab.fabric.processes import Daemon, StartError, in_netns
from ovirtlab.fabric.unixhttp import UnixConnection
from ovirtlab.ledger import Ledger

PORT, PROXY_PORT, PROXY_CONTROL_PORT = 54322, 54323, 54324
LOOPBACK = "127.0.0.1"
ANSWER_LIMIT = 2.0
ATTEMPTS = 3
# sun_path of unix(7), without its final zero
SOCKET_PATH_LIMIT = 107

Sections = Mapping[str, Mapping[str, object]]


class ImageioDaemon(ABC):
    """One daemon. Its tickets live in its memory: a restart loses them, as on a real host."""

    def __init__(self, folder: Path, *, name: str, address: str, netns: str | None, ledger: Ledger) -> None:
        self.address = address
        self.port = 0
        self.run_dir = folder / "run"
        self.log = folder / "daemon.log"
        self._folder = folder
        self._name = f"ovirt-imageio of {name}"
        self._netns = netns
        self._ledger = ledger
        self._daemon = self._program([str(Path(sys.executable).with_name("ovirt-imageio"))])

    def _program(self, program: list[str]) -> Daemon:
        command = in_netns(self._netns, [*program, "--conf-dir", str(self._folder)])
        return Daemon(self._name, command, log=self._folder / "daemon.out", ledger=self._ledger)

    @property
    def pid(self) -> int | None:
        """The pid while it runs."""
        return self._daemon.pid

    @abstractmethod
    def start(self, identity: Identity, ca: Path) -> None:
        """Write its settings, start it, and wait until its control service answers; raise `StartError`."""

    @abstractmethod
    def _control(self) -> http.client.HTTPConnection:
        """A connection to its control service that is not open yet."""

    def _configure(self, identity: Identity, ca: Path, own: Sections) -> None:
        """Write what every daemon is told, and what only this one is."""
        tls = {"enable": "true", "key_file": identity.key, "cert_file": identity.certificate, "ca_file": ca}
        sections: Sections = {
            "daemon": {
                "poll_interval": 0.1,
                "run_dir": self.run_dir,
                "drop_privileges": "false",
                "systemd_enable": "false",
            },
            "tls": tls,
            "remote": {"host": self.address, "port": self.port},
            **own,
            "handlers": {"keys": "logfile"},
            "handler_logfile": {"args": f'("{self.log}",)'},
            "logger_root": {"level": "INFO", "handlers": "logfile"},
            "profile": {"filename": self.run_dir / "profile"},
        }
        self.run_dir.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "conf.d" / "50-lab.conf"
        settings.parent.mkdir(exist_ok=True)
        settings.write_text("\n".join(_lines(sections)))

    def _start(self) -> None:
        self._daemon.start(self.answers)

    def answers(self) -> bool:
        """Tell whether the control service of this very process answers."""
        connection = self._control()
        try:
            connection.request("GET", "/tickets/none")
            return self.pid is not None and connection.getresponse().status == http.client.NOT_FOUND
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """Kill the daemon as a crash would; its sockets and clients are left behind."""
        self._daemon.kill()

    def revive(self) -> None:
        """Start the daemon with the same settings and no tickets, unless it runs."""
        if self.pid is None:
            self._start()

    def restart(self) -> None:
        """End the daemon if it runs, and start it again with the same settings and no tickets."""
        self._daemon.stop()
        self._start()

    def stop(self) -> None:
        """End the daemon."""
        self._daemon.stop()


class Imageio(ImageioDaemon):
    """The daemon of a host, in the host's network."""

    def __init__(self, folder: Path, *, address: str, netns: str | None, ledger: Ledger) -> None:
        super().__init__(folder, name=address, address=address, netns=netns, ledger=ledger)
        self.port = PORT
        self.local_socket = self.run_dir / "local.sock"
        self.control_socket = self.run_dir / "sock"
        self._waits = False
        self._delay = folder / "extents-delay"

    @property
    def _sockets(self) -> tuple[Path, Path]:
        return self.local_socket, self.control_socket

    def start(self, identity: Identity, ca: Path) -> None:
        for path in self._sockets:
            if len(str(path)) > SOCKET_PATH_LIMIT:
                raise ValueError(f"the path {path} is too long for a unix socket; give the lab a shorter --dir")
            self._ledger.record("socket", path)
        local = {"enable": "true", "socket": self.local_socket}
        control = {"transport": "unix", "socket": self.control_socket}
        self._configure(identity, ca, {"local": local, "control": control})
        self._start()

    def _start(self) -> None:
        self._unlink()  # left by a daemon that was killed
        super()._start()

    def _control(self) -> http.client.HTTPConnection:
        return UnixConnection(self.control_socket, timeout=ANSWER_LIMIT)

    def slow_extents(self, seconds: float) -> None:
        """Let every answer about extents take that much longer.

        The first time the daemon is started again, inside a program that waits before each, and loses its tickets;
        after that the time is changed under its running transfers.
        """
        self._delay.write_text(str(seconds))
        if self._waits:
            return
        self._waits = True
        ran = self.pid is not None
        self._daemon.stop()
        self._daemon = self._program([sys.executable, "-m", "ovirtlab.fabric.slow_extents", str(self._delay)])
        if ran:
            self._start()

    def stop(self) -> None:
        """End the daemon and remove its sockets."""
        super().stop()
        self._unlink()

    def _unlink(self) -> None:
        for path in self._sockets:
            path.unlink(missing_ok=True)


class ImageioProxy(ImageioDaemon):
    """The daemon that passes data on to those of hosts; control over TCP, as the Engine has no unix sockets.

    Both ports are free ones when another lab, or an Engine, has the usual ones.
    """

    def __init__(self, folder: Path, *, address: str, ledger: Ledger) -> None:
        super().__init__(folder, name="the Engine", address=address, netns=None, ledger=ledger)
        self.control_port = 0

    def start(self, identity: Identity, ca: Path) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            self.port = _free_port(self.address, PROXY_PORT)
            self.control_port = _free_port(LOOPBACK, PROXY_CONTROL_PORT, besides=self.port)
            control = {"transport": "tcp", "port": self.control_port}
            own: Sections = {"backend_http": {"ca_file": ca}, "local": {"enable": "false"}, "control": control}
            self._configure(identity, ca, own)
            try:
                self._start()
            except StartError:  # somebody else took a port meanwhile
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    def _control(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(LOOPBACK, self.control_port, timeout=ANSWER_LIMIT)


def _lines(sections: Sections) -> list[str]:
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in values.items()), ""]
    return lines


def _free_port(address: str, preferred: int, *, besides: int = 0) -> int:
    for port in (preferred, 0):
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            if found != besides:
                return found
    raise StartError(f"no port is free at {address}")
