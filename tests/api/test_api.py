from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from overkeep.api import openapi
from overkeep.api.app import create_app
from overkeep.engine.api import ObjectKind
from overkeep.testing.access import MemoryAccess
from tests.controller.world import World, vm


def make(http: TestClient, name: str = "demo", *vms: str) -> dict[str, Any]:
    answer = http.post("/api/v1/workloads", json={"name": name, "vms": list(vms or ("web",))})
    assert answer.status_code == 201, answer.text
    return answer.json()


def back_up(http: TestClient, world: World, workload: str = "demo") -> dict[str, Any]:
    answer = http.post(f"/api/v1/workloads/{workload}/snapshots", json={})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    world.until(lambda: world.store.jobs.get(job["id"]).state.over)
    return http.get(f"/api/v1/jobs/{job['id']}").json()


def problem(answer: Any, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["code"], document["status"]) == (code, status)
    return document["detail"]


def test_the_document_that_is_committed_is_the_one_that_is_served() -> None:
    committed = Path(__file__).parents[2] / "docs/protocol/openapi.json"
    assert committed.read_text() == openapi.text(create_app(None)), (
        "run `python -m overkeep.api > docs/protocol/openapi.json`"
    )


def test_health_needs_no_token(http: TestClient) -> None:
    assert http.get("/api/v1/health").json()["status"] == "ok"


ROUTES = sorted(
    (method, str(route.path))
    for route in iter_route_contexts(create_app(None).routes)
    for method in (route.methods or {"GET"}) - {"HEAD"}
)


def test_there_are_routes_to_walk() -> None:
    assert ("GET", "/api/v1/health") in ROUTES
    assert len(ROUTES) > 30
    assert all(path.startswith("/api/v1/") for _, path in ROUTES)


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route != ("GET", "/api/v1/health")])
def test_everything_else_does(http: TestClient, method: str, path: str) -> None:
    """Whatever is wrong with the call besides."""
    for headers in ({}, {"Authorization": "Bearer nobody"}, {"Authorization": "Basic cm9vdDpyb290"}):
        answer = http.request(method, re.sub(r"{\w+}", "x", path), headers=headers)
        assert "overkeep login" in problem(answer, 401, "not-logged-in")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_an_expired_token_is_refused(root: TestClient, access: MemoryAccess) -> None:
    assert root.get("/api/v1/workloads").status_code == 200
    access.revoke("root-token")
    problem(root.get("/api/v1/workloads"), 401, "not-logged-in")


def test_workloads(root: TestClient) -> None:
    made = make(root)
    assert made["members"] == [{"vm_id": "web-vm", "vm_name": "web", "by_rule": False}]
    problem(root.post("/api/v1/workloads", json={"name": "demo", "vms": ["db"]}), 409, "conflict")
    body = {"name": "shop", "vms": ["web", "db"], "description": "both"}
    changed = root.put("/api/v1/workloads/demo", json=body, headers={"If-Match": "*"})
    assert [m["vm_name"] for m in changed.json()["members"]] == ["web", "db"]
    assert root.get(f"/api/v1/workloads/{made['id']}").json()["name"] == "shop"
    assert root.delete("/api/v1/workloads/shop").status_code == 204
    problem(root.get("/api/v1/workloads/shop"), 404, "not-found")


def test_a_vm_that_does_not_exist(root: TestClient) -> None:
    assert "'nobody'" in problem(
        root.post("/api/v1/workloads", json={"name": "w", "vms": ["nobody"]}), 404, "no-such-vm"
    )


@pytest.mark.parametrize("body", [{}, {"name": "x"}, {"name": "", "vms": ["web"]}, {"name": "x", "vms": []}, []])
def test_a_request_that_is_wrong(root: TestClient, body: Any) -> None:
    problem(root.post("/api/v1/workloads", json=body), 400, "bad-request")


def test_a_backup_and_its_events(root: TestClient, world: World) -> None:
    make(root)
    job = back_up(root, world)
    assert job["state"] == "succeeded"
    assert job["caller"] == "admin@internal"
    assert job["vms"][0]["disks"][0]["mode"] == "full"
    assert set(job["vms"][0]["spent"]) == {"engine", "copying", "other", "after"}
    events = root.get(f"/api/v1/jobs/{job['id']}/events").json()
    assert any("has restore point" in event["text"] for event in events)
    after = events[-1]["seq"]
    assert root.get(f"/api/v1/jobs/{job['id']}/events", params={"after": after, "wait": 20}).json() == []
    [point] = root.get("/api/v1/points", params={"workload": "demo"}).json()
    assert point["images"][0]["stored"] == 1 << 18
    assert root.get(f"/api/v1/points/{point['id']}").json() == point
    assert [j["id"] for j in root.get("/api/v1/jobs").json()] == [job["id"]]


