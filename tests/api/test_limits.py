from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.test_api import make, problem
from tests.controller.world import World


def test_limits(root: TestClient) -> None:
    found = {limit["resource"]: limit for limit in root.get("/api/v1/limits").json()}
    assert found["total"] == {
        "resource": "total",
        "capacity": 32,
        "by_default": True,
        "paused": False,
        "used": 0,
        "waiting": 0,
        "usual": 32,
        "windows": [],
        "zone": "UTC",
        "until": None,
        "then": None,
    }
    assert list(found) == ["host", "domain", "target", "total"]
    changed = root.put("/api/v1/limits/host:host1", json={"capacity": 2}).json()
    assert (changed["capacity"], changed["by_default"]) == (2, False)
    assert root.put("/api/v1/limits/host:host1", json={}).json()["by_default"]
    assert root.post("/api/v1/limits/target:nfs1/pause").json()["paused"]
    assert not root.post("/api/v1/limits/target:nfs1/resume").json()["paused"]


WINDOWS = {"capacity": 4, "windows": [{"when": "mon-fri 08:00-18:00", "capacity": 1}], "zone": "Europe/Berlin"}


def test_a_limit_has_windows(root: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = "/api/v1/limits/host", dt.datetime(2026, 11, 27, 9, 0, tzinfo=dt.UTC)
    monkeypatch.setattr("overkeep.controller.store.admission.utc_now", lambda: now)
    answer = root.put(path, json=WINDOWS)
    limit = answer.json()
    assert (limit["capacity"], limit["usual"], limit["until"], limit["then"]) == (1, 4, "2026-11-27T17:00:00Z", 4)
    assert (limit["windows"], limit["zone"], limit["by_default"]) == (WINDOWS["windows"], "Europe/Berlin", False)
    one = root.get("/api/v1/limits/host:host1").json()
    assert (one["capacity"], one["then"], one["windows"], one["by_default"]) == (1, 4, [], True)
    now = dt.datetime(2026, 11, 27, 17, 0, tzinfo=dt.UTC)
    later = root.get(path)
    assert (later.json()["capacity"], later.json()["then"]) == (4, 1)
    assert later.headers["ETag"] == answer.headers["ETag"], "nobody changed it"
    told = root.get("/api/v1/events", params={"kind": "limit.set"}).json()[-1]
    assert told["text"] == "The limit of host is now 4; 1 mon-fri 08:00-18:00 (Europe/Berlin)"
    assert root.put(path, json={"capacity": 4}).json()["windows"] == []
    assert root.put(path, json={}).json()["by_default"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"windows": [{"when": "by day", "capacity": 1}]}, "bad-schedule"),
        ({"windows": [{"when": "08:00-18:00", "capacity": -1}]}, "bad-request"),
        ({"windows": [{"when": "08:00-18:00"}]}, "bad-request"),
        ({"windows": [{"when": "08:00-18:00", "capacity": 1}] * 51}, "bad-request"),
        ({"zone": "Mars/Olympus"}, "bad-schedule"),
        ({"windows": [], "zone": "Mars/Olympus"}, "bad-schedule"),
    ],
)
def test_windows_that_cannot_be(root: TestClient, changes: dict[str, Any], code: str) -> None:
    problem(root.put("/api/v1/limits/host", json={**WINDOWS, **changes}), 400, code)
    assert root.get("/api/v1/limits/host").json()["by_default"]


def test_nobody_overwrites_a_limit_that_he_has_not_seen(root: TestClient, ann: TestClient) -> None:
    path = "/api/v1/limits/host:host1"
    shown = root.get(path)
    assert shown.json()["by_default"]
    seen = shown.headers["ETag"]
    changed = root.put(path, json={"capacity": 2}, headers={"If-Match": seen})
    assert (changed.status_code, changed.json()["capacity"]) == (200, 2)
    problem(root.put(path, json={"capacity": 3}, headers={"If-Match": seen}), 412, "changed-meanwhile")
    assert root.get(path).json()["capacity"] == 2
    paused = root.post(f"{path}/pause").headers["ETag"]
    assert paused == root.get(path).headers["ETag"] != changed.headers["ETag"]
    assert root.put(path, json={"capacity": 4}, headers={"If-Match": paused}).json()["capacity"] == 4
    assert root.put(path, json={"capacity": 5}, headers={"If-Match": "*"}).json()["capacity"] == 5
    assert root.put(path, json={"capacity": 6}).json()["capacity"] == 6
    problem(ann.get(path), 403, "forbidden")
    problem(root.get("/api/v1/limits/host:nowhere"), 404, "not-found")
    problem(root.put("/api/v1/limits/host:nowhere", json={}, headers={"If-Match": seen}), 404, "not-found")


def test_what_is_refused(root: TestClient, ann: TestClient) -> None:
    problem(root.put("/api/v1/limits/total", json={"capacity": 0}), 400, "bad-request")
    problem(root.put("/api/v1/limits/disk:x", json={"capacity": 1}), 400, "bad-request")
    problem(root.put("/api/v1/limits/host:nowhere", json={"capacity": 1}), 404, "not-found")
    problem(root.post("/api/v1/limits/host/pause"), 400, "bad-request")
    for answer in (
        ann.get("/api/v1/limits"),
        ann.put("/api/v1/limits/total", json={"capacity": 1}),
        ann.post("/api/v1/limits/total/pause"),
        ann.post("/api/v1/limits/total/resume"),
    ):
        problem(answer, 403, "forbidden")


def test_a_job_tells_what_its_vms_wait_for_without_names_that_are_not_to_be_seen(
    root: TestClient, ann: TestClient, world: World
) -> None:
    root.put("/api/v1/limits/total", json={"capacity": 1})
    make(root, "books", "db")
    make(root, "shop", "web")
    world.mover.held = True
    root.post("/api/v1/workloads/books/snapshots", json={})
    world.until(lambda: world.mover.running())
    job = root.post("/api/v1/workloads/shop/snapshots", json={}).json()["id"]
    world.until(lambda: root.get(f"/api/v1/jobs/{job}").json()["vms"][0]["waiting"])
    assert root.get(f"/api/v1/jobs/{job}").json()["vms"][0]["waiting"].endswith("1 of 1 slots in use by db")
    assert ann.get(f"/api/v1/jobs/{job}").json()["vms"][0]["waiting"].endswith("1 of 1 slots in use by a VM")
    assert ann.get("/api/v1/jobs").json()[0]["vms"][0]["waiting"]
    events = world.until(
        lambda: [e["text"] for e in ann.get(f"/api/v1/jobs/{job}/events").json() if "waiting" in e["text"]]
    )
    assert "db" not in events[0]
    world.mover.release()
    world.until(lambda: root.get(f"/api/v1/jobs/{job}").json()["state"] == "succeeded")
    assert root.get(f"/api/v1/jobs/{job}").json()["vms"][0]["waiting"] == ""
