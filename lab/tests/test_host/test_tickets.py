# SPDX-License-Identifier: GPL-3.0-or-later
"""Tickets against an unmodified ovirt-imageio daemon on loopback, through to the bytes of a disk."""

import contextlib
import http.client
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from ovirtlab.host.api import HostError

MIB = 1 << 20
CONFIGURATION = """\
[daemon]
run_dir = {run}
drop_privileges = false
systemd_enable = false
poll_interval = 0.1
[tls]
enable = false
[remote]
host = 127.0.0.1
port = 0
[local]
enable = true
socket = {run}/local
[control]
transport = unix
socket = {control}
remove_timeout = 1
[handlers]
keys = stderr
[logger_root]
level = INFO
handlers = stderr
"""


@pytest.fixture
def imageio(bench):
    run_dir = bench.path("imageio")
    (run_dir / "conf.d").mkdir(parents=True)
    text = CONFIGURATION.format(run=run_dir, control=bench.control_socket)
    (run_dir / "conf.d/50-test.conf").write_text(text)
    with bench.path("imageio.log").open("wb") as log:
        daemon = subprocess.Popen([Path(sys.executable).parent / "ovirt-imageio", "-c", run_dir], stderr=log)
    try:
        deadline = time.monotonic() + 90
        while not all(accepts(path) for path in (bench.control_socket, run_dir / "local")):
            assert daemon.poll() is None, bench.path("imageio.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield run_dir / "local"
    finally:
        # A daemon that has just started may miss the signal between its start and its first pause.
        while daemon.poll() is None:
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(1)


def accepts(path: Path) -> bool:
    """Whether a server listens on `path`: the file is there a moment before it does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) == 0


class Connection(http.client.HTTPConnection):
    """An HTTP connection to a Unix socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(self.host)


def ticket(url: str, size: int) -> dict:
    return {
        "uuid": str(uuid.uuid4()),
        "url": url,
        "ops": ["read"],
        "size": size,
        "timeout": 300,
        "inactivity_timeout": 60,
        "transfer_id": "t1",
    }


def test_a_ticket_opens_a_disk_until_it_is_removed(bench, run, imageio):
    path = bench.path("disk")
    path.write_bytes(b"d" * MIB)

    async def scenario():
        async with bench.host() as host:
            wanted = ticket(await host.start_nbd_server("t1", path, "raw", read_only=True), MIB)
            assert await host.get_ticket(wanted["uuid"]) is None
            await host.add_ticket(wanted)
            reader = Connection(str(imageio))
            reader.request("GET", f"/images/{wanted['uuid']}")
            assert reader.getresponse().read() == b"d" * MIB
            reader.close()
            seen = await host.get_ticket(wanted["uuid"])
            assert seen["url"] == wanted["url"]
            assert seen["transferred"] == MIB
            before = seen["expires"]
            await host.extend_ticket(wanted["uuid"], 900)
            assert (await host.get_ticket(wanted["uuid"]))["expires"] > before + 500
            await host.remove_ticket(wanted["uuid"])
            await host.remove_ticket(wanted["uuid"])
            assert await host.get_ticket(wanted["uuid"]) is None
            with pytest.raises(HostError, match="404"):
                await host.extend_ticket(wanted["uuid"], 900)

    run(scenario())


def test_a_ticket_in_use_is_not_removed(bench, run, imageio):
    path, size = bench.path("disk"), 64 * MIB
    with path.open("wb") as file:
        file.truncate(size)

    async def scenario():
        async with bench.host() as host:
            wanted = ticket(await host.start_nbd_server("t1", path, "raw", read_only=True), size)
            await host.add_ticket(wanted)
            reader = Connection(str(imageio))
            reader.request("GET", f"/images/{wanted['uuid']}")
            reader.getresponse().read(1)  # and then no more: the daemon's writing blocks
            with pytest.raises(HostError) as caught:
                await host.remove_ticket(wanted["uuid"])
            assert caught.value.code == 409
            reader.sock.close()
            reader.close()
            await host.remove_ticket(wanted["uuid"])

    run(scenario())


def test_a_ticket_the_daemon_refuses(bench, run, imageio):
    async def scenario():
        async with bench.host() as host:
            with pytest.raises(HostError, match="400"):
                await host.add_ticket({"uuid": "incomplete"})

    run(scenario())


def test_a_daemon_that_is_down(bench, run):
    async def scenario():
        async with bench.host() as host:
            with pytest.raises(HostError, match="does not answer"):
                await host.get_ticket("any")

    run(scenario())
