# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine with one real host: QEMU without guests, ovirt-imageio with TLS, and the SDK as its client."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import Request, urlopen

import ovirtsdk4 as sdk
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from lab.tests.engine_core.conftest import close_server, open_server
from ovirtsdk4 import types
from starlette.applications import Starlette
from starlette.routing import Route

from ovirtlab.engine import upkeep
from ovirtlab.engine.background import Background
from ovirtlab.engine.clock import Clock
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk, DiskAttachment, DiskFormat
from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter, HostEntity, StorageDomain
from ovirtlab.engine.entities.people import Permission, Role, User
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.rest import (
    attachments,
    backups,
    clones,
    disk_actions,
    disk_snapshots,
    disks,
    events,
    inventory,
    jobs,
    new_vms,
    snapshots,
    starts,
    templates,
    transfers,
    vms,
)
from ovirtlab.engine.rest.dispatch import Api
from ovirtlab.engine.rest.login import Login
from ovirtlab.engine.rest.routing import Router
from ovirtlab.engine.running import changed
from ovirtlab.engine.snapshots import volumes
from ovirtlab.engine.sso import Sessions
from ovirtlab.engine.state import SYSTEM, State
from ovirtlab.host.api import VmDefinition, VmDisk
from ovirtlab.host.local import LocalHost
from ovirtlab.machine.errors import HostError

T = TypeVar("T")

MIB = 1 << 20
SCALE = 20
DEADLINE = 90.0
ADMIN = "fdfc627c-d875-11e0-90f0-83df133b58cc"
MODULES = (
    attachments, backups, clones, disk_actions, disk_snapshots, disks, events, inventory, jobs, new_vms, snapshots,
    starts, templates, transfers, vms,
)  # fmt: skip
PERMITS = frozenset(
    {
        "login",
        "attach_disk",
        "backup_disk",
        "configure_disk_storage",
        "configure_vm_storage",
        "create_template",
        "edit_disk_properties",
        "create_disk",
        "create_vm",
        "manipulate_vm_snapshots",
        "run_vm",
        "delete_vm",
    }
)


@dataclass(frozen=True)
class Daemon:
    """A running ovirt-imageio."""

    port: int
    control_socket: Path
    ca: Path


@pytest.fixture(scope="session")
def imageio() -> Iterator[Daemon]:
    """One daemon for all tests of a worker; each test has tickets of its own."""
    folder = Path(tempfile.mkdtemp(prefix="iio", dir="/tmp"))
    with running_daemon(folder) as daemon:
        yield daemon
    shutil.rmtree(folder)


@contextmanager
def running_daemon(folder: Path) -> Iterator[Daemon]:
    ca, cert, key = write_certificates(folder)
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    (folder / "conf.d").mkdir()
    (folder / "conf.d/50-test.conf").write_text(
        f"[daemon]\nrun_dir={folder}\ndrop_privileges=false\nsystemd_enable=false\npoll_interval=0.1\n"
        f"[tls]\nkey_file={key}\ncert_file={cert}\nca_file={ca}\n"
        f"[remote]\nhost=127.0.0.1\nport={port}\n[local]\nsocket=\n"
        f"[control]\ntransport=unix\nsocket={folder}/sock\nremove_timeout=1\n"
        f"[handlers]\nkeys=stderr\n[logger_root]\nlevel=WARNING\nhandlers=stderr\n[profile]\nfilename={folder}/p\n"
    )
    with (folder / "log").open("wb") as log:
        argv = [str(Path(sys.executable).with_name("ovirt-imageio")), "-c", str(folder)]
        process = subprocess.Popen(argv, stderr=log, stdout=log)
    try:
        wait_until(lambda: (folder / "sock").exists() and process.poll() is None)
        yield Daemon(port, folder / "sock", ca)
    finally:
        process.terminate()
        process.wait(90)


