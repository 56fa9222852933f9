from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from overkeep.controller.background.peers import DECLARED_DEAD
from overkeep.controller.movers import enrolment
from overkeep.controller.store import Store
from tests.postgres import Postgres, driver

CONTROLLER = [sys.executable, "-c", "from overkeep.daemons.controller import run; run()", "--config"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A controller whose Manager and whose NFS server are down."""
    enrolment.init(tmp_path / "pki", ["127.0.0.1"])
    (tmp_path / "password").write_text("secret")
    path = tmp_path / "controller.toml"
    path.write_text(
        f"""
port = {_free_port()}
state_dir = "{tmp_path}/state"
pki_dir = "{tmp_path}/pki"
[engine]
url = "https://127.0.0.1:1/ovirt-engine/api"
ca_file = "{tmp_path}/pki/ca.pem"
username = "admin@internal"
password_file = "{tmp_path}/password"
[[target]]
name = "nfs1"
source = "server:/export"
mountpoint = "{tmp_path}/mnt"
mount_command = ["false"]
"""
    )
    return path


@pytest.fixture
def daemon(config: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([*CONTROLLER, str(config)], stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def test_it_serves_although_everything_else_is_down_and_stops_cleanly(
    daemon: subprocess.Popen[str], config: Path
) -> None:
    trust = ssl.create_default_context(cafile=str(config.parent / "pki/ca.pem"))
    with httpx.Client(verify=trust, base_url=_url(config)) as http:
        assert _answer(http, "/api/v1/health").json()["status"] == "ok"
        told = http.get("/api/v1/workloads", headers={"Authorization": "Bearer x"})
        assert told.json()["code"] == "engine-unreachable"
    second = subprocess.run([*CONTROLLER, str(config)], capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    assert "Another controller" in second.stderr
    assert "Traceback" not in second.stderr
    daemon.send_signal(signal.SIGTERM)
    _, log = daemon.communicate(timeout=90)
    assert daemon.returncode == 0
    assert "Traceback" not in log
    assert "secret" not in log
    assert "target unavailable" in log


@pytest.mark.parametrize("dead", [False, True], ids=["stopped", "declared dead"])
def test_it_joins_the_others_on_a_data_base_that_they_share_and_ends(
    config: Path, postgres: Postgres, dead: bool
) -> None:
    url = postgres.new_database()
    config.write_text(f'database = "{url}"\n{config.read_text()}')
    trust = ssl.create_default_context(cafile=str(config.parent / "pki/ca.pem"))
    with subprocess.Popen([*CONTROLLER, str(config)], stderr=subprocess.PIPE, text=True) as child:
        try:
            with httpx.Client(verify=trust, base_url=_url(config)) as http:
                assert _answer(http, "/api/v1/health").json()["status"] == "ok"
            store = Store(driver(url))
            [place] = store.controllers.living()
            if dead:
                store.controllers.leave(place)
            else:
                child.send_signal(signal.SIGTERM)
            _, log = child.communicate(timeout=90)
        finally:
            child.kill()
    assert store.controllers.living() == frozenset()
    store.close()
    assert child.returncode == (DECLARED_DEAD if dead else 0)
    assert ("declared dead by another" in log) is dead
    assert "Traceback" not in log


def test_bad_settings_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "controller.toml"
    path.write_text("port = 'many'")
    done = subprocess.run([*CONTROLLER, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert str(path) in line


def _url(config: Path) -> str:
    port = next(line for line in config.read_text().splitlines() if line.startswith("port")).split()[-1]
    return f"https://127.0.0.1:{port}"


def _answer(http: httpx.Client, path: str) -> httpx.Response:
    deadline = time.monotonic() + 90
    while True:
        try:
            return http.get(path)
        except httpx.ConnectError:
            assert time.monotonic() < deadline, "the controller does not answer"
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
