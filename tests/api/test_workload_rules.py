# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of workloads over the API: they are for administrators, seen before they count, and changed as a whole."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from overkeep.testing.access import MemoryAccess
from tests.api.test_api import problem
from tests.controller.world import World

RULES = {"include": ["tag=prod"], "exclude": ["name=db"], "disks": ["scratch*"]}
SHOP = {"name": "shop", "rules": RULES}


@pytest.fixture(autouse=True)
def tagged(world: World) -> None:
    for name in ("web", "db"):
        world.memory.describe(f"{name}-vm", tags=("prod",))


def test_a_workload_of_rules(root: TestClient) -> None:
    made = root.post("/api/v1/workloads", json=SHOP).json()
    assert made["members"] == [{"vm_id": "web-vm", "vm_name": "web", "by_rule": True}]
    assert made["rules"] == RULES
    body = {"name": "shop", "vms": ["db"], "rules": {"include": ["name=w*"]}}
    changed = root.put("/api/v1/workloads/shop", json=body, headers={"If-Match": "*"}).json()
    assert [(one["vm_name"], one["by_rule"]) for one in changed["members"]] == [("db", False), ("web", True)]
    assert changed["rules"] == {"include": ["name=w*"], "exclude": [], "disks": []}


def test_a_preview_says_why_and_makes_nothing(root: TestClient) -> None:
    seen = root.post("/api/v1/workloads/preview", json={"rules": RULES}).json()
    assert [(one["vm_name"], one["taken"], one["why"]) for one in seen] == [
        ("db", False, "name=db"),
        ("web", True, "tag=prod"),
    ]
    assert root.get("/api/v1/workloads").json() == []


def test_rules_are_for_administrators(root: TestClient, ann: TestClient, access: MemoryAccess) -> None:
    for path, body in (("/api/v1/workloads", SHOP), ("/api/v1/workloads/preview", {"rules": RULES})):
        problem(ann.post(path, json=body), 403, "forbidden")
    mine = ann.post("/api/v1/workloads", json={"name": "mine", "vms": ["web"], "rules": {"disks": ["root"]}})
    assert (mine.status_code, mine.json()["rules"]["disks"]) == (201, ["root"])
    root.post("/api/v1/workloads", json=SHOP)
    for body in ({"name": "shop", "vms": ["web"]}, {"name": "mine", "vms": ["web"], "rules": RULES}):
        answer = ann.put(f"/api/v1/workloads/{body['name']}", json=body, headers={"If-Match": "*"})
        problem(answer, 403, "forbidden")
    assert ann.post("/api/v1/workloads/shop/snapshots", json={}).status_code == 202, "she may back up all its VMs"
    access.forbid("ann", "web-vm", "backup_disk")
    problem(ann.get("/api/v1/workloads/shop"), 404, "not-found")


@pytest.mark.parametrize("text", ["web*", "names=x", "property=x", "name=[a]"])
def test_what_is_no_rule(root: TestClient, text: str) -> None:
    for where in ("include", "exclude"):
        body = {"name": "w", "vms": ["web"], "rules": {where: [text]}}
        assert "write it as" in problem(root.post("/api/v1/workloads", json=body), 400, "bad-rule")
