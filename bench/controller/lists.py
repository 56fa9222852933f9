# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of lists and previews of retentions over a million points, jobs and events, as the API answers them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from fastapi import Response
from fastapi.testclient import TestClient
from starlette.requests import Request

from bench.controller.bulk import fill
from bench.controller.history import TARGETS, History, target_of
from bench.controller.site import Size
from overkeep.api.app import create_app
from overkeep.api.asked import Backend
from overkeep.api.paging import Paging
from overkeep.config import WatchedTarget
from overkeep.controller.background.catalogue import Catalogue
from overkeep.controller.desks.policies import PolicyDesk
from overkeep.controller.ports import Ports
from overkeep.controller.records import Member
from overkeep.controller.service import Controller
from overkeep.controller.store import Store, event_spans, schema
from overkeep.controller.targets.configured import Targets
from overkeep.daemons import garbage
from overkeep.errors import NotFound
from overkeep.model.policy import Policy
from overkeep.model.retention import Retention
from overkeep.model.schedule import Schedule
from overkeep.mover.api import Mover
from overkeep.repository.identity import create_identity
from overkeep.testing.access import MemoryAccess
from overkeep.testing.engine import MemoryEngine

_PEOPLE = {"a tenant with 20 VMs": 20, "a tenant with 1,000 VMs": 1000, "a tenant with 3,000 VMs": 3000}


@dataclass(frozen=True, kw_only=True)
class Timed:
    """How long a call took: of so many, 95 % at most `p95` milliseconds; `items` is what the last one gave.

    `processor` is the same of the time that this process was at work: on a machine that others use the two differ.
    """

    name: str
    p95: float
    worst: float
    processor: float
    items: int
    preview: bool = False


class _NoMovers:
    """No list asks a mover."""

    def at(self, host_id: str) -> Mover:
        raise NotFound(kind="host", name=host_id, how="overkeep movers")


def run(folder: Path, *, store_url: str, size: Size, each: int, calls: int) -> list[Timed]:
    """Fill the tables with so many rows for each VM, and make each call so many times."""
    store = Store(store_url)
    for name in TARGETS:
        (folder / name).mkdir()
        create_identity(folder / name)
    settings = tuple(WatchedTarget(name=name, kind="path", mountpoint=folder / name) for name in TARGETS)
    ports = Ports(engine=MemoryEngine(), targets=Targets(settings, store), movers=_NoMovers(), store=store)
    Catalogue(ports).round()  # of targets that are empty still; they are not read again
    workloads = _workloads(ports, size)
    history = History(size=size, workloads=workloads, each=each)
    fill(store_url, schema.point, history.points())
    fill(store_url, schema.job, history.jobs())
    fill(store_url, schema.job_vm, history.job_vms())
    fill(store_url, schema.job_disk, history.job_disks())
    fill(store_url, schema.event, history.events())
    _note_spans(store_url)
    access = MemoryAccess()
    access.add("root", user_id="root", admin=True)
    for name, count in _PEOPLE.items():
        access.add(name, user_id=name)
        for number in _vms_of(count, size):
            access.allow(name, f"vm-{number}", "backup_disk")
    backend = Backend(
        controller=Controller(ports),
        access=access,
        janitor=None,  # type: ignore[arg-type] # no call that is made here asks for it
        inspect=tuple,
    )
    app = create_app(backend)
    garbage.settle()  # as the service does
    try:
        return list(_measured(TestClient(app), store_url, history, calls))
    finally:
        store.close()


