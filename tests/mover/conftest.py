# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of a mover for tests: certificates, keys, settings, a running service."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from overkeep.config import MoverConfig, TargetConfig
from overkeep.mover.client import MoverClient
from overkeep.mover.orders import CopyResult
from overkeep.mover.service import MoverService
from overkeep.mover.work import Work
from tests.blocks.conftest import listens, wait_for
from tests.mover.bench import SIZE, Bench, settings_for, tool, write
from tests.mover.pki import Pki, make_pki
from tests.mover.proxy import NbdProxy

HOST = "host1"
DEADLINE = 90.0


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """One PKI for all tests."""
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def settings(tmp_path: Path, pki: Pki) -> MoverConfig:
    """Settings of a mover of its own, with a target that is not mounted."""
    return MoverConfig(
        host=HOST,
        listen="127.0.0.1",
        port=0,
        state_dir=tmp_path / "state",
        cert_file=pki.cert_file,
        key_file=pki.key_file,
        controller_key_file=pki.controller_pub,
        imageio_control_socket=str(tmp_path / "no-control"),
        imageio_local_socket=str(tmp_path / "no-local"),
        target=(TargetConfig(name="nfs1", source="server:/export", mountpoint=tmp_path / "nfs1"),),
        orders_at_once=2,
    )


class Gate:
    """An execution that ends as a test says: at once, or held until released; failing with `error` if set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.started: list[str] = []
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        """Let orders run until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Let running orders end."""
        self._open.set()

    def __call__(self, work: Work) -> CopyResult:
        self.started.append(work.id)
        woken = threading.Event()
        with work.on_stop(woken.set):
            while not self._open.wait(0.01):
                work.check()
        if self.error is not None:
            raise self.error
        return CopyResult(virtual_size=10, covered=10, moved=5, stored=7, seconds=0.1)


@pytest.fixture
def gate() -> Gate:
    """Control over what orders come to."""
    return Gate()


@pytest.fixture
def serve(pki: Pki) -> Iterator[Callable[..., tuple[MoverService, MoverClient]]]:
    """Start a mover from settings and connect a client; both end with the test."""
    with ExitStack() as stack:

        def start(settings: MoverConfig, gate: Gate | None = None) -> tuple[MoverService, MoverClient]:
            service = stack.enter_context(MoverService(settings, execute=gate))
            if gate is not None:
                stack.callback(gate.release)
            return service, stack.enter_context(connect(pki, service.port))

        yield start


def connect(pki: Pki, port: int, *, host: str = HOST, key: Ed25519PrivateKey | None = None) -> MoverClient:
    """A client of the mover on `port`."""
    return MoverClient(
        f"https://127.0.0.1:{port}", ca_file=pki.ca_file, signing_key=key or pki.controller_key, host=host
    )


# real parts


def run(*command: object) -> str:
    """Run a tool to its end."""
    return subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.fixture
def processes() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start processes that end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: object, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([str(word) for word in command], stderr=stderr))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(timeout=DEADLINE)


class Tickets:
    """A real ovirt-imageio and its tickets."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.control, self.local = str(folder / "sock"), str(folder / "local")
        self.log = folder / "log"
        self._process = process

    def kill(self) -> None:
        """End the daemon; its tickets are gone for ever."""
        self._process.kill()
        self._process.wait(timeout=DEADLINE)

    def add(self, url: str, *, op: str = "read", **more: object) -> str:
        """Put a ticket and return its id."""
        ticket = str(uuid.uuid4())
        body = {"uuid": ticket, "url": url, "ops": [op], "size": 1 << 26, "timeout": 300, **more}
        body.setdefault("inactivity_timeout", 60)
        assert self.call("PUT", ticket, json.dumps(body))[0] == 200
        return ticket

    def get(self, ticket: str) -> dict[str, object]:
        """What the daemon knows of a ticket."""
        return json.loads(self.call("GET", ticket)[1])

    def remove(self, ticket: str) -> int:
        """Take a ticket away; returns the HTTP status."""
        return self.call("DELETE", ticket)[0]

    def call(self, method: str, ticket: str, body: str = "") -> tuple[int, bytes]:
        """Call the control service."""
        connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.control)
        try:
            connection.request(method, f"/tickets/{ticket}", body=body or None)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