def write_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A self-signed certificate for 127.0.0.1, which is its own CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    paths = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate)
    paths[1].write_bytes(certificate)
    plain = serialization.NoEncryption()
    paths[2].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return paths


def wait_until(condition: Callable[[], Any], *, timeout: float = DEADLINE) -> Any:
    """Wait for something true and return it."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


class FaultyHost(LocalHost):
    """A host whose verbs fail when their names are in `broken`, and come to a `halt`."""

    broken: frozenset[str] = frozenset()
    halt: Halt | None = None

    def __getattribute__(self, name: str) -> Any:
        if name in object.__getattribute__(self, "broken"):
            return _fail
        halt = object.__getattribute__(self, "halt")
        verb = super().__getattribute__(name)
        return halt.at(verb) if halt is not None and name == halt.verb else verb


class Halt:
    """A verb of the host that waits, before its work or when that is done; `calls` are those that have come so far."""

    def __init__(self, verb: str, *, when: str) -> None:
        self.verb, self.when = verb, when
        self.calls = 0
        self.reached, self.over = asyncio.Event(), asyncio.Event()

    def at(self, verb: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
        async def halting(*args: Any, **kwargs: Any) -> T:
            self.calls += 1
            if self.when == "before":
                await self._wait()
            result = await verb(*args, **kwargs)
            if self.when == "after":
                await self._wait()
            return result

        return halting

    async def _wait(self) -> None:
        self.reached.set()
        await self.over.wait()


async def _fail(*args: Any, **kwargs: Any) -> None:
    raise HostError("broken by the test")


class World:
    """The engine's state, its loop, and an SDK connection to it; helpers act as a test's hands."""

    def __init__(self, folder: Path, daemon: Daemon) -> None:
        self.folder = folder
        self.daemon = daemon
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        self.clock = Clock(SCALE)
        self.state = State(self.clock)
        self.run = Path(tempfile.mkdtemp(prefix="lh", dir="/tmp"))
        self.host = FaultyHost(
            name="host-1",
            id=self.state.new_id(),
            address="127.0.0.1",
            imageio_port=daemon.port,
            directory=self.run,
            control_socket=daemon.control_socket,
            netns=None,
            cache=folder / "cache",
        )
        self._fill()
        self.call(self._start)
        self.connection = self.log_in("admin@internal")
        self.system = self.connection.system_service()

    def _fill(self) -> None:
        state = self.state
        state.settings.use_hybrid_backup = False  # tests of hybrid backups switch it on
        state.data_centers["dc"] = DataCenter(id="dc", name="Default")
        state.clusters["cl"] = Cluster(id="cl", name="Default", data_center_id="dc")
        self.domain = state.new_id()
        state.storage_domains[self.domain] = StorageDomain(
            id=self.domain, name="store", data_center_id="dc", path=self.folder / "store"
        )
        state.hosts[self.host.id] = HostEntity(
            id=self.host.id,
            name="host-1",
            address="127.0.0.1",
            hw_id=self.host.hw_id,
            cluster_id="cl",
            imageio_port=self.daemon.port,
        )
        state.roles["su"] = Role(id="su", name="SuperUser", administrative=True, permits=PERMITS)
        state.roles["ro"] = Role(id="ro", name="UserRole", administrative=False, permits=frozenset({"login"}))
        state.users[ADMIN] = User(id=ADMIN, name="admin", domain="internal", password="secret")
        other = state.new_id()
        state.users[other] = User(id=other, name="other", domain="internal", password="secret")
        state.permissions["p"] = Permission(id="p", user_id=ADMIN, role_id="su", on=("system", SYSTEM))
        state.permissions["q"] = Permission(id="q", user_id=other, role_id="ro", on=("system", SYSTEM))

    async def _start(self) -> None:
        self.background = Background(self.clock)
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.context = Context(
            state=self.state,
            hosts={self.host.id: self.host},
            clock=self.clock,
            background=self.background,
            directory=self.folder,
            base_url=self.url,
            ca_pem="",
        )
        self.host.watch_vms(
            lambda vm_id, state, reason: changed(self.context, self.host.id, vm_id, state=state, reason=reason)
        )
        sessions = Sessions(self.state, self.clock)
        groups = [module.routes for module in MODULES]
        api = Api(self.context, sessions, Router(*groups))
        routes = Login(sessions, self.state, self.clock).routes()
        methods = ["GET", "POST", "PUT", "DELETE"]
        routes.append(Route("/ovirt-engine/api/{path:path}", api.answer, methods=methods))
        self._server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="warning", lifespan="off"))
        await open_server(self._server, [listener])
        upkeep.begin(self.context)

    @contextmanager
    def halted(self, verb: str, *, when: str) -> Iterator[Halt]:
        """What the block begins waits in a verb of the host until the end of the block."""
        halt = self.host.halt = Halt(verb, when=when)
        try:
            yield halt
        finally:
            self.loop.call_soon_threadsafe(halt.over.set)

    def restart_engine(self) -> None:
        """What stopping and starting the engine does to its work."""

        async def again() -> None:
            await self.background.interrupt()
            upkeep.begin(self.context)

        self.call(again)

    def close(self) -> None:
        self.connection.close()

        async def stop() -> None:
            await close_server(self._server)
            await self.background.stop()
            await self.host.close()

        self.call(stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(90)
        self.loop.close()
        shutil.rmtree(self.run)

    def call(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> T:
        """Run a coroutine in the engine's loop."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work(*args, **kwargs), self.loop)
        return future.result(90)

    def log_in(self, user: str) -> sdk.Connection:
        return sdk.Connection(f"{self.url}/ovirt-engine/api", user, "secret", insecure=True)

    def get_json(self, path: str) -> Any:
        """GET as a client that asks for JSON."""
        login = base64.b64encode(b"admin@internal:secret").decode()
        headers = {"Accept": "application/json", "Authorization": f"Basic {login}"}
        with urlopen(Request(f"{self.url}/ovirt-engine/api/{path}", headers=headers), timeout=20) as answer:
            return json.load(answer)

    def add_disk(self, *, fmt: DiskFormat = "cow", size: int = 4 * MIB) -> Disk:
        state = self.state
        disk_id, image_id = state.new_id(), state.new_id()
        path = state.storage_domains[self.domain].path / "images" / disk_id / image_id
        disk = Disk(
            id=disk_id,
            image_id=image_id,
            alias=f"disk-{len(state.disks)}",
            provisioned_size=size,
            storage_domain_id=self.domain,
            path=path,
            format=fmt,
        )
        self.call(self.host.create_volume, path, disk.volume_format, size)
        state.disks[disk.id] = disk
        return disk

    def add_vm(self, *disks: Disk, up: bool = True) -> Vm:
        vm = Vm(id=self.state.new_id(), name=f"vm-{len(self.state.vms)}", cluster_id="cl", memory=1 << 27)
        self.state.vms[vm.id] = vm
        for disk in disks:
            self.state.attach(DiskAttachment(disk_id=disk.id, vm_id=vm.id))
        if up:
            self.start_vm(vm)
        return vm

    def start_vm(self, vm: Vm) -> None:
        disks = [
            VmDisk(
                disk_id=disk.id,
                path=disk.path,
                format=disk.volume_format,
                target=f"sd{chr(97 + index)}",
                backing=volumes.backing(self.state, disk),
            )
            for index, disk in enumerate(self.state.disks_of(vm))
        ]
        vm.host_id = self.host.id
        self.call(self.host.start_vm, VmDefinition(vm_id=vm.id, name=vm.name, memory_mib=64, disks=tuple(disks)))
        vm.status = "up"

    def stop_vm(self, vm: Vm) -> None:
        self.call(self.host.stop_vm, vm.id, force=True)
        vm.status, vm.host_id = "down", ""

    def write(self, vm: Vm, command: str, target: str = "sda") -> None:
        """Write as a guest would: `write -P 0x5a 1M 64k`."""
        self.call(self.host.block_io, vm.id, target, command)
        self.call(self.host.block_io, vm.id, target, "flush")

    def backups(self, vm: Vm) -> Any:
        return self.system.vms_service().vm_service(vm.id).backups_service()

    def checkpoints(self, vm: Vm) -> Any:
        return self.system.vms_service().vm_service(vm.id).checkpoints_service()

    def start_backup(self, vm: Vm, *disks: Disk, **fields: Any) -> types.Backup:
        """Start a backup and wait until it is ready (or has failed)."""
        backup = self.backups(vm).add(types.Backup(disks=[types.Disk(id=disk.id) for disk in disks], **fields))
        return self.wait_backup(vm, backup.id, "ready")

    def wait_backup(self, vm: Vm, backup_id: str, phase: str) -> types.Backup:
        def reached() -> types.Backup | None:
            backup = self.backups(vm).backup_service(backup_id).get()
            ended = backup.phase.value in (phase, "failed", "succeeded")
            return backup if ended else None

        return wait_until(reached)  # type: ignore[no-any-return]

    def finalize_backup(self, vm: Vm, backup: types.Backup) -> types.Backup:
        self.backups(vm).backup_service(backup.id).finalize()
        return self.wait_backup(vm, backup.id, "succeeded")

    def start_transfer(self, **fields: Any) -> types.ImageTransfer:
        """Start a transfer and wait until data can flow (or it has failed)."""
        fields.setdefault("format", types.DiskFormat.RAW)
        fields.setdefault("direction", types.ImageTransferDirection.DOWNLOAD)
        transfer = self.system.image_transfers_service().add(types.ImageTransfer(**fields))
        assert transfer.phase.value != "initializing"
        return self.wait_transfer(transfer.id, "transferring")

    def start_broken_transfer(self, **fields: Any) -> types.ImageTransfer:
        """Start a transfer that gets no session: the engine tells nothing of why, and keeps the transfer."""
        known = set(self.state.transfers)
        with pytest.raises(sdk.Error, match=r'Fault detail is "\[\]"') as caught:
            self.start_transfer(**fields)
        assert caught.value.code == 400
        (transfer_id,) = set(self.state.transfers) - known
        return self.transfer(transfer_id).get()

    def wait_transfer(self, transfer_id: str, phase: str) -> types.ImageTransfer:
        def reached() -> types.ImageTransfer | None:
            transfer = self.transfer(transfer_id).get()
            ended = transfer.phase.value in (phase, "finished_success", "finished_failure")
            return transfer if ended else None

        return wait_until(reached)  # type: ignore[no-any-return]

    def transfer(self, transfer_id: str) -> Any:
        return self.system.image_transfers_service().image_transfer_service(transfer_id)

    def finalize_transfer(self, transfer: types.ImageTransfer) -> types.ImageTransfer:
        self.transfer(transfer.id).finalize()
        return self.wait_transfer(transfer.id, "finished_success")

    def ticket(self, transfer: types.ImageTransfer) -> Any:
        """What the daemon knows of a transfer's ticket."""
        ticket_id = self.state.transfers[transfer.id].ticket_id
        return self.call(self.host.get_ticket, ticket_id)

    def until(self, condition: Callable[[], Any]) -> None:
        wait_until(condition)

    def codes(self) -> list[int]:
        """Codes of the events so far, oldest first."""
        return [event.code for event in self.state.events]

    def told(self) -> list[tuple[int, str, str]]:
        """Code, severity and text of the events so far, oldest first."""
        return [(event.code, event.severity, event.description) for event in self.state.events]


@pytest.fixture
def world(tmp_path: Path, imageio: Daemon) -> Iterator[World]:
    world = World(tmp_path, imageio)
    try:
        yield world
    finally:
        world.close()
