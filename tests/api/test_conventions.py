from __future__ import annotations

import datetime as dt
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from overkeep.api import paging, sight
from overkeep.controller.store import Store, job_pages, listed_jobs
from overkeep.controller.store.answers import Answer, Call, KeyInUse, KeyReused, OutcomeUnknown
from overkeep.engine.errors import EngineUnreachable
from overkeep.testing.access import MemoryAccess
from overkeep.units import utc_now
from tests.api.test_api import ROUTES, back_up, make, problem
from tests.api.test_events import pages
from tests.controller.world import World, disk, vm

KEY = {"Idempotency-Key": "7c9e6679"}


# pages and filters


def test_workloads_and_policies_come_in_pages(root: TestClient, world: World) -> None:
    for name in ("c", "a", "e", "b", "d"):
        world.memory.add_vm(vm(name, disk(name)))
        make(root, name, name)
        root.post("/api/v1/policies", json={"name": name})
    for path in ("/api/v1/workloads", "/api/v1/policies"):
        found = list(pages(root, path, limit=2))
        assert [[item["name"] for item in page] for page in found] == [["a", "b"], ["c", "d"], ["e"]], path
    [exact] = list(pages(root, "/api/v1/workloads", limit=5))
    assert len(exact) == 5, "what fits has no next page"


def test_what_is_made_between_two_pages_is_not_shown_twice(root: TestClient, world: World) -> None:
    for name in ("b", "c", "d"):
        world.memory.add_vm(vm(name, disk(name)))
        make(root, name, name)
    first = root.get("/api/v1/workloads?limit=2")
    make(root, "a", "web")
    assert [item["name"] for item in root.get(first.links["next"]["url"]).json()] == ["d"]


def test_jobs_are_filtered(root: TestClient, world: World) -> None:
    make(root, "shop", "web")
    make(root, "books", "db")
    world.memory.hold("db-vm", "VM is locked.")
    good, bad = back_up(root, world, "shop"), back_up(root, world, "books")
    [point] = root.get("/api/v1/points").json()
    removal = root.delete(f"/api/v1/points/{point['id']}").json()
    world.until(lambda: world.store.jobs.get(removal["id"]).state.over)

    def found(**query: Any) -> list[str]:
        answer = root.get("/api/v1/jobs", params=query)
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()]

    assert found() == [removal["id"], bad["id"], good["id"]]
    assert found(state="failed") == [bad["id"]]
    assert found(state=["failed", "succeeded"], kind="backup") == [bad["id"], good["id"]]
    assert found(kind="removal") == [removal["id"]]
    assert found(workload="books") == found(vm="db") == found(vm="db-vm") == [bad["id"]]
    assert found(since=bad["created"]) == [removal["id"], bad["id"]]
    assert found(until=bad["created"]) == [good["id"]]
    assert [job["id"] for page in pages(root, "/api/v1/jobs", limit=1) for job in page] == found()
    problem(root.get("/api/v1/jobs?state=happy"), 400, "bad-request")
    problem(root.get("/api/v1/jobs?since=0001-01-01T00:00:00%2B14:00"), 400, "bad-request")
    problem(root.get("/api/v1/jobs?workload=nothing"), 404, "not-found")


def test_a_list_of_jobs_says_what_each_says_by_itself(root: TestClient, world: World) -> None:
    make(root, "shop", "web")
    make(root, "books", "db")
    world.memory.hold("db-vm", "VM is locked.")
    back_up(root, world, "shop"), back_up(root, world, "books")
    root.post("/api/v1/limits/total/pause")
    waits = root.post("/api/v1/workloads/shop/snapshots", json={}).json()["id"]
    world.until(lambda: root.get(f"/api/v1/jobs/{waits}").json()["vms"][0]["waiting"])
    found = root.get("/api/v1/jobs").json()
    assert [job["state"] for job in found] == ["running", "failed", "succeeded"]
    assert found == [root.get(f"/api/v1/jobs/{job['id']}").json() for job in found]
    assert all(found[2]["vms"][0][name] for name in ("disks", "spent", "point_id"))