def test_a_job_on_the_vm_is_named(root: TestClient, world: World) -> None:
    make(root)
    world.mover.held = True
    job = root.post("/api/v1/workloads/demo/snapshots", json={"full": True}).json()
    assert job["id"] in problem(root.post("/api/v1/workloads/demo/snapshots", json={}), 409, "conflict")
    assert root.post(f"/api/v1/jobs/{job['id']}/cancel").status_code == 202
    world.until(lambda: world.store.jobs.get(job["id"]).state.over)
    assert root.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    problem(root.post(f"/api/v1/jobs/{job['id']}/cancel"), 409, "conflict")
    world.assert_nothing_open()


def test_a_restore(root: TestClient, world: World) -> None:
    make(root, "demo", "web", "db")
    back_up(root, world)
    points = root.get("/api/v1/points").json()
    assert points[0]["id"] == points[1]["id"] or len(points) == 2
    point = next(p for p in points if p["vm_name"] == "web")
    asked = {"point": point["id"], "vm": "web", "name": "copy"}
    answer = root.post("/api/v1/restores", json=asked)
    assert answer.status_code == 202, answer.text
    world.until(lambda: world.store.jobs.get(answer.json()["id"]).state.over)
    assert root.get(f"/api/v1/jobs/{answer.json()['id']}").json()["state"] == "succeeded"


def test_one_run_makes_points_of_the_same_id(root: TestClient, world: World) -> None:
    make(root, "demo", "web", "db")
    back_up(root, world)
    ids = {p["id"] for p in root.get("/api/v1/points").json()}
    if len(ids) == 1:
        detail = problem(root.post("/api/v1/restores", json={"point": ids.pop(), "name": "x"}), 409, "ambiguous-point")
        assert "web" in detail
        assert "db" in detail


def test_of_several_points_of_an_id_those_count_that_she_may_see(
    root: TestClient, ann: TestClient, world: World
) -> None:
    make(root, "demo", "web", "db")
    back_up(root, world)
    [hers] = ann.get("/api/v1/points").json()
    assert hers["vm_name"] == "web"
    assert ann.get(f"/api/v1/points/{hers['id']}").json() == hers
    there = problem(ann.get(f"/api/v1/points/{hers['id']}", params={"vm": "db"}), 404, "not-found")
    assert there == problem(ann.get(f"/api/v1/points/{hers['id']}", params={"vm": "xx"}), 404, "not-found")


def lasting(target: dict[str, Any]) -> dict[str, Any]:
    """A target without what others change who write to the same disk meanwhile."""
    moving = ("free", "used", "grows_a_day", "days_until_full")
    assert target.keys() >= set(moving)
    return {name: value for name, value in target.items() if name not in moving}


def test_targets(root: TestClient, ann: TestClient, world: World) -> None:
    [target] = ann.get("/api/v1/targets").json()
    assert (target["name"], target["kind"], target["ok"], target["default"]) == ("nfs1", "path", True, True)
    assert lasting(target) == lasting(root.get("/api/v1/targets/nfs1").json())
    problem(root.get("/api/v1/targets/nfs9"), 404, "not-found")
    problem(ann.post("/api/v1/targets/nfs1/accept", json={"found": ""}), 403, "forbidden")
    problem(root.post("/api/v1/targets/nfs1/accept", json={"found": "other"}), 409, "conflict")
    accepted = root.post("/api/v1/targets/nfs1/accept", json={"found": target["found"]}).json()
    assert lasting(accepted) == lasting(target)
    make(root, "demo", "db")
    problem(ann.put("/api/v1/workloads/demo/target", json={"target": "nfs1"}), 404, "not-found")
    problem(root.put("/api/v1/workloads/demo/target", json={"target": "nfs9"}), 404, "not-found")
    problem(root.post("/api/v1/workloads", json={"name": "w", "vms": ["web"], "target": "nfs9"}), 404, "not-found")
    moved = root.put("/api/v1/workloads/demo/target", json={"target": "nfs1"}).json()
    assert moved == {"workload": root.get("/api/v1/workloads/demo").json(), "stay": [], "away": []}


