# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers at both ends of a copy: qemu-nbd as VDSM starts it, ovirt-imageio, an NFS target."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from overkeep.blocks.errors import DiskUnreachable
from overkeep.blocks.nbd import NbdSource
from ovirtlab import teardown
from ovirtlab.starting import Wanted, start

_DEADLINE = 20.0
_ENVIRONMENT = "hosts: [{name: host1}]\n"


class Served:
    """A disk behind an NBD socket, and who serves it."""

    def __init__(self, command: Sequence[str], socket_path: Path) -> None:
        self._command = command
        self.url = f"nbd:unix:{socket_path}"
        self._server = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        server = subprocess.Popen(self._command)
        try:
            _await(self.url)
        except BaseException:
            server.kill()
            raise
        return server

    @property
    def pid(self) -> int:
        """The process of the server."""
        return self._server.pid

    def restart(self) -> None:
        """Serve the disk with a new process, in whose memory no program has left anything."""
        self.stop()
        self._server = self._start()

    def stop(self) -> None:
        """End the server."""
        self._server.kill()
        self._server.wait()


@contextmanager
def served(image: Path, *options: str, form: str = "raw") -> Iterator[Served]:
    """Serve `image` as VDSM does."""
    with tempfile.TemporaryDirectory(prefix="ovk-") as folder:
        path = Path(folder) / "nbd"
        command = ["qemu-nbd", "--persistent", "--shared=8", f"--format={form}", "--cache=none", "--aio=native"]
        server = Served([*command, f"--socket={path}", *options, str(image)], path)
        try:
            yield server
        finally:
            server.stop()


def _await(url: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while True:
        try:
            NbdSource(url).close()
        except DiskUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@dataclass(frozen=True)
class Host:
    """A host of a lab: its ovirt-imageio, and where it has the NFS target mounted."""

    imageio_url: str
    imageio_pid: int
    control: str
    local: str
    ca_file: Path
    target: Path
    netns: str

    @property
    def enter(self) -> list[str]:
        """What to put before a command so that it runs on this host."""
        return ["ip", "netns", "exec", self.netns]

    def ticket(self, url: str, *, size: int, dirty: bool = False) -> str:
        """Let ovirt-imageio give out the disk at `url`; return the path of its images API."""
        ticket = str(uuid.uuid4())
        body = {"uuid": ticket, "url": url, "ops": ["read"], "size": size, "timeout": 3600, "dirty": dirty}
        connection = http.client.HTTPConnection("localhost", timeout=_DEADLINE)
        connection.sock = socket.socket(socket.AF_UNIX)
        with closing(connection):
            connection.sock.connect(self.control)
            connection.request("PUT", f"/tickets/{ticket}", body=json.dumps({**body, "inactivity_timeout": 3600}))
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise RuntimeError(f"ovirt-imageio answered {answer.status}: {answer.read()!r}")
        return f"{self.imageio_url}/images/{ticket}"


@contextmanager
def host() -> Iterator[Host]:
    """A lab with one host and nothing on it."""
    folder = Path(tempfile.mkdtemp(prefix="ovk-"))
    environment = folder / "environment.yaml"
    environment.write_text(_ENVIRONMENT)
    try:
        facts = start(folder / "lab", Wanted(environment=environment), say=lambda _: None)
        if facts["target"] is None:
            raise RuntimeError(f"there is no NFS target: {facts['target_missing']}")
        if not facts["isolated"]:
            raise RuntimeError("measuring needs hosts in network namespaces of their own: run it as root")
        one = facts["hosts"][0]
        yield Host(
            imageio_url=f"https://{one['address']}:{one['ports']['imageio']}",
            imageio_pid=_listener(one["imageio_control_socket"]),
            control=one["imageio_control_socket"],
            local=one["imageio_local_socket"],
            ca_file=Path(facts["ca_file"]),
            target=Path(facts["target"]["mounts"][one["name"]]),
            netns=one["netns"],
        )
    finally:
        teardown.tear_down(folder / "lab")
        environment.unlink()
        folder.rmdir()


def _listener(path: str) -> int:
    """The process behind a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(path)
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], "little")
