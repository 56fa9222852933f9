# SPDX-License-Identifier: GPL-3.0-or-later
"""Trying targets out over the API."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from overkeep.units import MIB
from tests.api.test_api import problem
from tests.controller.world import World

PATH = "/api/v1/targets/nfs1/probe"


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on a disk: in memory a sync takes no time."""
    return tmp_path_factory.mktemp("target")


def test_a_probe_is_answered_and_shown(root: TestClient, ann: TestClient) -> None:
    here = root.post(PATH, json={"size": MIB, "seconds": 1}).json()
    assert (here["host"], here["code"], here["size"]) == ("", "", MIB)
    assert min(here["write_speed"], here["read_speed"], here["synced_ms"]) > 0
    assert here["ok"] is here["owned"] is (here["owner"] == "36:36")
    there = root.post(PATH, json={"host": "host1"}).json()
    assert there["ok"]
    assert (there["host"], there["owner"], there["direct"], there["size"]) == ("host1", "36:36", True, 64 * MIB)
    assert root.get("/api/v1/targets/nfs1").json()["probes"] == [here, there]
    [listed] = ann.get("/api/v1/targets").json()
    assert len(listed["probes"]) == 2


def test_a_target_that_fails_is_an_answer(root: TestClient, world: World) -> None:
    world.mover.reachable = False
    failed = root.post(PATH, json={"host": "host1"}).json()
    assert (failed["ok"], failed["code"], failed["owner"], failed["write_speed"]) == (
        False,
        "mover-unreachable",
        None,
        None,
    )
    assert "host1" in failed["error"]


def test_what_is_refused(root: TestClient, ann: TestClient) -> None:
    problem(ann.post(PATH, json={}), 403, "forbidden")
    problem(root.post("/api/v1/targets/none/probe", json={}), 404, "not-found")
    problem(root.post(PATH, json={"host": "none"}), 404, "not-found")
    for body in ({"size": MIB - 1}, {"size": 1 << 40}, {"seconds": 0}, {"seconds": 16}, {"hots": "x"}):
        assert root.post(PATH, json=body).status_code in (400, 422), body