def test_who_has_no_right_sees_nothing(root: TestClient, ann: TestClient, world: World) -> None:
    make(root, "hers", "web")
    make(root, "other", "db")
    back_up(root, world, "other")
    assert [w["name"] for w in ann.get("/api/v1/workloads").json()] == ["hers"]
    problem(ann.get("/api/v1/workloads/other"), 404, "not-found")
    problem(ann.post("/api/v1/workloads/other/snapshots", json={}), 404, "not-found")
    assert ann.get("/api/v1/jobs").json() == []
    assert ann.get("/api/v1/points").json() == []
    [point] = root.get("/api/v1/points").json()
    problem(ann.get(f"/api/v1/points/{point['id']}"), 404, "not-found")
    problem(ann.post("/api/v1/restores", json={"point": point["id"], "name": "x"}), 404, "not-found")
    problem(ann.get("/api/v1/movers"), 403, "forbidden")


def test_points_of_her_vm_are_verified_and_of_no_other(ann: TestClient, root: TestClient, world: World) -> None:
    make(root, "both", "web", "db")
    back_up(root, world, "both")
    asked = {"workload": "both", "vm": "web", "seconds": 600}
    started = root.post("/api/v1/verifications", json=asked)
    assert started.status_code == 202
    assert started.headers["Location"] == f"/api/v1/jobs/{started.json()['id']}"
    world.until(lambda: root.get(started.headers["Location"]).json()["state"] == "succeeded")
    [point] = root.get("/api/v1/points", params={"vm": "web"}).json()
    assert point["verification"]["sound"]
    problem(ann.post("/api/v1/verifications", json={**asked, "vm": "db"}), 404, "not-found")
    problem(root.post("/api/v1/verifications", json={**asked, "vm": "none"}), 404, "not-found")
    for wrong in ({"seconds": 0}, {"seconds": 1e9}, {"share": 0}, {"share": 1.1}):
        assert root.post("/api/v1/verifications", json={**asked, **wrong}).status_code == 400


def test_her_own_vm_is_hers(ann: TestClient, world: World, access: MemoryAccess) -> None:
    make(ann, "hers", "web")
    assert back_up(ann, world, "hers")["state"] == "succeeded"
    access.allow("ann", "db-vm", "run_vm")
    problem(ann.post("/api/v1/workloads", json={"name": "w", "vms": ["db"]}), 403, "forbidden")
    problem(
        ann.put("/api/v1/workloads/hers", json={"name": "hers", "vms": ["web", "db"]}, headers={"If-Match": "*"}),
        403,
        "forbidden",
    )
    [point] = ann.get("/api/v1/points").json()
    access.forbid("ann", "web-vm", "create_vm")
    problem(ann.post("/api/v1/restores", json={"point": point["id"], "name": "x"}), 403, "forbidden")


@pytest.mark.parametrize("vm", ["db", "db-vm"])
def test_a_vm_that_is_not_hers_does_not_exist_for_her(ann: TestClient, vm: str) -> None:
    make(ann, "hers", "web")
    there = ann.post("/api/v1/workloads", json={"name": "w", "vms": ["web", vm]})
    not_there = ann.post("/api/v1/workloads", json={"name": "w", "vms": ["web", "xx"]})
    assert problem(there, 404, "no-such-vm") == problem(not_there, 404, "no-such-vm").replace("'xx'", repr(vm))
    problem(
        ann.put("/api/v1/workloads/hers", json={"name": "hers", "vms": [vm]}, headers={"If-Match": "*"}),
        404,
        "no-such-vm",
    )


def test_of_several_vms_of_a_name_those_count_that_she_knows(
    root: TestClient, ann: TestClient, world: World, access: MemoryAccess
) -> None:
    for vm_id in ("db-2", "db-3"):
        world.memory.add_vm(dataclasses.replace(vm("db"), id=vm_id))
    body = {"name": "w", "vms": ["db"]}
    assert "3 VMs" in problem(root.post("/api/v1/workloads", json=body), 409, "ambiguous-name")
    problem(ann.post("/api/v1/workloads", json=body), 404, "no-such-vm")
    access.allow("ann", "db-2", "backup_disk")
    assert make(ann, "w", "db")["members"] == [{"vm_id": "db-2", "vm_name": "db", "by_rule": False}]
    access.allow("ann", "db-3", "run_vm")
    detail = problem(ann.post("/api/v1/workloads", json=body), 409, "ambiguous-name")
    assert "2 VMs" in detail
    assert "db-vm" not in detail


