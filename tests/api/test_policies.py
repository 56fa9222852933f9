from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.test_api import back_up, make, problem
from tests.controller.world import World

NIGHTLY: dict[str, Any] = {
    "name": "nightly",
    "schedules": [{"when": "daily at 22:00", "zone": "Europe/Berlin", "blackouts": ["sat 00:00-24:00"]}],
    "retention": {"daily": 7, "weekly": 4},
}


def make_policy(http: TestClient, **changes: Any) -> dict[str, Any]:
    answer = http.post("/api/v1/policies", json={**NIGHTLY, **changes})
    assert answer.status_code == 201, answer.text
    assert answer.headers["etag"] == '"1"'
    made: dict[str, Any] = answer.json()
    return made


def test_policies(root: TestClient) -> None:
    made = make_policy(root)
    assert (made["name"], made["version"], made["retention"]["daily"]) == ("nightly", 1, 7)
    assert root.get("/api/v1/policies").json() == [made]
    shown = root.get("/api/v1/policies/nightly")
    assert (shown.json(), shown.headers["etag"]) == (made, '"1"')
    problem(root.post("/api/v1/policies", json=NIGHTLY), 409, "conflict")
    assert root.delete(f"/api/v1/policies/{made['id']}").status_code == 204
    problem(root.get("/api/v1/policies/nightly"), 404, "not-found")