def test_a_list_of_workloads_says_what_each_says_by_itself(root: TestClient, world: World) -> None:
    world.memory.describe("web-vm", tags=("prod",))
    make(root, "shop", "web")
    wanted = {"wanted": "group", "otherwise": "refuse", "frozen_at_most": 20}
    rules = {"include": ["tag=prod"], "exclude": ["name=x*"], "disks": ["db:scratch*"]}
    body = {"name": "büro", "description": "Bücher", "vms": ["db"], "rules": rules, "parallel": 1}
    assert root.post("/api/v1/workloads", json={**body, "consistency": wanted}).status_code == 201
    found = root.get("/api/v1/workloads").json()
    assert [(one["name"], len(one["members"])) for one in found] == [("büro", 2), ("shop", 1)]
    assert found == [root.get(f"/api/v1/workloads/{one['id']}").json() for one in found]


def test_a_list_of_events_says_what_those_of_a_job_say(root: TestClient, world: World) -> None:
    make(root, "shop", "web")
    job = back_up(root, world, "shop")["id"]
    found = root.get(f"/api/v1/events?job={job}&order=oldest").json()
    assert found == root.get(f"/api/v1/jobs/{job}/events").json()
    assert {one["kind"] for one in found} >= {"job.queued", "point.made", "vm.succeeded"}
    assert [one for one in found if one["fields"]]