_DAEMON = """
[daemon]
run_dir = {folder}
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
socket = {local}
[control]
transport = unix
socket = {folder}/sock
remove_timeout = 5
[handlers]
keys = stderr
[logger_root]
level = INFO
handlers = stderr
"""


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a path short enough for unix sockets."""
    folder = Path(f"/tmp/ovk-{uuid.uuid4().hex[:12]}")
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def imageio(short: Path, processes: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., Tickets]:
    """Start a real ovirt-imageio; with `abstract` its local service is on a socket without a file."""

    def start(*, abstract: bool = False) -> Tickets:
        folder = short / f"iio-{uuid.uuid4().hex[:8]}"
        (folder / "conf.d").mkdir(parents=True)
        local = "" if abstract else folder / "local"  # empty: the daemon makes up an abstract name
        (folder / "conf.d" / "test.conf").write_text(_DAEMON.format(folder=folder, local=local))
        log = folder / "log"
        with log.open("wb") as output:
            command = (Path(sys.executable).with_name("ovirt-imageio"), "-c", folder)
            made = Tickets(folder, processes(*command, stderr=output))
        wait_for(lambda: Path(made.control).exists() and "Ready for requests" in log.read_text())
        if abstract:
            _, _, address = log.read_text().partition("local.service listening on '\\x00")
            made.local = "\\0" + address.partition("'")[0]
        return made

    return start


@pytest.fixture
def tickets(imageio: Callable[..., Tickets]) -> Tickets:
    """An ovirt-imageio of our own."""
    return imageio()


_WRITABLE = ["--discard=unmap", "--detect-zeroes=unmap"]  # as VDSM does for an upload


class Nbd:
    """Serves images with qemu-nbd as VDSM does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[subprocess.Popen[bytes]] = []

    def __call__(self, image: Path, *options: str, write: bool = False, speed: int = 0) -> str:
        """Serve `image` and return the URL for a ticket; `speed` in bytes a second."""
        what = ["-f", "qcow2", str(image)]
        if speed:
            below = f"file.driver=qcow2,file.file.driver=file,file.file.filename={image}"
            group = f"throttle-group,id=slow,x-bps-total={speed}"
            what = ["--object", group, "--image-opts", f"driver=throttle,throttle-group=slow,{below}"]
        return self._serve(*(_WRITABLE if write else ["--read-only"]), *options, *what)

    def serve_raw(self, image: Path) -> str:
        """Serve a raw image for writing."""
        return self._serve(*_WRITABLE, "-f", "raw", str(image))

    def serve_options(self, options: str) -> str:
        """Serve what image options say, for writing."""
        return self._serve(*_WRITABLE, "--image-opts", options)

    def _serve(self, *what: str) -> str:
        path = self._folder / f"nbd-{uuid.uuid4().hex[:8]}"
        command = ["qemu-nbd", "--persistent", "--shared=8", "--export-name=", "-k", str(path), *what]
        self._servers.append(subprocess.Popen(command, stderr=subprocess.PIPE))
        wait_for(lambda: listens(path))
        return f"nbd:unix:{path}"

    @property
    def newest(self) -> subprocess.Popen[bytes]:
        """The server that was started last."""
        return self._servers[-1]

    def stop(self) -> None:
        """Kill all servers; their images may be written again."""
        while self._servers:
            server = self._servers.pop()
            server.kill()
            server.communicate(timeout=DEADLINE)


@pytest.fixture
def nbd(short: Path) -> Iterator[Nbd]:
    """Servers of our own."""
    servers = Nbd(short)
    yield servers
    servers.stop()


@pytest.fixture
def proxied(short: Path) -> Iterator[Callable[[str], NbdProxy]]:
    """Put a proxy before an NBD server."""
    made: list[NbdProxy] = []

    def start(url: str) -> NbdProxy:
        made.append(NbdProxy(short / f"proxy-{len(made)}", Path(url.removeprefix("nbd:unix:"))))
        return made[-1]

    yield start
    for proxy in made:
        proxy.close()


@dataclass(frozen=True)
class Target:
    """A mounted target with a repository in it."""

    config: TargetConfig
    repository: str

    @property
    def root(self) -> Path:
        """Where it is mounted."""
        return self.config.mountpoint


@pytest.fixture
def make_target(tmp_path: Path) -> Iterator[Callable[..., Target]]:
    """Mount a real file system under the name of an export, with a repository of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounted: list[Path] = []

    def make(options: str = "size=256m", name: str = "nfs1") -> Target:
        config = TargetConfig(
            name=name,
            source=f"server:/{name}",
            mountpoint=tmp_path / "mnt" / name,
            options=options,
            mount_command=("mount", "-t", "tmpfs"),
        )
        config.mountpoint.mkdir(parents=True)
        run(*config.mount_command, "-o", options, config.source, config.mountpoint)
        mounted.append(config.mountpoint)
        identity = {
            "kind": "repository",
            "version": 1,
            "writer": "overkeep tests",
            "id": str(uuid.uuid4()),
            "created": "2026-11-22T22:00:00Z",
        }
        (config.mountpoint / "overkeep.json").write_text(json.dumps(identity))
        return Target(config, str(identity["id"]))

    yield make
    for path in mounted:
        run("umount", "--lazy", path)


@pytest.fixture
def target(make_target: Callable[..., Target]) -> Target:
    """A target with room."""
    return make_target()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk of 64 MiB with data here and there, and with a bitmap that is still empty."""
    path = tmp_path / "disk.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", path, SIZE)
    write(path, "write -P 0x11 0 3M", "write -P 0x22 10M 4M", "write -P 0x33 63M 1M", "write -z 11M 1M")
    tool("qemu-img", "bitmap", "--add", path, "cp1")
    return path


@pytest.fixture
def bench(settings: MoverConfig, target: Any, tickets: Any, serve: Callable[..., Any]) -> Bench:
    _, client = serve(settings_for(settings, (target.config,), tickets))
    return Bench(client, target, tickets)


@pytest.fixture
def blind(settings: MoverConfig, target: Any, tickets: Any, serve: Callable[..., Any], tmp_path: Path) -> Bench:
    """A mover that may not open the control socket."""
    changed = settings_for(settings, (target.config,), tickets)
    _, client = serve(changed.model_copy(update={"imageio_control_socket": str(tmp_path / "none")}))
    return Bench(client, target, tickets)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A disk with 40 MiB of data: five seconds at `SPEED`."""
    path = tmp_path / "large.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", path, SIZE)
    write(path, "write -P 0x77 0 40M")
    return path