def test_a_change_names_the_version_it_changes(root: TestClient) -> None:
    made = make_policy(root)
    path, body = f"/api/v1/policies/{made['id']}", {**NIGHTLY, "description": "each night"}
    problem(root.put(path, json=body), 428, "version-needed")
    problem(root.put(path, json=body, headers={"If-Match": "1"}), 400, "bad-request")
    changed = root.put(path, json=body, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    detail = problem(root.put(path, json=NIGHTLY, headers={"If-Match": '"1"'}), 412, "changed-meanwhile")
    assert "'nightly'" in detail
    assert root.get(path).json()["description"] == "each night"
    assert root.put(path, json=NIGHTLY, headers={"If-Match": "*"}).json()["version"] == 3


@pytest.mark.parametrize(
    ("changes", "code", "word"),
    [
        ({"schedules": [{"when": "daily at 25:00"}]}, "bad-schedule", "hour"),
        ({"schedules": [{"when": "hourly", "zone": "Mars/Olympus"}]}, "bad-schedule", "Mars/Olympus"),
        ({"schedules": [{"when": "hourly", "windows": ["nights"]}]}, "bad-schedule", "nights"),
        ({"retention": {"dayly": 7}}, "bad-request", "dayly"),
        ({"retention": {"daily": -1}}, "bad-request", "daily"),
        ({"copying": {"level": 20}}, "bad-request", "level"),
        ({"copying": {"cluster_size": 32768}}, "bad-request", "cluster_size"),
        ({"copying": {"cluster_size": 196608}}, "bad-request", "cluster_size"),
        ({"copying": {"cluster_size": 4194304}}, "bad-request", "cluster_size"),
        ({"verify": 1.5}, "bad-request", "verify"),
        ({"backup_kind": "cold"}, "bad-request", "backup_kind"),
        ({"full_every": -1}, "bad-request", "full_every"),
        ({"name": ""}, "bad-request", "name"),
    ],
)
def test_a_policy_that_cannot_be(root: TestClient, changes: dict[str, Any], code: str, word: str) -> None:
    assert word in problem(root.post("/api/v1/policies", json={**NIGHTLY, **changes}), 400, code)
    assert root.get("/api/v1/policies").json() == []


def test_a_policy_is_given_and_paused(root: TestClient) -> None:
    make_policy(root)
    make(root)
    problem(root.post("/api/v1/workloads/demo/pause"), 409, "conflict")
    planned = root.put("/api/v1/workloads/demo/policy", json={"policy": "nightly"}).json()
    assert (planned["policy"], planned["paused"]) == ("nightly", False)
    assert planned["next_run"] is not None
    assert "workload demo" in problem(root.delete("/api/v1/policies/nightly"), 409, "conflict")
    paused = root.post("/api/v1/workloads/demo/pause").json()
    assert (paused["paused"], paused["next_run"]) == (True, None)
    resumed = root.post("/api/v1/workloads/demo/resume").json()
    assert (resumed["paused"], resumed["next_run"] is None) == (False, False)
    assert root.get("/api/v1/workloads/demo/schedule").json()["policy"] == "nightly"
    stopped = root.post("/api/v1/scheduler/pause").json()
    assert (stopped["paused"], stopped["workloads"][0]["next_run"]) == (True, None)
    again = root.post("/api/v1/scheduler/resume").json()
    assert (again["paused"], again["workloads"][0]["next_run"] is None) == (False, False)
    assert root.put("/api/v1/workloads/demo/policy", json={"policy": None}).json()["policy"] == ""
    assert root.delete("/api/v1/policies/nightly").status_code == 204


def test_administrators_change_policies_and_others_see_theirs(root: TestClient, ann: TestClient) -> None:
    make_policy(root)
    make_policy(root, name="secret")
    make(root, "hers", "web")
    make(root, "other", "db")
    problem(ann.post("/api/v1/policies", json={**NIGHTLY, "name": "mine"}), 403, "forbidden")
    problem(ann.post("/api/v1/policies/preview", json=NIGHTLY), 403, "forbidden")
    assert ann.get("/api/v1/policies").json() == []
    there = problem(ann.get("/api/v1/policies/nightly"), 404, "not-found")
    assert there == problem(ann.get("/api/v1/policies/nothing"), 404, "not-found").replace("nothing", "nightly")
    problem(ann.put("/api/v1/workloads/hers/policy", json={"policy": "nightly"}), 404, "not-found")
    root.put("/api/v1/workloads/hers/policy", json={"policy": "nightly"})
    root.put("/api/v1/workloads/other/policy", json={"policy": "secret"})
    assert [policy["name"] for policy in ann.get("/api/v1/policies").json()] == ["nightly"]
    assert ann.get("/api/v1/policies/nightly/preview").status_code == 200
    problem(ann.get("/api/v1/policies/secret"), 404, "not-found")
    problem(ann.put("/api/v1/policies/nightly", json=NIGHTLY, headers={"If-Match": "*"}), 403, "forbidden")
    problem(ann.delete("/api/v1/policies/nightly"), 403, "forbidden")
    problem(ann.get("/api/v1/workloads/hers/retention", params={"policy": "secret"}), 404, "not-found")
    assert [planned["workload"] for planned in ann.get("/api/v1/scheduler").json()["workloads"]] == ["hers"]
    problem(ann.post("/api/v1/scheduler/pause"), 403, "forbidden")
    problem(ann.post("/api/v1/scheduler/resume"), 403, "forbidden")
    assert ann.post("/api/v1/workloads/hers/pause").json()["paused"]
    assert not ann.post("/api/v1/workloads/hers/resume").json()["paused"]
    for path in ("pause", "resume"):
        problem(ann.post(f"/api/v1/workloads/other/{path}"), 404, "not-found")
    problem(ann.get("/api/v1/workloads/other/schedule"), 404, "not-found")
    problem(ann.get("/api/v1/workloads/other/retention"), 404, "not-found")
    problem(ann.put("/api/v1/workloads/other/policy", json={"policy": None}), 404, "not-found")


@pytest.mark.parametrize("path", ["policies", "policies/x", "policies/x/preview", "scheduler", "workloads/x/retention"])
def test_all_of_it_needs_a_token(http: TestClient, path: str) -> None:
    problem(http.get(f"/api/v1/{path}"), 401, "not-logged-in")


def test_a_year_is_foreseen(root: TestClient) -> None:
    body = {"name": "x", "schedules": [{"when": "daily at 22:00"}], "retention": {"last": 3}}
    seen = root.post("/api/v1/policies/preview", json=body).json()
    assert (seen["runs"], seen["most_points"]) in ((365, 3), (366, 3))
    assert [mark["reasons"][0] for mark in seen["marks"]] == ["last, 1 of 3", "last, 2 of 3", "last, 3 of 3"]
    assert root.get("/api/v1/policies").json() == []
    make_policy(root, retention={"last": 2})
    assert root.get("/api/v1/policies/nightly/preview", params={"days": 14}).json()["most_points"] == 2
    problem(root.get("/api/v1/policies/nightly/preview", params={"days": 0}), 400, "bad-request")


def test_what_retention_would_remove_now(root: TestClient, world: World) -> None:
    make_policy(root, retention={"last": 1})
    make(root)
    problem(root.get("/api/v1/workloads/demo/retention"), 409, "conflict")
    back_up(root, world)
    back_up(root, world)  # nothing goes yet: retention is carried out by the backups of a workload that has a policy
    root.put("/api/v1/workloads/demo/policy", json={"policy": "nightly"})
    [vm] = root.get("/api/v1/workloads/demo/retention").json()
    assert vm["vm_name"] == "web"
    assert [mark["kept"] for mark in vm["marks"]] == [True, False]
    assert vm["marks"][0]["reasons"] == ["last, 1 of 1", "it is the newest"]
    assert len(root.get("/api/v1/points").json()) == 2
    make_policy(root, name="both", retention={"last": 2})
    [vm] = root.get("/api/v1/workloads/demo/retention", params={"policy": "both"}).json()
    assert [mark["kept"] for mark in vm["marks"]] == [True, True]


def test_how_a_new_point_was_verified_is_shown_with_it(root: TestClient, world: World) -> None:
    make_policy(root, verify=0.5)
    make(root)
    root.put("/api/v1/workloads/demo/policy", json={"policy": "nightly"})
    back_up(root, world)
    [point] = root.get("/api/v1/points").json()
    seen = point["verification"]
    assert (seen["share"], seen["sound"], seen["findings"]) == (0.5, True, [])
    shown = root.get(f"/api/v1/points/{point['id']}", params={"vm": "web"})
    assert shown.json()["verification"] == seen
    world.rotten = {f"{point['id']}.qcow2"}
    back_up(root, world)
    assert [one["verification"]["sound"] for one in root.get("/api/v1/points").json()] == [True, False]