def test_a_restore_needs_rights_where_it_goes(
    root: TestClient, ann: TestClient, world: World, access: MemoryAccess
) -> None:
    make(root)
    back_up(root, world)
    world.memory.known_domains["data2"] = "domain-2"
    [point] = root.get("/api/v1/points").json()
    asked = {"point": point["id"], "name": "copy"}
    detail = problem(ann.post("/api/v1/restores", json=asked), 403, "forbidden")
    assert "cluster 'Default'" in detail
    assert "'create_vm'" in detail
    access.allow("ann", "cluster-1", "create_vm", of=ObjectKind.CLUSTER)
    detail = problem(ann.post("/api/v1/restores", json=asked), 403, "forbidden")
    assert "storage domain 'data1'" in detail
    assert "'create_disk'" in detail
    access.allow("ann", "domain-2", "create_disk", of=ObjectKind.STORAGE_DOMAIN)
    problem(ann.post("/api/v1/restores", json=asked), 403, "forbidden")  # that of the point is still not hers
    answer = ann.post("/api/v1/restores", json={**asked, "storage_domain": "data2"})
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    world.until(lambda: world.store.jobs.get(job).state.over)
    assert ann.get(f"/api/v1/jobs/{job}").json()["state"] == "succeeded"


def test_movers_and_leftovers(root: TestClient, world: World) -> None:
    [mover] = root.get("/api/v1/movers").json()
    assert mover["ok"]
    world.mover.reachable = False
    [mover] = root.get("/api/v1/movers").json()
    assert not mover["ok"]
    assert "start overkeep-mover" in mover["error"]
    assert root.get("/api/v1/leftovers").json() == []


def test_unknown_paths_and_methods_are_problems(root: TestClient) -> None:
    assert "/api/v1/openapi.json" in problem(root.get("/api/v1/nowhere"), 404, "no-such-address")
    answer = root.delete("/api/v1/jobs")
    assert "takes GET" in problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET"


def test_a_request_tells_which_parts_of_it_are_wrong(root: TestClient) -> None:
    answer = root.post("/api/v1/workloads", json={"vms": ["web"], "more": 1})
    problem(answer, 400, "bad-request")
    assert {(fault["place"], fault["name"]) for fault in answer.json()["errors"]} == {
        ("body", "name"),
        ("body", "more"),
    }
    [fault] = root.get("/api/v1/jobs?limit=many").json()["errors"]
    assert (fault["place"], fault["name"]) == ("query", "limit")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_bodies_are_json(root: TestClient, media_type: str) -> None:
    answer = root.post("/api/v1/workloads", content=b'{"name": "x"}', headers={"Content-Type": media_type})
    problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"name": "\\ud800", "vms": ["web"]}'])
def test_a_body_that_cannot_be_read(root: TestClient, body: bytes) -> None:
    answer = root.post("/api/v1/workloads", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 400, "bad-request")


def test_a_body_that_is_too_large_is_not_read(root: TestClient) -> None:
    def chunks() -> Iterator[bytes]:  # without a length
        for _ in range(40):
            yield b" " * (1 << 16)

    headers = {"Content-Type": "application/json"}
    for body in (b" " * (2 << 20), chunks()):
        problem(root.post("/api/v1/workloads", content=body, headers=headers), 413, "request-too-large")


def test_a_zero_byte_in_an_address(root: TestClient) -> None:
    for path in ("workloads/a%00b", "points?vm=a%00b"):
        problem(root.get(f"/api/v1/{path}"), 400, "bad-request")


def test_a_fault_of_ours_is_a_problem_without_a_traceback(root: TestClient, access: MemoryAccess) -> None:
    access.fail(ZeroDivisionError("secret"))
    answer = root.get("/api/v1/workloads")
    assert "secret" not in json.dumps(answer.json())
    problem(answer, 500, "internal")


def backed_up(http: TestClient, world: World, vm_name: str) -> str:
    """Back a VM up and return the id of its point."""
    make(http, "demo", vm_name)
    back_up(http, world)
    [point] = http.get("/api/v1/points").json()
    return str(point["id"])


