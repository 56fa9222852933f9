from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from overkeep.api.app import create_app
from overkeep.api.asked import Backend
from overkeep.model.findings import Finding, Verdict
from overkeep.testing.access import MemoryAccess
from tests.controller.world import World, disk, vm
from tests.in_memory import tmp_path

__all__ = ["tmp_path"]


FOUND = Finding(area="target", subject="nfs1", verdict=Verdict.WARNING, text="Nearly full.")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        world.memory.add_vm(vm("web", disk("root", bootable=True)))
        world.memory.add_vm(vm("db", disk("pg")))
        yield world


@pytest.fixture
def access() -> MemoryAccess:
    access = MemoryAccess()
    access.add("root-token", user_id="root", name="admin@internal", admin=True)
    access.add("ann-token", user_id="ann", name="ann@internal")
    access.allow("ann", "web-vm", "backup_disk", "create_vm")
    return access


@pytest.fixture
def http(world: World, access: MemoryAccess) -> TestClient:
    return TestClient(
        create_app(Backend(controller=world.controller, access=access, janitor=world.janitor, inspect=lambda: [FOUND]))
    )


@pytest.fixture
def root(http: TestClient) -> TestClient:
    return _as(http, "root-token")


@pytest.fixture
def ann(http: TestClient) -> TestClient:
    return _as(http, "ann-token")


def _as(http: TestClient, token: str) -> TestClient:
    return TestClient(http.app, headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False)
