# SPDX-License-Identifier: GPL-3.0-or-later
"""One unmodified ovirt-imageio daemon a host, in the host's network, with TLS from the lab's authority."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

from ovirtlab.fabric.pki import Identity
from ovirtlab.fabric.processes import Daemon, in_netns
from ovirtlab.fabric.unixhttp import UnixConnection
from ovirtlab.ledger import Ledger

PORT = 54322
ANSWER_LIMIT = 2.0
# sun_path of unix(7), without its final zero
SOCKET_PATH_LIMIT = 107

_CONFIG = """\
[daemon]
poll_interval = 0.1
run_dir = {run}
drop_privileges = false
systemd_enable = false

[tls]
enable = true
key_file = {key}
cert_file = {certificate}
ca_file = {ca}

[remote]
host = {address}
port = {port}

[local]
enable = true
socket = {local}

[control]
transport = unix
socket = {control}

[handlers]
keys = logfile

[handler_logfile]
args = ("{log}",)

[logger_root]
level = INFO
handlers = logfile

[profile]
filename = {run}/profile
"""


class Imageio:
    """The daemon of one host. Its tickets live in its memory: a restart loses them, as on a real host."""

    def __init__(self, folder: Path, *, address: str, netns: str | None, ledger: Ledger, port: int = PORT) -> None:
        self.address, self.port = address, port
        self.run_dir = folder / "run"
        self.local_socket = self.run_dir / "local.sock"
        self.control_socket = self.run_dir / "sock"
        self.log = folder / "daemon.log"
        self._folder = folder
        self._ledger = ledger
        self._waits = False
        self._netns = netns
        self._delay = folder / "extents-delay"
        program = Path(sys.executable).with_name("ovirt-imageio")
        self._daemon = self._program([str(program)])

    def _program(self, program: list[str]) -> Daemon:
        command = in_netns(self._netns, [*program, "--conf-dir", str(self._folder)])
        name = f"ovirt-imageio of {self.address}"
        return Daemon(name, command, log=self._folder / "daemon.out", ledger=self._ledger)

    @property
    def pid(self) -> int | None:
        """The pid while it runs."""
        return self._daemon.pid

    def start(self, identity: Identity, ca: Path) -> None:
        """Write its settings, start it, and wait until its control socket answers; raise `StartError`."""
        for path in (self.local_socket, self.control_socket):
            if len(str(path)) > SOCKET_PATH_LIMIT:
                raise ValueError(f"the path {path} is too long for a unix socket; give the lab a shorter --dir")
            self._ledger.record("socket", path)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "conf.d" / "50-lab.conf"
        settings.parent.mkdir(exist_ok=True)
        settings.write_text(
            _CONFIG.format(
                run=self.run_dir,
                key=identity.key,
                certificate=identity.certificate,
                ca=ca,
                address=self.address,
                port=self.port,
                local=self.local_socket,
                control=self.control_socket,
                log=self.log,
            )
        )
        self._start()

    def _start(self) -> None:
        for path in (self.local_socket, self.control_socket):
            path.unlink(missing_ok=True)  # left by a daemon that was killed
        self._daemon.start(self.answers)

    def answers(self) -> bool:
        """Tell whether the control service answers."""
        if not self.control_socket.exists():
            return False
        connection = UnixConnection(self.control_socket, timeout=ANSWER_LIMIT)
        try:
            connection.request("GET", "/tickets/none")
            return connection.getresponse().status == http.client.NOT_FOUND
        except OSError:
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """Kill the daemon as a crash would; its sockets and clients are left behind."""
        self._daemon.kill()

    def restart(self) -> None:
        """End the daemon if it runs, and start it again with the same settings and no tickets."""
        self._daemon.stop()
        self._start()

    def slow_extents(self, seconds: float) -> None:
        """Let every answer about extents take that much longer.

        The first time the daemon is started again, inside a program that waits before each, and loses its tickets;
        after that the time is changed under its running transfers.
        """
        self._delay.write_text(str(seconds))
        if self._waits:
            return
        self._waits = True
        self._daemon.stop()
        self._daemon = self._program([sys.executable, "-m", "ovirtlab.fabric.slow_extents", str(self._delay)])
        self._start()

    def stop(self) -> None:
        """End the daemon and remove its sockets."""
        self._daemon.stop()
        for path in (self.local_socket, self.control_socket):
            path.unlink(missing_ok=True)
