# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover` as a process: killed and started again, stopped in mid-copy, and with settings it cannot use."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from overkeep.mover.client import MoverClient
from overkeep.mover.errors import MoverUnreachable
from overkeep.mover.orders import Access, CopyOrder, Image, OrderState, OrderStatus
from overkeep.units import MIB

DEADLINE = 90.0
FOLDER = "workloads/w/vms/v/disks/d"
COMMAND = (sys.executable, "-c", "from overkeep.daemons.mover import run; run()")


class Daemon:
    """A process with a settings file, and a client that knows where it listens."""

    def __init__(self, config: Path, client: MoverClient) -> None:
        self.config, self.client = config, client
        self.log = config.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*COMMAND, "--config", str(self.config)], stderr=log, stdout=log)
        deadline = time.monotonic() + DEADLINE
        while True:
            assert self._process.poll() is None, self.log.read_text()
            try:
                self.client.health()
                return
            except MoverUnreachable:
                assert time.monotonic() < deadline, self.log.read_text()

    def end(self, number: int) -> tuple[int, float]:
        """Send a signal; return the exit status and how long it took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(number)
        status = self._process.wait(timeout=DEADLINE)
        return status, time.monotonic() - began

    def clean_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=DEADLINE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def settings(pki: Any, target: Any, tickets: Any, *, folder: Path, port: int) -> str:
    return f"""
host = "host1"
listen = "127.0.0.1"
port = {port}
state_dir = "{folder}/state"
cert_file = "{pki.cert_file}"
key_file = "{pki.key_file}"
controller_key_file = "{pki.controller_pub}"
imageio_control_socket = "{tickets.control}"
imageio_local_socket = "{tickets.local}"
[[target]]
name = "nfs1"
source = "{target.config.source}"
mountpoint = "{target.root}"
options = "size=256m"
mount_command = ["mount", "-t", "tmpfs"]
"""


@pytest.fixture
def daemon(pki: Any, target: Any, tickets: Any, tmp_path: Path) -> Iterator[Daemon]:
    port = free_port()
    config = tmp_path / "mover.toml"
    config.write_text(settings(pki, target, tickets, folder=tmp_path, port=port))
    url = f"https://127.0.0.1:{port}"
    with MoverClient(url, ca_file=pki.ca_file, signing_key=pki.controller_key, host="host1") as client:
        made = Daemon(config, client)
        made.start()
        yield made
        made.clean_up()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.qcow2"
    for command in (
        ["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(64 * MIB)],
        ["qemu-io", "-f", "qcow2", "-c", "write -P 0x77 0 40M", str(path)],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return path


def moving(client: MoverClient, order_id: str) -> None:
    deadline = time.monotonic() + DEADLINE
    status = client.wait(order_id, after=0)
    while not status.progress.moved:
        assert not status.state.terminal, status
        assert time.monotonic() < deadline
        status = client.wait(order_id, after=status.seq, timeout=2)


def ended(client: MoverClient, order_id: str) -> OrderStatus:
    deadline = time.monotonic() + DEADLINE
    while not (status := client.wait(order_id, after=10**6, timeout=2)).state.terminal:
        assert time.monotonic() < deadline, status
    return status


def backup(target: Any, ticket: str, *, fence: int = 1) -> CopyOrder:
    sink = Image(target="nfs1", repository=target.repository, folder=FOLDER, name="p1.qcow2")
    return CopyOrder(host="host1", source=Access(ticket=ticket), sink=sink, fence=fence)


def test_killed_in_mid_copy_and_started_again(
    daemon: Daemon, target: Any, tickets: Any, large: Path, nbd: Callable[..., str]
) -> None:
    ticket = tickets.add(nbd(large, speed=8 * MIB))
    daemon.client.put("j:d:1", backup(target, ticket))
    moving(daemon.client, "j:d:1")
    assert daemon.end(signal.SIGKILL)[0] == -signal.SIGKILL
    with pytest.raises(MoverUnreachable):
        daemon.client.wait("j:d:1", after=0)
    assert not (target.root / FOLDER / "p1.qcow2").exists()

    daemon.start()
    status = daemon.client.wait("j:d:1", after=0)
    assert (status.state, status.error_code, status.retry) == (OrderState.INTERRUPTED, "mover-restarted", True)
    assert daemon.client.put("j:d:1", backup(target, ticket)) == status

    ticket = tickets.add(nbd(large))
    daemon.client.put("j:d:2", backup(target, ticket, fence=2))
    assert ended(daemon.client, "j:d:2").state is OrderState.DONE
    assert [path.name for path in (target.root / FOLDER).iterdir() if "partial" in path.name] == []
    compare = ["qemu-img", "compare", "-q", str(large), str(target.root / FOLDER / "p1.qcow2")]
    subprocess.run(compare, check=True, timeout=60)


def test_stopped_in_mid_copy(daemon: Daemon, target: Any, tickets: Any, large: Path, nbd: Callable[..., str]) -> None:
    ticket = tickets.add(nbd(large, speed=8 * MIB))
    daemon.client.put("j:d:1", backup(target, ticket))
    moving(daemon.client, "j:d:1")
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(daemon.client.wait, "j:d:1", after=10**6)
        status, seconds = daemon.end(signal.SIGTERM)
        with contextlib.suppress(MoverUnreachable):  # the poll may have been on its way when the mover stopped
            assert poll.result(timeout=DEADLINE).state in (OrderState.RUNNING, OrderState.INTERRUPTED)
    assert status == 0, daemon.log.read_text()
    assert seconds < 10
    assert list((target.root / FOLDER).iterdir()) == []
    assert tickets.remove(ticket) == 204
    daemon.start()
    assert daemon.client.wait("j:d:1", after=0).state is OrderState.INTERRUPTED
    log = daemon.log.read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log
    assert ticket[:8] in log
    assert ticket not in log  # it is a secret
    assert daemon.end(signal.SIGINT)[0] == 0


def test_an_idle_mover_stops_at_once(
    daemon: Daemon, target: Any, tickets: Any, large: Path, nbd: Callable[..., str]
) -> None:
    daemon.client.put("j:d:1", backup(target, tickets.add(nbd(large))))
    assert ended(daemon.client, "j:d:1").state is OrderState.DONE
    status, seconds = daemon.end(signal.SIGTERM)
    assert status == 0
    assert seconds < 5


def start_broken(config: Path) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, "--config", str(config)], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    return done.returncode, done.stderr


def test_settings_that_cannot_be_used(daemon: Daemon, tmp_path: Path, pki: Any) -> None:
    good = daemon.config.read_text()
    broken = tmp_path / "broken.toml"
    port = f"port = {daemon.client._url.rpartition(':')[2]}"
    cases = {
        "host": good.replace('host = "host1"', ""),
        str(pki.ca_file): good.replace(str(pki.controller_pub), str(pki.ca_file)),
        str(pki.cert_file): good.replace(str(pki.key_file), str(pki.controller_pub)),
        "cannot listen": good.replace(f"{tmp_path}/state", f"{tmp_path}/other"),  # the port is taken
        "cannot be opened": good.replace(f"{tmp_path}/state", "/dev/null/state").replace(port, "port = 0"),
    }
    for word, text in cases.items():
        broken.write_text(text)
        status, output = start_broken(broken)
        assert status == 2, output
        assert word in output
        assert "Traceback" not in output
    assert start_broken(tmp_path / "none.toml")[0] == 2
