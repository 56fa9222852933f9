# SPDX-License-Identifier: GPL-3.0-or-later
"""The adapter to oVirt keeps the contract against the lab's engine with in-memory hosts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import uvicorn

from overkeep.config import EngineConfig
from overkeep.engine.access import OvirtAccess, login, logout
from overkeep.engine.api import ObjectKind, TransferRequest
from overkeep.engine.errors import LoginRefused
from overkeep.engine.ovirt.engine import OvirtEngine
from overkeep.engine.ovirt.waits import Patience
from overkeep.errors import Unauthorized
from overkeep.model.inventory import DiskFormat
from overkeep.units import GIB
from ovirtlab.engine.app import Engine as LabEngine
from ovirtlab.engine.app import create_engine
from ovirtlab.engine.entities.people import User
from ovirtlab.engine.hooks import Refusal
from ovirtlab.environment import Disk, Environment, Host, StorageDomain, Vm
from ovirtlab.host.memory import MemoryHost, Storage
from ovirtlab.machine.errors import HostError

from .contract import EngineContract, World, backed_up, disk_spec, new_id, transferring, wait_until

ENVIRONMENT = Environment(
    hosts=(Host(name="host1"), Host(name="host2")),
    storage_domains=(StorageDomain(name="data"),),
    vms=(
        Vm(
            name="web",
            host="host2",
            agent=True,
            disks=(
                Disk(name="web_Disk1", size=GIB, bootable=True, backup="incremental"),
                Disk(name="web_Disk2", size=GIB, format="raw"),
            ),
        ),
        Vm(name="db", host="host1", disks=(Disk(name="db_Disk1", size=GIB, bootable=True),), running=False),
    ),
    username="admin@internal",
    password="a secret",
    time_scale=20,
)


@dataclass
class Lab:
    """A served lab engine, with the loop it runs in."""

    engine: LabEngine
    url: str
    loop: asyncio.AbstractEventLoop
    hosts: list[MemoryHost]

    def drop_tokens(self) -> None:
        self.loop.call_soon_threadsafe(self.engine.sessions.end_all)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _serve(directory: Path, listener: socket.socket, ready: list[Lab], started: threading.Event) -> None:
    async def main() -> None:
        storage = Storage()
        hosts = [
            MemoryHost(name=host.name, id=new_id(), address="127.0.0.1", storage=storage) for host in ENVIRONMENT.hosts
        ]
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        engine = create_engine(ENVIRONMENT, hosts, directory, base_url=url, ca_pem="")
        await engine.start()
        server = _Server(uvicorn.Config(engine.asgi, lifespan="off", log_config=None))
        ready.append(Lab(engine, f"{url}/ovirt-engine/api", asyncio.get_running_loop(), hosts))
        ready.append(server)  # type: ignore[arg-type]
        try:
            started.set()
            await server.serve(sockets=[listener])
        finally:
            await engine.stop()

    try:
        asyncio.run(main())
    finally:
        started.set()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    ready: list[Lab] = []
    started = threading.Event()
    thread = threading.Thread(target=_serve, args=(tmp_path / "lab", listener, ready, started))
    thread.start()
    assert started.wait(90)
    served, server = ready
    yield served
    server.should_exit = True  # type: ignore[attr-defined]
    thread.join(90)
    listener.close()
    assert not thread.is_alive()


@pytest.fixture
def adapter(lab: Lab, tmp_path: Path) -> Iterator[OvirtEngine]:
    password = tmp_path / "password"
    password.write_text(ENVIRONMENT.password)
    settings = EngineConfig(
        url=lab.url, ca_file=tmp_path / "ca.pem", username=ENVIRONMENT.username, password_file=password
    )
    with OvirtEngine(settings, patience=Patience(interval=0.05)) as engine:
        yield engine


@pytest.fixture
def world(adapter: OvirtEngine, lab: Lab) -> World:
    def describe(vm_id: str) -> None:
        with httpx.Client(base_url=lab.url, auth=(ENVIRONMENT.username, ENVIRONMENT.password)) as client:
            for path, document in (
                ("tags", {"name": "parent"}),
                ("tags", {"name": "child", "parent": {"name": "parent"}}),
                (f"vms/{vm_id}/tags", {"name": "child"}),
            ):
                client.post(f"/{path}", json=document).raise_for_status()
            properties = {"custom_property": [{"name": "lab", "value": "yes"}]}
            client.put(f"/vms/{vm_id}", json={"custom_properties": properties}).raise_for_status()

    up, down = (lab.engine.find_vm(name)[0] for name in ("web", "db"))

    def mute() -> None:
        for host in lab.hosts:
            for machine in host.machines.values():
                machine.definition = replace(machine.definition, agent=False)

    def refuse_merges() -> Callable[[], None]:
        return lab.engine.context.faults.refuse(Refusal(act="merge", text="told to", about=up))

    return World(engine=adapter, up=up, down=down, describe=describe, mute=mute, refuse_merges=refuse_merges)


class TestOvirtEngine(EngineContract):
    """The whole suite."""


def test_disks_as_the_environment_has_them(world: World) -> None:
    boot, data = sorted(world.engine.vm(world.up).disks, key=lambda disk: disk.name)
    assert (boot.name, boot.size, boot.format, boot.tracks_changes) == ("web_Disk1", GIB, DiskFormat.COW, True)
    assert (data.name, data.size, data.format, data.tracks_changes) == ("web_Disk2", GIB, DiskFormat.RAW, False)


def test_tokens_that_die_in_the_midst_are_renewed(world: World, lab: Lab) -> None:
    with backed_up(world, new_id()) as ready:
        lab.drop_tokens()
        wait_until(lambda: world.engine.backup(world.up, ready.id).phase == "ready")
        lab.drop_tokens()


def test_a_transfer_whose_ticket_is_lost_is_made_anew(world: World, lab: Lab) -> None:
    """A restarted daemon forgets its tickets; the Manager ends the download, and the backup lives on."""
    engine = world.engine
    with backed_up(world, new_id()) as ready:
        request = TransferRequest(disk_id=next(iter(ready.modes)), upload=False, backup_id=ready.id)
        first = engine.start_transfer(request)
        transferring(engine, first)
        for host in lab.engine.context.hosts.values():
            host.tickets.clear()  # type: ignore[attr-defined]
        wait_until(lambda: engine.transfer(first).over)
        assert engine.transfer(first).phase == "finished_failure"
        assert engine.explain(first, request.disk_id)
        second = engine.start_transfer(request)
        assert second != first
        assert transferring(engine, second).ticket
        engine.cancel_transfer(second)
        wait_until(lambda: engine.transfer(second).over)


def test_a_transfer_that_gets_no_session_tells_why(world: World, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Manager refuses the order without a word, and keeps a transfer that fails."""

    async def broken(*args: object, **kwargs: object) -> str:
        raise HostError("no such bitmap")

    for host in lab.engine.context.hosts.values():
        monkeypatch.setattr(host, "add_ticket", broken)
    engine = world.engine
    with backed_up(world, new_id()) as ready:
        request = TransferRequest(disk_id=next(iter(ready.modes)), upload=False, backup_id=ready.id)
        transfer_id = engine.start_transfer(request)
        wait_until(lambda: engine.transfer(transfer_id).over)
        assert engine.transfer(transfer_id).phase == "finished_failure"
        assert "failed to add host image ticket" in engine.explain(transfer_id, request.disk_id)