def test_a_pin_is_of_who_made_it(root: TestClient, ann: TestClient, world: World, access: MemoryAccess) -> None:
    access.add("bob-token", user_id="bob", name="bob@internal")
    access.allow("bob", "web-vm", "backup_disk")
    bob = TestClient(root.app, headers={"Authorization": "Bearer bob-token"})
    point = backed_up(root, world, "web")
    path = f"/api/v1/points/{point}/pin"
    answer = ann.put(path, json={"reason": "audit of 2026"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["pin"]["by"], answer.json()["pin"]["reason"]) == ("ann@internal", "audit of 2026")
    assert root.get("/api/v1/points").json()[0]["pin"] == ann.get(f"/api/v1/points/{point}").json()["pin"]
    for refused in (bob.delete(path), bob.put(path, json={"reason": "mine"})):
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert ann.delete(path).status_code == 204
    assert ann.get(f"/api/v1/points/{point}").json()["pin"] is None
    assert ann.delete(path).status_code == 204, "it may be said twice"
    bob.put(path, json={"reason": "mine"})
    assert root.delete(path).status_code == 204, "an administrator may"


def test_a_pin_needs_the_right_to_back_up(root: TestClient, ann: TestClient, world: World) -> None:
    point = backed_up(root, world, "db")
    for answer in (
        ann.put(f"/api/v1/points/{point}/pin", json={"reason": "x"}),
        ann.delete(f"/api/v1/points/{point}/pin"),
    ):
        assert answer.status_code == 404, "it does not exist for her"
    assert root.get("/api/v1/points").json()[0]["pin"] is None


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": " "}, {"reason": "a\nb"}, {"reason": "x" * 201}])
def test_a_pin_says_why(root: TestClient, world: World, body: Any) -> None:
    point = backed_up(root, world, "web")
    problem(root.put(f"/api/v1/points/{point}/pin", json=body), 400, "bad-request")
    problem(root.put("/api/v1/points/nothing/pin", json={"reason": "x"}), 404, "not-found")


def test_a_point_is_deleted_by_a_job(root: TestClient, ann: TestClient, world: World) -> None:
    point = backed_up(root, world, "web")
    assert ann.put(f"/api/v1/points/{point}/pin", json={"reason": "audit"}).status_code == 200
    problem(root.delete(f"/api/v1/points/{point}"), 409, "point-pinned")
    assert ann.delete(f"/api/v1/points/{point}/pin").status_code == 204
    answer = ann.delete(f"/api/v1/points/{point}")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    world.until(lambda: world.store.jobs.get(job["id"]).state.over)
    done = ann.get(f"/api/v1/jobs/{job['id']}").json()
    assert (done["kind"], done["state"], done["caller"]) == ("removal", "succeeded", "ann@internal")
    assert ann.get("/api/v1/points").json() == []
    problem(ann.delete(f"/api/v1/points/{point}"), 404, "not-found")


def test_who_may_not_back_up_deletes_nothing(root: TestClient, ann: TestClient, world: World) -> None:
    point = backed_up(root, world, "db")
    problem(ann.delete(f"/api/v1/points/{point}"), 404, "not-found")
    assert len(root.get("/api/v1/points").json()) == 1


def test_what_failed_is_tried_again_by_who_may(root: TestClient, ann: TestClient, world: World) -> None:
    make(root, "demo", "web", "db")
    world.memory.hold("db-vm", "VM is locked.")
    job = back_up(root, world)
    assert job["state"] == "partial"
    problem(ann.post(f"/api/v1/jobs/{job['id']}/retry"), 403, "forbidden")
    world.memory.let_go("db-vm")
    answer = root.post(f"/api/v1/jobs/{job['id']}/retry")
    assert answer.status_code == 202, answer.text
    again = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{again['id']}"
    world.until(lambda: world.store.jobs.get(again["id"]).state.over)
    done = root.get(f"/api/v1/jobs/{again['id']}").json()
    assert (done["state"], [vm["vm_name"] for vm in done["vms"]]) == ("succeeded", ["db"])


def test_the_check_is_for_administrators(root: TestClient, ann: TestClient) -> None:
    problem(ann.get("/api/v1/check"), 403, "forbidden")
    [found] = root.get("/api/v1/check").json()
    assert found == {"area": "target", "subject": "nfs1", "verdict": "warning", "text": "Nearly full."}
