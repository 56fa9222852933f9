# SPDX-License-Identifier: GPL-3.0-or-later
"""How the VMs of a workload are backed up together, over the API."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from tests.api.test_api import problem

SHOP = {"name": "shop", "vms": ["web", "db"]}


def test_how_many_at_once_is_set_changed_and_taken_away(root: TestClient) -> None:
    made = root.post("/api/v1/workloads", json={**SHOP, "parallel": 1}).json()
    assert (made["parallel"], [member["vm_name"] for member in made["members"]]) == (1, ["web", "db"])
    match = {"If-Match": "*"}
    assert root.put("/api/v1/workloads/shop", json={**SHOP, "parallel": 2}, headers=match).json()["parallel"] == 2
    assert root.put("/api/v1/workloads/shop", json=SHOP, headers=match).json()["parallel"] is None
    assert root.get("/api/v1/workloads/shop").json()["parallel"] is None


@pytest.mark.parametrize("parallel", [0, -1, "many", 10_001])
def test_what_is_no_number_of_vms(root: TestClient, parallel: object) -> None:
    problem(root.post("/api/v1/workloads", json={**SHOP, "parallel": parallel}), 400, "bad-request")
