# SPDX-License-Identifier: GPL-3.0-or-later
"""The imageio proxy: one more unmodified ovirt-imageio daemon, at the Engine's address, that passes data on."""

from __future__ import annotations

import http.client
import socket
import sys
from contextlib import closing
from pathlib import Path

from ovirtlab.fabric.pki import Identity
from ovirtlab.fabric.processes import Daemon, StartError
from ovirtlab.ledger import Ledger

PORT, CONTROL_PORT = 54323, 54324
CONTROL_ADDRESS = "127.0.0.1"
ANSWER_LIMIT = 2.0
ATTEMPTS = 3

# As engine-setup writes it to 50-engine.conf: control over TCP, as the Engine has no Unix sockets.
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

[backend_http]
ca_file = {ca}

[remote]
host = {address}
port = {port}

[local]
enable = false

[control]
transport = tcp
port = {control_port}

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


class ImageioProxy:
    """The daemon and its ports; both are free ones when another lab, or an Engine, has the usual ones."""

    def __init__(self, folder: Path, *, address: str, ledger: Ledger) -> None:
        self.address = address
        self.port = self.control_port = 0
        self.log = folder / "daemon.log"
        self._folder = folder
        command = [str(Path(sys.executable).with_name("ovirt-imageio")), "--conf-dir", str(folder)]
        self._daemon = Daemon("ovirt-imageio of the Engine", command, log=folder / "daemon.out", ledger=ledger)

    @property
    def pid(self) -> int | None:
        """The pid while it runs."""
        return self._daemon.pid

    def start(self, identity: Identity, ca: Path) -> None:
        """Choose ports, start it, and wait until it answers; raise `StartError`."""
        for attempt in range(ATTEMPTS):
            self.port = _free_port(self.address, PORT)
            self.control_port = _free_port(CONTROL_ADDRESS, CONTROL_PORT, besides=self.port)
            self._write(identity, ca)
            try:
                self._daemon.start(self.answers)
            except StartError:  # somebody else took a port meanwhile
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            return

    def _write(self, identity: Identity, ca: Path) -> None:
        settings = self._folder / "conf.d" / "50-engine.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        run = self._folder / "run"
        run.mkdir(exist_ok=True)
        text = _CONFIG.format(
            run=run,
            key=identity.key,
            certificate=identity.certificate,
            ca=ca,
            address=self.address,
            port=self.port,
            control_port=self.control_port,
            log=self.log,
        )
        settings.write_text(text)

    def answers(self) -> bool:
        """Tell whether the control service of this very process answers."""
        connection = http.client.HTTPConnection(CONTROL_ADDRESS, self.control_port, timeout=ANSWER_LIMIT)
        try:
            connection.request("GET", "/tickets/none")
            return self.pid is not None and connection.getresponse().status == http.client.NOT_FOUND
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """Kill the daemon as a crash would."""
        self._daemon.kill()

    def restart(self) -> None:
        """End the daemon if it runs, and start it again with the same settings and no tickets."""
        self._daemon.stop()
        self._daemon.start(self.answers)

    def stop(self) -> None:
        """End the daemon."""
        self._daemon.stop()


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