def _note_spans(url: str) -> None:
    """As whoever writes events does now and then."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        event_spans.note(connection)
    engine.dispose()


def _vms_of(count: int, size: Size) -> range:
    """The VMs of a tenant, spread over all workloads, and so over all times of a night."""
    return range(0, size.vms, max(1, size.vms // min(count, size.vms)))


def _workloads(ports: Ports, size: Size) -> list[str]:
    desk = PolicyDesk(ports)
    retention = Retention(last=7, daily=14, weekly=8, monthly=12)
    nightly = desk.create(Policy(name="nightly", schedules=(Schedule(when="daily at 22:00"),), retention=retention))
    made = []
    for number in range(size.workloads):
        numbers = range(number * size.vms_each, (number + 1) * size.vms_each)
        members = [Member(vm_id=f"vm-{n}", vm_name=f"vm{n}") for n in numbers]
        workload = ports.store.workloads.create(f"workload{number}", members, target=target_of(number))
        desk.give(workload, nightly)
        made.append(workload.id)
    return made


def _measured(http: TestClient, url: str, history: History, calls: int) -> Iterator[Timed]:
    workloads, size = history.workloads, history.size
    middle, last = _keys(url)
    for who in ("root", *_PEOPLE):
        name = "an administrator" if who == "root" else who
        seen = _vms_of(_PEOPLE.get(who, size.vms), size)
        mine = sorted({workloads[number // size.vms_each] for number in seen})
        points = _point_pages(workloads, middle, last)
        pages = {**points, **_job_pages(history, mine[::7]), **_event_pages(history, mine[::7]), **_OTHERS}
        for what, queries in pages.items():
            yield _timed(http, who, f"{what}, for {name}", queries, calls)
        previews = [f"/api/v1/workloads/{workload}/retention" for workload in mine]
        yield _timed(http, who, f"the preview of a workload's retention, for {name}", previews, calls, preview=True)


def _keys(url: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The keys in the middle of the list, and before its last page."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        low, high = connection.execute(sa.select(sa.func.min(_C.created), sa.func.max(_C.created))).one()
        ordered = sa.select(_C.created, _C.seq)
        after = ordered.where(_C.created >= (low + high) // 2).order_by(_C.created, _C.seq).limit(1)
        end = ordered.order_by(_C.created.desc(), _C.seq.desc()).offset(100).limit(1)
        middle, last = connection.execute(after).one(), connection.execute(end).one()
    engine.dispose()
    return tuple(middle), tuple(last)


_C = schema.point.c
_MIDDLE_DAY = "2026-02-20T00:00:00Z"


def _point_pages(workloads: Sequence[str], middle: tuple[int, int], last: tuple[int, int]) -> dict[str, Sequence[str]]:
    """What is asked for, by its name; of several addresses one after the other is."""
    points = "/api/v1/points"
    late = f"since={_MIDDLE_DAY}"
    vms = range(0, 10_000, 97)
    return {
        "points: the first page": [points],
        "points: one in the middle": [_after(points, middle)],
        "points: the last one": [_after(points, last)],
        "points: of 1,000, the first page": [f"{points}?limit=1000"],
        "points: of 1,000, one in the middle": [_after(points, middle, limit=1000)],
        "points of a workload": [f"{points}?workload={workload}" for workload in workloads],
        "points of a workload, from the middle on": [f"{points}?workload={each}&{late}" for each in workloads],
        "points of a VM by id": [f"{points}?vm=vm-{number}" for number in vms],
        "points of a VM by name": [f"{points}?vm=vm{number}" for number in vms],
        "points on a target": [f"{points}?target={name}" for name in TARGETS],
        "points on a target, from the middle on": [f"{points}?target={name}&{late}" for name in TARGETS],
        "points that are full": [f"{points}?mode=full"],
        "points that are incremental": [f"{points}?mode=incremental"],
        "points that are full, on a target, from the middle on": [
            f"{points}?mode=full&target={name}&{late}" for name in TARGETS
        ],
        "points since a time": [f"{points}?{late}"],
        "points between two times": [f"{points}?{late}&until=2026-02-21T00:00:00Z"],
        "points of a VM, full, on a target, from the middle on": [
            f"{points}?vm=vm{number}&mode=full&target=nfs1&{late}" for number in vms
        ],
        "points of a VM that is not there": [f"{points}?vm=nothing"],
    }


_OTHERS: dict[str, Sequence[str]] = {
    "workloads: the first page": ["/api/v1/workloads"],
    "workloads: all in one page": ["/api/v1/workloads?limit=1000"],
    "policies": ["/api/v1/policies"],
    "targets": ["/api/v1/targets"],
}


def _job_pages(history: History, some: Sequence[str]) -> dict[str, Sequence[str]]:
    """As `_point_pages`; `some` are workloads that the caller may see."""
    jobs = "/api/v1/jobs"
    half = history.middle()
    middle = (half.created, half.job_id)
    vms = range(0, history.size.vms, 97)
    return {
        "jobs: the first page": [jobs],
        "jobs: one in the middle": [_after(jobs, middle)],
        "jobs: of 1,000, the first page": [f"{jobs}?limit=1000"],
        "jobs: of 1,000, one in the middle": [_after(jobs, middle, limit=1000)],
        "jobs of a workload": [f"{jobs}?workload={workload}" for workload in some],
        "jobs of a workload, 1,000": [f"{jobs}?workload={workload}&limit=1000" for workload in some],
        "jobs of a workload that failed": [f"{jobs}?workload={workload}&state=failed" for workload in some],
        "jobs of a VM by id": [f"{jobs}?vm=vm-{number}" for number in vms],
        "jobs of a VM by name": [f"{jobs}?vm=vm{number}" for number in vms],
        "jobs of a VM, restores": [f"{jobs}?vm=vm{number}&kind=restore" for number in vms],
        "jobs of a VM that is not there": [f"{jobs}?vm=nothing"],
        "jobs that are restores": [f"{jobs}?kind=restore"],
        "jobs that are restores or removals": [f"{jobs}?kind=restore&kind=removal"],
        "jobs that run": [f"{jobs}?state=running&state=queued"],
        "jobs that need attention": [f"{jobs}?state=needs_attention"],
        "jobs that failed, of 1,000": [f"{jobs}?state=failed&state=partial&limit=1000"],
        "jobs that failed, restores": [f"{jobs}?state=failed&kind=restore"],
        "jobs until the middle": [f"{jobs}?until={half.time}"],
        "jobs since the middle, of a workload": [f"{jobs}?since={half.time}&workload={each}" for each in some],
    }


def _event_pages(history: History, some: Sequence[str]) -> dict[str, Sequence[str]]:
    """As `_job_pages`."""
    events = "/api/v1/events"
    half = history.middle()
    vms = range(0, history.size.vms, 97)
    return {
        "events: the first page": [events],
        "events: one in the middle": [_after(events, (history.rows // 2,))],
        "events: of 1,000, the first page": [f"{events}?limit=1000"],
        "events: of 1,000, one in the middle": [_after(events, (history.rows // 2,), limit=1000)],
        "events: the oldest": [f"{events}?order=oldest"],
        "events of a workload": [f"{events}?workload={workload}" for workload in some],
        "events of a workload, 1,000": [f"{events}?workload={workload}&limit=1000" for workload in some],
        "events of a workload, of a kind": [f"{events}?workload={workload}&kind=vm.failed" for workload in some],
        "events of a job": [f"{events}?job={half.job_id}"],
        "events of a VM by id": [f"{events}?vm=vm-{number}" for number in vms],
        "events of a VM by name": [f"{events}?vm=vm{number}" for number in vms],
        "events of a VM, of several kinds": [f"{events}?vm=vm{number}&kind=vm" for number in vms],
        "events of a VM that is not there": [f"{events}?vm=nothing"],
        "events of a kind": [f"{events}?kind=point.made", f"{events}?kind=vm.phase"],
        "events of a rare kind": [f"{events}?kind=target.high"],
        "events of a kind that never happened": [f"{events}?kind=guest.thawed"],
        "events of several kinds": [f"{events}?kind=job", f"{events}?kind=vm"],
        "events of several rare kinds, of 1,000": [f"{events}?kind=target&limit=1000"],
        "events of several kinds, the oldest": [f"{events}?kind=mover&order=oldest"],
        "events that are errors": [f"{events}?level=error"],
        "events that are warnings or errors, of 1,000": [f"{events}?level=warning&limit=1000"],
        "events of a point": [f"{events}?point={half.point_id}"],
        "events of a target": [f"{events}?target={name}" for name in TARGETS],
        "events of a host": [f"{events}?host=host7"],
        "events of a host that is not there": [f"{events}?host=nothing"],
        "events that somebody caused": [f"{events}?by=person7"],
        "events until the middle": [f"{events}?until={half.time}"],
        "events since the middle, the oldest": [f"{events}?since={half.time}&order=oldest"],
        "events between two times": [f"{events}?since={half.time}&until={half.next_day}"],
    }


def _after(path: str, key: tuple[int | str, ...], *, limit: int = 100) -> str:
    """The address of the page that follows on a key."""
    request = Request({"type": "http", "path": path, "query_string": b"", "headers": []})
    answer = Response()
    Paging(request=request, response=answer, limit=limit, cursor=None).go_on_after(*key)
    return answer.headers["Link"].partition("<")[2].partition(">")[0]


def _timed(
    http: TestClient, who: str, name: str, addresses: Sequence[str], calls: int, *, preview: bool = False
) -> Timed:
    """The first call is not counted: it compiles statements, and learns which VMs the caller is shown."""
    seconds, processor, items = [], [], 0
    for number in range(calls + 1):
        address = addresses[number % len(addresses)]
        began, worked = time.perf_counter(), time.process_time()
        answer = http.get(address, headers={"Authorization": f"Bearer {who}"})
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - worked)
        if answer.status_code != 200:
            raise RuntimeError(f"{address}: {answer.status_code} {answer.text}")
        items = len(answer.json())
    counted = sorted(seconds[1:])
    return Timed(
        name=name,
        p95=_p95(counted) * 1000,
        worst=counted[-1] * 1000,
        processor=_p95(sorted(processor[1:])) * 1000,
        items=items,
        preview=preview,
    )


def _p95(ordered: Sequence[float]) -> float:
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
