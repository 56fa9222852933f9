from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from overkeep.api.app import create_app
from overkeep.api.asked import Backend
from overkeep.api.server import ApiServer
from overkeep.cli import main, session
from overkeep.cli.session import Session
from overkeep.controller.movers import enrolment
from overkeep.model.findings import Finding
from overkeep.testing.access import MemoryAccess
from tests.controller.world import World, disk, vm
from tests.in_memory import tmp_path

__all__ = ["tmp_path"]


@dataclass
class Site:
    """A controller that answers over TLS, and a logged-in user of the command line."""

    world: World
    access: MemoryAccess
    server: ApiServer
    session: Path
    capture: Any
    findings: list[Finding]

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Run a command; its status, what it printed, what it complained about."""
        self.capture.readouterr()
        status = main.main(words)
        out, err = self.capture.readouterr()
        return status, out, err


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    pki = enrolment.init(tmp_path / "pki", ["127.0.0.1"])
    access = MemoryAccess()
    access.add("token", user_id="root", name="admin@internal", admin=True)
    path = tmp_path / "session.json"
    findings: list[Finding] = []
    monkeypatch.setenv("OVERKEEP_SESSION", str(path))
    with ExitStack() as stack:
        world = World(tmp_path)
        world.add_target("nfs2")
        stack.enter_context(world)
        world.memory.add_vm(vm("web", disk("root", bootable=True)))
        world.memory.add_vm(vm("db", disk("pg")))
        app = create_app(
            Backend(controller=world.controller, access=access, janitor=world.janitor, inspect=lambda: findings)
        )
        server = ApiServer(app, listen="127.0.0.1", port=0, cert=pki.api_cert, key=pki.api_key)
        stack.enter_context(server)
        stack.callback(world.durable.stopping.set)  # before the server: it also ends the calls that wait for news
        session.save(
            Session(
                controller=f"https://127.0.0.1:{server.port}",
                controller_ca=pki.ca_cert,
                engine="https://127.0.0.1:1/ovirt-engine/api",
                engine_ca=pki.ca_cert,
                username="admin@internal",
                token="token",
            )
        )
        yield Site(world=world, access=access, server=server, session=path, capture=capsys, findings=findings)
