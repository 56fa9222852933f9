# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of lists and previews of retentions over a million restore points, as the API answers them, in one process."""

from __future__ import annotations

import datetime as dt
import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fastapi import Response
from fastapi.testclient import TestClient
from starlette.requests import Request

from bench.controller.site import Size
from overkeep.api.app import create_app
from overkeep.api.asked import Backend
from overkeep.api.paging import Paging
from overkeep.config import WatchedTarget
from overkeep.controller.catalogue import Catalogue
from overkeep.controller.policies import PolicyDesk
from overkeep.controller.ports import Ports
from overkeep.controller.records import Member
from overkeep.controller.service import Controller
from overkeep.controller.store import Store, schema
from overkeep.controller.store.points import point_row
from overkeep.controller.targets import Targets
from overkeep.errors import NotFound
from overkeep.model.inventory import DiskFormat
from overkeep.model.points import Changes, DiskImage, Mode, RestorePoint, point_id
from overkeep.model.policy import Policy
from overkeep.model.retention import Retention
from overkeep.model.schedule import Schedule
from overkeep.mover.api import Mover
from overkeep.repository.identity import create_identity
from overkeep.testing.access import MemoryAccess
from overkeep.testing.engine import MemoryEngine

FIRST = dt.datetime(2026, 1, 1, 22, tzinfo=dt.UTC)
_TARGETS = ("nfs1", "nfs2")
_FULL_EVERY = 30  # points of a VM
_PEOPLE = {"a tenant with 20 VMs": 20, "a tenant with 1,000 VMs": 1000, "a tenant with 3,000 VMs": 3000}
_BATCH = 10_000


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


def run(folder: Path, *, store_url: str, size: Size, points_each: int, calls: int) -> list[Timed]:
    """Fill the table, and make each call so many times."""
    store = Store(store_url)
    for name in _TARGETS:
        (folder / name).mkdir()
        create_identity(folder / name)
    settings = tuple(WatchedTarget(name=name, kind="path", mountpoint=folder / name) for name in _TARGETS)
    ports = Ports(engine=MemoryEngine(), targets=Targets(settings, store), movers=_NoMovers(), store=store)
    Catalogue(ports).round()  # of targets that are empty still; they are not read again
    workloads = _workloads(ports, size)
    _fill(store_url, workloads, size, points_each)
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
    gc.freeze()  # as the service does
    try:
        return list(_measured(TestClient(app), store_url, workloads, size, calls))
    finally:
        store.close()


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
        workload = ports.store.workloads.create(f"workload{number}", members, target=_target(number))
        desk.give(workload, nightly)
        made.append(workload.id)
    return made


def _target(workload: int) -> str:
    return _TARGETS[workload % 10 == 0]


def _rows(workloads: Sequence[str], size: Size, points_each: int) -> Iterator[dict[str, Any]]:
    """One point a VM and day, in the order of time."""
    for day in range(points_each):
        for number in range(size.vms):
            workload = number // size.vms_each
            created = FIRST + dt.timedelta(days=day, seconds=workload)
            row = point_row(_target(workload), _point(number, workloads[workload], created, day))
            yield {**row, "pin": ""}


def _point(number: int, workload_id: str, created: dt.datetime, day: int) -> RestorePoint:
    mode = Mode.FULL if (day + number) % _FULL_EVERY == 0 else Mode.INCREMENTAL
    made = point_id(created, workload_id)
    image = DiskImage(
        disk_id=f"6d0c1f3e-0000-4000-8000-{number:012}",
        name="root",
        file=f"{made}.qcow2",
        backing=None if mode is Mode.FULL else "20260101T220000Z-00000000.qcow2",
        mode=mode,
        reason="changes are tracked" if mode is Mode.INCREMENTAL else "it is the first backup",
        virtual_size=100 << 30,
        stored=1 << 30,
        covered=1 << 30,
        moved=1 << 30,
        format=DiskFormat.COW,
        interface="virtio_scsi",
        bootable=True,
        changes=Changes.TRACKED,
        since_full=1,
        tracks_changes=True,
        storage_domain_id=f"domain-{number % 20}",
        storage_domain=f"data{number % 20}",
    )
    return RestorePoint(
        id=made,
        workload_id=workload_id,
        vm_id=f"vm-{number}",
        vm_name=f"vm{number}",
        created=created,
        job_id=workload_id,
        mode=mode,
        checkpoint_id=f"checkpoint-{number}-{day}",
        images=(image,),
    )


def _fill(url: str, workloads: Sequence[str], size: Size, points_each: int) -> None:
    """All rows, without the indices at first: what is measured is reading."""
    engine = sa.create_engine(url)
    indices = sorted(schema.point.indexes, key=lambda index: str(index.name))
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA cache_size=-400000")
        for index in indices:
            index.drop(connection)
        batch: list[dict[str, Any]] = []
        for row in _rows(workloads, size, points_each):
            batch.append(row)
            if len(batch) == _BATCH:
                _write(connection, batch)
                batch = []
        if batch:
            _write(connection, batch)
        for index in indices:
            index.create(connection)
    if engine.dialect.name == "postgresql":  # as its autovacuum does by itself a minute later
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE point")
    engine.dispose()


def _write(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    if connection.dialect.name == "sqlite":
        connection.execute(sa.insert(schema.point), rows)
        return
    names = list(rows[0])
    driver: Any = connection.connection.cursor()
    with driver.copy(f"COPY point ({', '.join(names)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row([str(row[name]) for name in names])
    driver.close()


def _measured(http: TestClient, url: str, workloads: Sequence[str], size: Size, calls: int) -> Iterator[Timed]:
    middle, last = _keys(url)
    for who in ("root", *_PEOPLE):
        name = "an administrator" if who == "root" else who
        for what, queries in _pages(workloads, middle, last).items():
            yield _timed(http, who, f"{what}, for {name}", queries, calls)
        seen = _vms_of(_PEOPLE.get(who, size.vms), size)
        mine = sorted({workloads[number // size.vms_each] for number in seen})
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


def _pages(workloads: Sequence[str], middle: tuple[int, int], last: tuple[int, int]) -> dict[str, Sequence[str]]:
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
        "points on a target": [f"{points}?target={name}" for name in _TARGETS],
        "points on a target, from the middle on": [f"{points}?target={name}&{late}" for name in _TARGETS],
        "points that are full": [f"{points}?mode=full"],
        "points that are incremental": [f"{points}?mode=incremental"],
        "points that are full, on a target, from the middle on": [
            f"{points}?mode=full&target={name}&{late}" for name in _TARGETS
        ],
        "points since a time": [f"{points}?{late}"],
        "points between two times": [f"{points}?{late}&until=2026-02-21T00:00:00Z"],
        "points of a VM, full, on a target, from the middle on": [
            f"{points}?vm=vm{number}&mode=full&target=nfs1&{late}" for number in vms
        ],
        "points of a VM that is not there": [f"{points}?vm=nothing"],
        "workloads: the first page": ["/api/v1/workloads"],
        "workloads: all in one page": ["/api/v1/workloads?limit=1000"],
        "policies": ["/api/v1/policies"],
        "targets": ["/api/v1/targets"],
    }


def _after(path: str, key: tuple[int, int], *, limit: int = 100) -> str:
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
