"""The whole API against its own OpenAPI document: no fault of ours, and no answer that is not documented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from schemathesis import Case, checks
from schemathesis.specs.openapi import checks as openapi_checks

from overkeep.api.app import create_app
from overkeep.api.asked import Backend
from overkeep.api.openapi import document
from overkeep.testing.access import MemoryAccess
from tests.api.test_api import back_up, make
from tests.controller.world import World, disk, vm
from tests.in_memory import folder_in_memory

TOKEN = {"Authorization": "Bearer root-token"}
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
QUICK = settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
)
LONG = settings(QUICK, max_examples=250, derandomize=False)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The schema of an application that has one of everything; its job engine leaves the processor to the calls."""
    with folder_in_memory(tmp_path_factory) as folder, World(folder, poll=0.5) as world:
        for name in ("web", "db", "idle"):
            world.memory.add_vm(vm(name, disk(name)))
        access = MemoryAccess()
        access.add("root-token", user_id="root", name="admin@internal", admin=True)
        app = create_app(Backend(controller=world.controller, access=access, janitor=world.janitor, inspect=tuple))
        http = TestClient(app, headers=TOKEN)
        make(http, "demo", "web")
        http.post("/api/v1/policies", json={"name": "nightly", "schedules": [{"when": "daily at 22:00"}]})
        http.put("/api/v1/workloads/demo/policy", json={"policy": "nightly"})
        job = back_up(http, world)
        schema = schemathesis.openapi.from_dict(document(app))
        schema.app = app
        schema.known = {  # type: ignore[attr-defined]
            "workload": "demo",
            "policy": "nightly",
            "job_id": job["id"],
            "point": job["result"]["points"]["web-vm"],
            "resource": "total",
            "target": "nfs1",
        }
        yield schema
        world.until(lambda: not world.store.jobs.all(live=True), seconds=60)
        world.assert_nothing_open()


schema = schemathesis.pytest.from_fixture("api").exclude(path_regex="/stream$")  # they end with the controller


def call(case: Case, **more: Any) -> None:
    case.call_and_validate(headers={**dict(case.headers or {}), **TOKEN}, checks=CHECKS, **more)


def call_known(case: Case, known: dict[str, str]) -> None:
    """The call about things that are there."""
    for name in case.path_parameters or {}:
        case.path_parameters[name] = known[name]
    if "If-Match" in (case.headers or {}):
        case.headers["If-Match"] = "*"
    call(case)


@schema.parametrize()
@QUICK
def test_calls_with_anything(case: Case) -> None:
    call(case)


@schema.include(path_regex="{").parametrize()
@QUICK
def test_calls_about_what_is_there(case: Case, api: Any) -> None:
    call_known(case, api.known)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@schema.parametrize()
@LONG
def test_many_calls_with_anything(case: Case) -> None:
    call(case)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@schema.include(path_regex="{").parametrize()
@LONG
def test_many_calls_about_what_is_there(case: Case, api: Any) -> None:
    call_known(case, api.known)
