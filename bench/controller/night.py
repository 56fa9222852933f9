# SPDX-License-Identifier: GPL-3.0-or-later
"""One night in a process of its own: everything becomes due, is admitted, and some of it is backed up."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.controller.account import Account
from bench.controller.site import DUE, Size, make_ports, plan_all
from overkeep.controller.background.dispatcher import QUEUES, Dispatcher
from overkeep.controller.background.scheduler import Scheduler
from overkeep.controller.durable import Durable
from overkeep.controller.service import Controller, make_durable
from overkeep.controller.store import Store
from overkeep.daemons import garbage
from overkeep.model.admission import ResourceKind

SLOTS = {ResourceKind.TOTAL: 32, ResourceKind.HOST: 4, ResourceKind.TARGET: 32, ResourceKind.DOMAIN: 8}
_LONGEST = 3600.0
_OVER = "state NOT IN ('queued', 'running')"


@dataclass(frozen=True, kw_only=True)
class Night:
    """What was measured; seconds, MiB, and numbers."""

    tick: float  # of the scheduler, in which all runs are due
    admission: float  # from the begin of the tick until each VM waits in a line, or has its slots
    longest_decision: float  # who begins, of all that wait
    longest_round: float
    mean_round: float
    resident: float
    backups: int
    failed: int
    why: str  # the first of those that failed
    own_each: float  # of the controller itself, a VM that was backed up
    twins_each: float  # of the twins of the Manager and the movers
    looks_each: float  # of the looks at the rows
    looks: int  # at the slots
    exceeded: int  # of them, those that found more slots taken than there are, or VMs at work without slots


class _Timed:
    """A call that is timed each time."""

    def __init__(self, act: Callable[..., Any]) -> None:
        self.seconds: list[float] = []
        self._act = act

    def __call__(self, *args: Any) -> Any:
        began = time.monotonic()
        try:
            return self._act(*args)
        finally:
            self.seconds.append(time.monotonic() - began)


class _Watch:
    """Looks at the rows again and again: are more slots taken than there are, does anything run without its slots?"""

    def __init__(self, url: str, store: Store, account: Account) -> None:
        self.looks = self.exceeded = 0
        self._account = account
        self._engine = sa.create_engine(url)
        self._store = store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._engine.dispose()

    def _run(self) -> None:
        limits = self._store.admission.limits()
        at_work = "SELECT COUNT(*) FROM job_vm v WHERE v.state = 'running' AND NOT EXISTS (SELECT 1 FROM slot s"
        without = sa.text(f"{at_work} WHERE s.job_id = v.job_id AND s.vm_id = v.vm_id)")
        taken = sa.text("SELECT resource, COUNT(*) FROM slot GROUP BY resource")
        while not self._stop.wait(0.25):
            with self._account.charged(), self._engine.connect() as connection:
                over = any(count > limits.of(name).capacity for name, count in connection.execute(taken))
                over = over or bool(connection.scalar(without))
            self.looks += 1
            self.exceeded += over


def run(folder: Path, *, store_url: str, jobs_url: str, size: Size, backups: int) -> Night:
    """Let the night pass until so many VMs are backed up."""
    store = Store(store_url, slots=SLOTS)
    durable = Durable(folder, queues=QUEUES, url=jobs_url)
    twins, looks = Account(), Account()
    ports = make_ports(folder, store, durable, size, twins)
    plan_all(ports, size)
    make_durable(ports, durable)
    durable.start()
    dispatcher = Dispatcher(ports, durable)
    rounds, decisions = _Timed(dispatcher.round), _Timed(store.admission.round)
    # what is measured is put round the real ones, which know nothing of it
    dispatcher.round = rounds  # type: ignore[method-assign]
    store.admission.round = decisions  # type: ignore[assignment, method-assign]
    controller = Controller(ports)
    scheduler = Scheduler(controller, clock=lambda: DUE)
    engine = sa.create_engine(store_url)
    garbage.settle()  # as the service does
    with _Watch(store_url, store, looks) as watch:
        dispatcher.start()
        began, cpu, twins_before, looks_before = time.monotonic(), _cpu(), twins.seconds, looks.seconds
        scheduler.tick()
        tick = time.monotonic() - began
        with looks.charged():
            _until(lambda: _count(engine, "stage <> ''") == size.vms)
            admission = time.monotonic() - began
            _until(lambda: _count(engine, _OVER) >= backups)
            done = _count(engine, _OVER)
        spent, by_twins, by_looks = _cpu() - cpu, twins.seconds - twins_before, looks.seconds - looks_before
        failed = _count(engine, "state NOT IN ('queued', 'running', 'succeeded')")
        why = _first_failure(engine)
        controller.limits.pause("total")
        dispatcher.stop()
        durable.stop(60)
    engine.dispose()
    store.close()
    return Night(
        tick=tick,
        admission=admission,
        longest_decision=max(decisions.seconds),
        longest_round=max(rounds.seconds),
        mean_round=sum(rounds.seconds) / len(rounds.seconds),
        resident=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        backups=done,
        failed=failed,
        why=why,
        own_each=(spent - by_twins - by_looks) / done,
        twins_each=by_twins / done,
        looks_each=by_looks / done,
        looks=watch.looks,
        exceeded=watch.exceeded,
    )


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _count(engine: sa.Engine, condition: str) -> int:
    with engine.connect() as connection:
        query = sa.text(f"SELECT COUNT(*) FROM job_vm WHERE {condition}")  # noqa: S608 - conditions of this module
        return int(connection.scalar(query) or 0)


def _first_failure(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        return str(connection.scalar(sa.text("SELECT error FROM job_vm WHERE error <> ''")) or "")


def _until(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONGEST
    while not probe():
        if time.monotonic() > deadline:
            raise TimeoutError("the night does not end")
        time.sleep(0.25)