@pytest.mark.parametrize("first", [1, 2, 256])
def test_a_page_of_jobs_ends_before_it_has_too_many_vms(
    root: TestClient, world: World, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """A job with more of them than that is a page by itself, however many are read at once."""
    monkeypatch.setattr(job_pages, "_AT_ONCE", first)
    monkeypatch.setattr(job_pages, "_AT_ONCE_EACH", 1)
    monkeypatch.setattr(listed_jobs, "_FIRST", first)
    make(root, "both", "web", "db")
    make(root, "one", "web")
    jobs = [back_up(root, world, name)["id"] for name in ("both", "one", "one", "both", "one")][::-1]
    for most, sizes in ((1, [1, 1, 1, 1, 1]), (2, [1, 1, 2, 1]), (3, [2, 2, 1]), (7, [5])):
        monkeypatch.setattr(paging, "MOST_PARTS", most)
        found = [[job["id"] for job in page] for page in pages(root, "/api/v1/jobs", limit=10)]
        assert [len(page) for page in found] == sizes, most
        assert [job for page in found for job in page] == jobs


def test_points_are_filtered(root: TestClient, world: World) -> None:
    make(root)
    for _ in range(3):
        back_up(root, world)
    all_ = root.get("/api/v1/points").json()
    assert [point["mode"] for point in all_] == ["full", "incremental", "incremental"]
    assert root.get("/api/v1/points?mode=full").json() == all_[:1]
    assert root.get("/api/v1/points", params={"since": all_[1]["created"]}).json() == all_[1:]
    assert root.get("/api/v1/points", params={"until": all_[1]["created"]}).json() == all_[:1]
    assert [point for page in pages(root, "/api/v1/points", limit=2) for point in page] == all_


def test_links_keep_the_filters(root: TestClient, world: World) -> None:
    make(root)
    for _ in range(3):
        back_up(root, world)
    found = list(pages(root, "/api/v1/points", limit=1, mode="incremental", vm="web"))
    assert [[point["mode"] for point in page] for page in found] == [["incremental"], ["incremental"]]


def test_a_tenant_pages_through_her_points_alone(
    root: TestClient, ann: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the data base is told which VMs she is shown, or each point is looked at because they are too many."""
    make(root, "shop", "web")
    make(root, "books", "db")
    for _ in range(3):
        back_up(root, world, "books")
        back_up(root, world, "shop")
    hers = [point for point in root.get("/api/v1/points").json() if point["vm_name"] == "web"]
    assert len(hers) == 3
    for most in (1000, 0):
        monkeypatch.setattr(sight, "MOST_NAMED", most)
        found = list(pages(ann, "/api/v1/points", limit=2))
        assert [point for page in found for point in page] == hers, most
        assert ann.get("/api/v1/points?vm=db").json() == []


def test_a_permit_that_is_not_enough_shows_no_points(
    root: TestClient, ann: TestClient, world: World, access: MemoryAccess
) -> None:
    make(root, "books", "db")
    back_up(root, world, "books")
    access.allow("ann", "db-vm", "run_vm")
    assert ann.get("/api/v1/points").json() == []
    access.allow("ann", "db-vm", "backup_disk")
    assert len(ann.get("/api/v1/points").json()) == 1


def test_points_of_a_target_that_is_away_are_shown_as_they_were_last_seen(root: TestClient, world: World) -> None:
    make(root)
    back_up(root, world)
    [before] = root.get("/api/v1/points").json()
    assert before["listed"] is not None
    assert before["away"] is False
    hidden = world.repository.root.rename(world.folder / "hidden")
    answer = root.get("/api/v1/points")
    assert answer.headers["Overkeep-Away"] == "nfs1"
    assert answer.json() == [{**before, "away": True}]
    problem(root.get(f"/api/v1/points/{before['id']}"), 503, "targets-away")
    root.post("/api/v1/policies", json={"name": "nightly", "retention": {"last": 1}})
    preview = root.get("/api/v1/workloads/demo/retention?policy=nightly")
    assert preview.headers["Overkeep-Away"] == "nfs1"
    assert [mark["id"] for vm in preview.json() for mark in vm["marks"]] == [before["id"]]
    hidden.rename(world.repository.root)
    again = root.get("/api/v1/points")
    assert "Overkeep-Away" not in again.headers
    assert again.json() == [before]


def test_a_target_is_rescanned_for_administrators(root: TestClient, ann: TestClient, world: World) -> None:
    make(root)
    back_up(root, world)
    world.store.points.remove_target("nfs1")
    problem(ann.post("/api/v1/targets/nfs1/rescan"), 403, "forbidden")
    problem(root.post("/api/v1/targets/nfs9/rescan"), 404, "not-found")
    answer = root.post("/api/v1/targets/nfs1/rescan")
    assert (answer.status_code, answer.json()["listing"]) == (202, True)
    world.catalogue.round()
    after = root.get("/api/v1/targets/nfs1").json()
    assert (after["listing"], after["listing_error"]) == (False, "")
    assert after["listed"] is not None
    assert len(root.get("/api/v1/points").json()) == 1


# versions


def test_a_change_of_a_workload_names_its_version(root: TestClient) -> None:
    made = make(root)
    path, body = f"/api/v1/workloads/{made['id']}", {"name": "demo", "vms": ["web"]}
    assert root.get(path).headers["etag"] == '"1"'
    problem(root.put(path, json=body), 428, "version-needed")
    changed = root.put(path, json={**body, "description": "first"}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"], changed.json()["version"]) == (200, '"2"', 2)
    problem(
        root.put(path, json={**body, "description": "second"}, headers={"If-Match": '"1"'}), 412, "changed-meanwhile"
    )
    assert root.get(path).json()["description"] == "first"


def test_a_policy_is_given_to_the_schedule_that_was_seen(root: TestClient) -> None:
    make(root)
    root.post("/api/v1/policies", json={"name": "nightly"})
    seen = root.get("/api/v1/workloads/demo/schedule").headers["etag"]
    path, body = "/api/v1/workloads/demo/policy", {"policy": "nightly"}
    given = root.put(path, json=body, headers={"If-Match": seen})
    assert given.status_code == 200, given.text
    assert given.headers["etag"] != seen
    problem(root.put(path, json={"policy": None}, headers={"If-Match": seen}), 412, "changed-meanwhile")
    assert root.get("/api/v1/workloads/demo/schedule").json()["policy"] == "nightly"
    assert root.put(path, json={"policy": None}).status_code == 200


def test_a_pin_is_that_of_the_point_that_was_seen(root: TestClient, world: World) -> None:
    make(root)
    back_up(root, world)
    [point] = root.get("/api/v1/points").json()
    path = f"/api/v1/points/{point['id']}"
    seen = root.get(path).headers["etag"]
    pinned = root.put(f"{path}/pin", json={"reason": "audit"}, headers={"If-Match": seen})
    assert pinned.headers["etag"] == root.get(path).headers["etag"] != seen
    problem(root.put(f"{path}/pin", json={"reason": "x"}, headers={"If-Match": seen}), 412, "changed-meanwhile")
    assert root.get(path).json()["pin"]["reason"] == "audit"


# calls that are repeated


def test_a_call_that_is_repeated_is_done_once(root: TestClient, world: World) -> None:
    make(root)
    first = root.post("/api/v1/workloads/demo/snapshots", json={}, headers=KEY)
    world.until(lambda: world.store.jobs.get(first.json()["id"]).state.over)
    again = root.post("/api/v1/workloads/demo/snapshots", json={}, headers=KEY)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(world.store.jobs.all()) == 1
    quoted = root.post("/api/v1/workloads/demo/snapshots", json={}, headers={"Idempotency-Key": '"7c9e6679"'})
    assert quoted.content == first.content


def test_a_key_is_of_one_call(root: TestClient) -> None:
    make(root)
    body = {"name": "other", "vms": ["db"]}
    assert root.post("/api/v1/workloads", json=body, headers=KEY).status_code == 201
    for answer in (
        root.post("/api/v1/workloads", json={**body, "name": "x"}, headers=KEY),
        root.post("/api/v1/workloads/demo/pause", headers=KEY),
    ):
        problem(answer, 422, "idempotency-key-reused")


def test_keys_are_the_callers_own(root: TestClient, ann: TestClient, access: MemoryAccess) -> None:
    access.allow("ann", "db-vm", "backup_disk")
    make(root)
    assert root.post("/api/v1/workloads", json={"name": "a", "vms": ["db"]}, headers=KEY).status_code == 201
    hers = ann.post("/api/v1/workloads", json={"name": "b", "vms": ["db"]}, headers=KEY)
    assert (hers.status_code, hers.json()["name"]) == (201, "b")


def test_what_was_refused_may_be_asked_for_again(root: TestClient, world: World) -> None:
    body = {"name": "demo", "vms": ["web"]}
    world.memory.fail("find_vm", EngineUnreachable(url="u", reason="down"))
    problem(root.post("/api/v1/workloads", json=body, headers=KEY), 503, "engine-unreachable")
    problem(root.post("/api/v1/workloads", json={"name": 1}, headers=KEY), 400, "bad-request")
    assert root.post("/api/v1/workloads", json=body, headers=KEY).status_code == 201


def test_what_broke_off_is_not_done_again(root: TestClient, world: World) -> None:
    body = {"name": "demo", "vms": ["web"]}
    world.memory.fail("find_vm", ZeroDivisionError("ours"))
    problem(root.post("/api/v1/workloads", json=body, headers=KEY), 500, "internal")
    problem(root.post("/api/v1/workloads", json=body, headers=KEY), 409, "idempotency-outcome-unknown")
    assert root.get("/api/v1/workloads").json() == []


def test_of_two_at_once_one_is_done(root: TestClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = threading.Event(), threading.Event()
    members = world.controller.members

    def slowly(*args: Any, **kwargs: Any) -> Any:
        entered.set()
        assert go_on.wait(90)
        return members(*args, **kwargs)

    monkeypatch.setattr(world.controller, "members", slowly)
    body = {"name": "demo", "vms": ["web"]}
    answers = []
    first = threading.Thread(
        target=lambda: answers.append(root.post("/api/v1/workloads", json=body, headers=KEY).status_code)
    )
    first.start()
    assert entered.wait(90)
    second = TestClient(root.app, headers=root.headers)
    problem(second.post("/api/v1/workloads", json=body, headers=KEY), 409, "idempotency-key-in-use")
    go_on.set()
    first.join(90)
    assert answers == [201]
    assert second.post("/api/v1/workloads", json=body, headers=KEY).status_code == 201


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "a\tb"])
def test_keys_that_are_none(root: TestClient, key: str) -> None:
    problem(root.post("/api/v1/workloads", json={}, headers={"Idempotency-Key": key}), 400, "bad-request")


def test_a_key_opens_nothing_without_a_token(http: TestClient) -> None:
    problem(http.post("/api/v1/workloads", json={}, headers=KEY), 401, "not-logged-in")


def test_answers_are_kept_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    call = Call(user_id="u", key="k", fingerprint="f")
    now = utc_now()
    monkeypatch.setattr("overkeep.controller.store.answers.utc_now", lambda: now)
    assert store.answers.begin(call) is None
    with pytest.raises(KeyInUse):
        store.answers.begin(call)
    now += dt.timedelta(minutes=3)
    with pytest.raises(OutcomeUnknown):
        store.answers.begin(call)
    answer = Answer(status=201, body="b", headers={"location": "l"})
    store.answers.finish(call, answer)
    now += dt.timedelta(hours=23)
    store.answers.forget()
    assert store.answers.begin(call) == answer
    with pytest.raises(KeyReused):
        store.answers.begin(Call(user_id="u", key="k", fingerprint="g"))
    now += dt.timedelta(hours=2)
    assert store.answers.begin(call) is None
    store.close()


# what holds everywhere


def test_no_cache_keeps_what_is_answered(root: TestClient, http: TestClient) -> None:
    for answer in (
        root.get("/api/v1/workloads"),
        http.get("/api/v1/workloads"),
        root.post("/api/v1/jobs", content=b"x"),
    ):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_who_is_to_come_again_is_told_when(root: TestClient, world: World) -> None:
    world.memory.fail("find_vm", EngineUnreachable(url="u", reason="down"))
    answer = root.post("/api/v1/workloads", json={"name": "demo", "vms": ["web"]})
    problem(answer, 503, "engine-unreachable")
    assert int(answer.headers["retry-after"]) > 0
    assert "retry-after" not in root.get("/api/v1/nowhere").headers


READS = [path for method, path in ROUTES if method == "GET" and not path.endswith(("/stream", "/openapi.json"))]


def test_no_read_shows_what_is_not_the_callers(root: TestClient, ann: TestClient, world: World) -> None:
    """Every route, with the ids of somebody else's things: their names are in no answer."""
    made = make(root, "topsecret", "db")
    policy = root.post("/api/v1/policies", json={"name": "topsecret-policy"}).json()
    root.put(f"/api/v1/workloads/{made['id']}/policy", json={"policy": "topsecret-policy"})
    job = back_up(root, world, "topsecret")
    point = job["result"]["points"]["db-vm"]
    known = {"workload": made["id"], "policy": policy["id"], "job_id": job["id"], "point": point}
    known |= {"resource": "total", "target": "nfs1"}
    shown = 0
    for path in READS:
        filled = re.sub(r"{(\w+)}", lambda found: known[found[1]], path)
        answers = {who: who.get(filled) for who in (root, ann)}
        assert answers[root].status_code == 200, (filled, answers[root].text)
        shown += "topsecret" in answers[root].text or "db" in re.findall(r"\w+", answers[root].text)
        assert answers[ann].status_code in (200, 403, 404), filled
        assert "topsecret" not in answers[ann].text, filled
        assert "db" not in re.findall(r"\w+", answers[ann].text), filled
    assert shown >= 10, "the administrator sees them in most"