def test_the_configuration_document_is_whole(world: World) -> None:
    document = world.engine.configuration(world.up).document
    disks = document["disks"]
    assert isinstance(disks, list)
    assert {disk["name"] for disk in disks} == {"web_Disk1", "web_Disk2"}
    assert all(disk["storage_domain"]["name"] == "data" for disk in disks)
    assert "disks" not in document["missing"]  # type: ignore[operator]
    assert "nics" not in document["missing"]  # type: ignore[operator]


def test_disk_is_locked_while_uploaded_and_survives_a_repeat(world: World) -> None:
    engine, spec = world.engine, disk_spec(world)
    engine.create_disk(spec)
    request = TransferRequest(disk_id=spec.id, upload=True, host_id=engine.hosts()[1].id)
    transfer_id = engine.start_transfer(request)
    transferring(engine, transfer_id)
    assert engine.start_transfer(request) == transfer_id
    assert engine.transfer(transfer_id).host_id == request.host_id
    engine.cancel_transfer(transfer_id)


class TestAccess:
    """Tokens and permits as the lab's engine tells them."""

    @pytest.fixture
    def access(self, lab: Lab, tmp_path: Path) -> Iterator[OvirtAccess]:
        access = OvirtAccess(lab.url, tmp_path / "ca.pem")
        yield access
        access.close()

    def test_administrator(self, lab: Lab, access: OvirtAccess, world: World, tmp_path: Path) -> None:
        token = login(lab.url, tmp_path / "ca.pem", username=ENVIRONMENT.username, password=ENVIRONMENT.password)
        found = access.authenticate(token)
        assert found.admin
        assert found.name.startswith("admin@internal")
        assert {"backup_disk", "create_vm", "create_disk"} <= access.permits(token, world.up)
        assert access.permits(token, new_id()) == frozenset()
        assert access.vms(token) >= {world.up, world.down}
        logout(lab.url, tmp_path / "ca.pem", token=token)
        with pytest.raises(Unauthorized):
            OvirtAccess(lab.url, tmp_path / "ca.pem").authenticate(token)

    def test_wrong_password(self, lab: Lab, tmp_path: Path) -> None:
        with pytest.raises(LoginRefused):
            login(lab.url, tmp_path / "ca.pem", username=ENVIRONMENT.username, password="wrong")

    def test_tenant(self, lab: Lab, access: OvirtAccess, world: World, tmp_path: Path) -> None:
        tenant = add_user(lab, "ann", "her secret")
        grant(lab, tenant, world.up, "UserVmManager", tmp_path)
        token = login(lab.url, tmp_path / "ca.pem", username="ann@internal", password="her secret")
        found = access.authenticate(token)
        assert (found.user_id, found.admin) == (tenant, False)
        assert "backup_disk" in access.permits(token, world.up)
        assert access.permits(token, world.down) == frozenset()
        assert access.vms(token) == {world.up}

    def test_tenant_who_may_restore(self, lab: Lab, access: OvirtAccess, world: World, tmp_path: Path) -> None:
        """Permits on a data center count on the clusters and storage domains in it."""
        tenant = add_user(lab, "ann", "her secret")
        cluster, domain = world.engine.vm(world.up).cluster_id, world.engine.storage_domains()["data"]
        grant(lab, tenant, domain, "DiskCreator", tmp_path, collection="storagedomains")
        token = login(lab.url, tmp_path / "ca.pem", username="ann@internal", password="her secret")
        assert "create_disk" in access.permits(token, domain, of=ObjectKind.STORAGE_DOMAIN)
        assert access.permits(token, cluster, of=ObjectKind.CLUSTER) == frozenset()
        (center,) = lab.engine.state.data_centers
        grant(lab, tenant, center, "VmCreator", tmp_path, collection="datacenters")
        fresh = login(lab.url, tmp_path / "ca.pem", username="ann@internal", password="her secret")
        assert {"create_vm", "create_disk"} <= access.permits(fresh, cluster, of=ObjectKind.CLUSTER)
        assert access.permits(fresh, new_id(), of=ObjectKind.CLUSTER) == frozenset()


def add_user(lab: Lab, name: str, password: str) -> str:
    user = User(id=new_id(), name=name, domain="internal", password=password, first_name=name)
    lab.loop.call_soon_threadsafe(lab.engine.state.users.__setitem__, user.id, user)
    return user.id


def grant(lab: Lab, user_id: str, object_id: str, role: str, directory: Path, *, collection: str = "vms") -> None:
    token = login(lab.url, directory / "ca.pem", username=ENVIRONMENT.username, password=ENVIRONMENT.password)
    body = f"<permission><role><name>{role}</name></role><user id='{user_id}'/></permission>"
    answer = httpx.post(
        f"{lab.url}/{collection}/{object_id}/permissions",
        content=body,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/xml", "Accept": "application/xml"},
    )
    assert answer.status_code == 201, answer.text
