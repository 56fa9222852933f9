from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from overkeep.api import streams
from overkeep.api.server import ApiServer
from overkeep.cli import sse
from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.movers import enrolment
from overkeep.testing.access import MemoryAccess
from tests.api.test_api import back_up, make, problem
from tests.controller.world import World


def note(text: str, *, kind: Kind = Kind.JOB_NOTE, **about: str) -> Draft:
    return Draft(kind=kind, text=text, about=About(**about))


def texts(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [event["text"] for event in answer.json()]


def pages(http: TestClient, path: str, **query: Any) -> Iterator[list[Any]]:
    """All pages of a list, by their links."""
    answer = http.get(path, params=query)
    while True:
        assert answer.status_code == 200, answer.text
        yield answer.json()
        if "next" not in answer.links:
            return
        answer = http.get(answer.links["next"]["url"])


def test_events_are_listed_newest_first_in_pages(root: TestClient, world: World) -> None:
    world.store.events.add(*(note(str(number)) for number in range(7)))
    assert texts(root.get("/api/v1/events")) == list("6543210")
    assert texts(root.get("/api/v1/events?order=oldest&limit=2")) == ["0", "1"]
    for order in ("newest", "oldest"):
        found = list(pages(root, "/api/v1/events", limit=3, order=order))
        assert [len(page) for page in found] == [3, 3, 1]
        said = [event["text"] for page in found for event in page]
        assert said == sorted(said, reverse=order == "newest")


def test_what_an_event_says(root: TestClient, world: World) -> None:
    make(root)
    job = back_up(root, world)
    [made] = root.get("/api/v1/events", params={"kind": "point.made"}).json()
    assert (made["job_id"], made["vm_name"], made["level"]) == (job["id"], "web", "info")
    assert (made["caller"], made["workload_id"]) == ("admin@internal", job["workload_id"])
    assert made["fields"]["stored"] == 1 << 18


def test_filters(root: TestClient, world: World) -> None:
    make(root)
    back_up(root, world)
    for query in ({"workload": "demo"}, {"vm": "web"}, {"kind": "vm"}, {"by": "admin@internal"}):
        assert texts(root.get("/api/v1/events", params=query)), query
    for query in (
        {"vm": "db"},
        {"kind": "mover"},
        {"level": "error"},
        {"host": "x"},
        {"until": "2020-01-01T00:00:00Z"},
    ):
        assert texts(root.get("/api/v1/events", params=query)) == [], query
    problem(root.get("/api/v1/events?workload=nothing"), 404, "not-found")
    for query in ({"level": "bad"}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"}, {"order": "x"}):
        problem(root.get("/api/v1/events", params=query), 400, "bad-request")


@pytest.mark.parametrize("cursor", ["x", "!!!", "WzFd", "é", "bnVsbA", "e30"])
def test_a_cursor_is_of_its_list(root: TestClient, world: World, cursor: str) -> None:
    world.store.events.add(note("a"), note("b"))
    problem(root.get("/api/v1/events", params={"cursor": cursor}), 400, "bad-cursor")
    link = root.get("/api/v1/events?limit=1&kind=job").links["next"]["url"]
    assert texts(root.get(link)) == ["a"]
    problem(root.get(link.replace("kind=job", "kind=vm")), 400, "bad-cursor")


@pytest.mark.parametrize("key", [["x"], [2**70], [None], [[]], [{}]])
def test_a_cursor_that_somebody_made_up(root: TestClient, world: World, key: list[Any]) -> None:
    world.store.events.add(note("a"), note("b"))
    given = httpx.URL(root.get("/api/v1/events?limit=1").links["next"]["url"]).params["cursor"]
    scope, *_ = json.loads(base64.urlsafe_b64decode(given + "=="))
    made_up = base64.urlsafe_b64encode(json.dumps([scope, *key]).encode()).decode()
    problem(root.get("/api/v1/events", params={"limit": 1, "cursor": made_up}), 400, "bad-cursor")


def test_she_sees_events_of_her_vms_alone(root: TestClient, ann: TestClient, world: World) -> None:
    make(root, "both", "web", "db")
    job = back_up(root, world, "both")
    world.store.events.add(note("hers", vm_id="web-vm"), note("other", vm_id="db-vm"), note("nobody's"))
    world.store.events.add(note("gone", job_id="unknown"), note("gone too", workload_id="unknown"))
    seen = ann.get("/api/v1/events", params={"limit": 1000}).json()
    assert {event["vm_id"] for event in seen} == {"", "web-vm"}
    assert "hers" in {event["text"] for event in seen}
    assert {"other", "nobody's", "gone", "gone too"}.isdisjoint({event["text"] for event in seen})
    assert {event["kind"] for event in seen if not event["vm_id"]} == {
        "job.queued",
        "job.started",
        "job.succeeded",
        "workload.made",
    }
    of_job = ann.get(f"/api/v1/jobs/{job['id']}/events").json()
    assert {event["vm_id"] for event in of_job} == {"", "web-vm"}
    assert "'db'" not in json.dumps(of_job)


@pytest.mark.parametrize("named", [0, 1000], ids=["many VMs", "few VMs, which the data base looks for"])
def test_pages_of_who_sees_little_go_on(
    ann: TestClient, world: World, monkeypatch: pytest.MonkeyPatch, named: int
) -> None:
    monkeypatch.setattr("overkeep.api.sight.MOST_NAMED", named)
    world.store.events.add(*(note(str(n), vm_id="web-vm" if n % 50 == 0 else "db-vm") for n in range(400)))
    monkeypatch.setattr("overkeep.api.paging._BATCH", 20)
    monkeypatch.setattr("overkeep.api.paging._MOST_READ", 100)
    found = list(pages(ann, "/api/v1/events", limit=3))
    assert [event["text"] for page in found for event in page] == [str(n) for n in range(350, -1, -50)]
    assert len(found) == 3 if named else len(found) > 3


# streams


@pytest.fixture
def server(http: TestClient, world: World, tmp_path: Path) -> Iterator[ApiServer]:
    pki = enrolment.init(tmp_path / "pki", ["127.0.0.1"])
    server = ApiServer(http.app, listen="127.0.0.1", port=0, cert=pki.api_cert, key=pki.api_key)  # type: ignore[arg-type] # an app of Starlette
    with ExitStack() as stack:
        stack.enter_context(server)
        stack.callback(world.durable.stopping.set)
        yield server


@contextmanager
def stream(
    server: ApiServer, path: str, *, token: str = "root-token", last: str = ""
) -> Iterator[Iterator[sse.Message]]:
    headers = {"Authorization": f"Bearer {token}"} | ({"Last-Event-ID": last} if last else {})
    with (
        httpx.Client(base_url=f"https://127.0.0.1:{server.port}", verify=False, timeout=20) as client,
        client.stream("GET", path, headers=headers) as answer,
    ):
        if answer.status_code != 200:
            answer.read()
            raise AssertionError(answer.text)
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield sse.messages(answer.iter_lines())


def said(message: sse.Message) -> str:
    return str(json.loads(message.data)["text"])


def test_events_come_as_they_happen(server: ApiServer, world: World) -> None:
    world.store.events.add(note("before"))
    with stream(server, "/api/v1/events/stream") as found:
        threading.Timer(0.3, lambda: world.store.events.add(note("now"))).start()
        first = next(found)
        assert (said(first), first.kind) == ("now", "message")
        world.store.events.add(note("then"))
        assert said(next(found)) == "then"


def test_a_stream_goes_on_after_the_last_one_that_was_received(server: ApiServer, world: World) -> None:
    world.store.events.add(*(note(str(number)) for number in range(2 * streams.PAGE + 5)))
    with stream(server, "/api/v1/events/stream?after=0") as found:
        got = [next(found) for _ in range(streams.PAGE + 3)]
    with stream(server, "/api/v1/events/stream", last=got[-1].number) as found:
        got += [next(found) for _ in range(streams.PAGE + 2)]
    assert [said(message) for message in got] == [str(number) for number in range(2 * streams.PAGE + 5)]


def test_a_stream_shows_what_its_caller_may_see_and_asked_for(server: ApiServer, world: World) -> None:
    world.store.events.add(note("a", vm_id="db-vm"), note("b", vm_id="web-vm"), note("c"))
    world.store.events.add(note("d", kind=Kind.VM_FAILED, vm_id="web-vm"))
    with stream(server, "/api/v1/events/stream?after=0", token="ann-token") as found:
        assert [said(next(found)) for _ in range(2)] == ["b", "d"]
    with stream(server, "/api/v1/events/stream?after=0&vm=web-vm&level=warning") as found:
        assert said(next(found)) == "d"


def test_a_quiet_stream_is_kept_alive(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT", 0.3)
    headers = {"Authorization": "Bearer root-token"}
    with (
        httpx.Client(base_url=f"https://127.0.0.1:{server.port}", verify=False, timeout=20) as client,
        client.stream("GET", "/api/v1/events/stream", headers=headers) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        assert [next(line for line in lines if line) for _ in range(2)] == [": still here"] * 2


def test_streams_end_when_the_controller_stops(server: ApiServer, world: World) -> None:
    with stream(server, "/api/v1/events/stream") as found:
        threading.Timer(0.3, world.durable.stopping.set).start()
        begun = time.monotonic()
        assert list(found) == []
        assert time.monotonic() - begun < 5


def test_streams_end_when_the_token_does(
    server: ApiServer, world: World, access: MemoryAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_TOKEN_EVERY", 0)
    with stream(server, "/api/v1/events/stream", token="ann-token") as found:
        access.revoke("ann-token")
        world.store.events.add(note("secret", vm_id="web-vm"))
        assert list(found) == []


def test_a_job_is_streamed_to_its_end(server: ApiServer, root: TestClient, world: World) -> None:
    make(root)
    world.mover.held = True
    job = root.post("/api/v1/workloads/demo/snapshots", json={}).json()
    with stream(server, f"/api/v1/jobs/{job['id']}/stream") as found:
        first = next(message for message in found if message.kind == "job")
        assert json.loads(first.data)["state"] in ("queued", "running")
        world.mover.release()
        rest = list(found)
    assert rest[-1].kind == "job"
    assert json.loads(rest[-1].data)["state"] == "succeeded"
    told = [json.loads(message.data)["kind"] for message in rest if message.kind == "event"]
    assert told[-1] == "job.succeeded"
    with stream(server, f"/api/v1/jobs/{job['id']}/stream", last=rest[-1].number) as found:
        assert [message.kind for message in found] == ["job"]


def test_who_opens_too_many_is_refused(
    server: ApiServer, root: TestClient, ann: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST_OF_ONE", 2)
    with ExitStack() as stack:
        world.store.events.add(note("x"))
        opened = [stack.enter_context(stream(server, "/api/v1/events/stream?after=0")) for _ in range(2)]
        assert [said(next(found)) for found in opened] == ["x", "x"]
        problem(root.get("/api/v1/events/stream"), 429, "too-many-streams")
        monkeypatch.setattr(streams, "MOST_STREAMS", 2)
        problem(ann.get("/api/v1/events/stream"), 429, "too-many-streams")
    world.until(lambda: not root.app.state.streams._open)  # type: ignore[attr-defined] # the app of the client


def test_a_client_that_does_not_read_is_not_waited_for(server: ApiServer, root: TestClient, world: World) -> None:
    """What it does not take stays in the data base; the rest of the service goes on."""
    fill = "x" * 3000
    world.store.events.add(*(note(fill) for _ in range(3 * streams.PAGE)))
    with stream(server, "/api/v1/events/stream?after=0"):
        for _ in range(20):
            assert root.get("/api/v1/health").status_code == 200
            world.store.events.add(note(fill))
    world.until(lambda: not root.app.state.streams._open)  # type: ignore[attr-defined] # the app of the client


def test_a_number_that_is_none(root: TestClient) -> None:
    problem(root.get("/api/v1/events/stream", headers={"Last-Event-ID": "x"}), 400, "bad-request")
    problem(root.get("/api/v1/events/stream?after=-1"), 400, "bad-request")
