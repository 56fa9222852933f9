# SPDX-License-Identifier: GPL-3.0-or-later
"""The port to the durable job engine: workflows whose finished steps survive the death of the controller."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sqlite3
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID
from sqlalchemy.exc import OperationalError

from overkeep.controller.store.idle import tried_when_idle

Body = Callable[..., Any]

# A change of the steps of a shipped workflow goes behind a patch mark, not behind another version: running jobs must
# be finished by the new controller.
APPLICATION_VERSION = "1"
POOL = 15  # connections to a server's data base; two controllers share a hundred with their own tables
QUEUE_POLL = 0.5  # seconds; a look costs 5 ms of processor time, also when nothing is there
STOP_PATIENCE = 30.0
GC_BATCH = 200
OUTAGE = 900.0  # seconds for which steps outlast an outage of the data base
_OUTAGE_PAUSE = 2.0
_NOTIFY = 0.5  # seconds between two looks of the engine for notifications to send, of which we have none
IDLE_IN_TRANSACTION = 15.0  # seconds: a controller that sleeps in one must not hold up the others
_OPEN = ("PENDING", "ENQUEUED", "DELAYED")
OVER = ("SUCCESS", "ERROR", "CANCELLED")

_log = logging.getLogger(__name__)


class Stopping(BaseException):
    """The controller stops: a running step ends without an outcome and is run again by the next controller.

    Not an `Exception`, so that neither a step's own clean-up of errors nor the engine records it as an outcome.
    """


class Durable:
    """Runs named workflows; one instance a process, because the engine below has one.

    `queues` maps the name of each queue to how many of its workflows run at once (0: no limit); they are looked at
    every `poll` seconds. Register workflows with `workflow`, then `start`. At the start everything that a dead
    controller left unfinished is taken up again, from the last finished step; when the data base is `shared` with other
    controllers, `take_up` does it.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        queues: dict[str, int],
        url: str = "",
        shared: bool = False,
        poll: float = QUEUE_POLL,
    ) -> None:
        self._path = state_dir / "jobs.sqlite"
        self._url = url or f"sqlite:///{self._path}"
        self._shared = shared
        self._queues = dict(queues)
        self._poll = poll
        self._bodies: dict[str, Body] = {}
        self._registered: dict[str, Body] = {}
        self._idle = threading.Condition()
        self._running = 0
        self.stopping = threading.Event()
        self.executor_id = uuid.uuid4().hex

    def workflow(self, name: str, body: Body) -> None:
        """Register `body` under a stable name; arguments and result are JSON."""
        self._bodies[name] = body

    def start(self) -> None:
        """Open the data base, take up what is unfinished, and accept work."""
        if sqlite := self._url.startswith("sqlite"):
            _use_wal(self._path)
        # With a handler of its own the engine's logger writes through ours instead of to the terminal.
        logging.getLogger("dbos").addHandler(logging.NullHandler())
        config: DBOSConfig = {
            "name": "overkeep",
            "system_database_url": self._url,
            "sys_db_pool_size": POOL,
            "db_engine_kwargs": {} if sqlite else {"pool_pre_ping": False, "pool_events": tried_when_idle()},
            "sys_db_idle_transaction_timeout_sec": IDLE_IN_TRANSACTION,
            "application_version": APPLICATION_VERSION,
            "executor_id": self.executor_id,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "enable_otlp": False,
            "notification_listener_polling_interval_sec": self._poll,
            "notification_coalesce_sec": _NOTIFY,
        }
        DBOS(config=config)
        for name, body in self._bodies.items():
            self._registered[name] = DBOS.workflow(name=name, max_recovery_attempts=None)(self._counted(name, body))
        DBOS.launch()
        for queue, at_once in self._queues.items():
            DBOS.register_queue(
                queue,
                worker_concurrency=at_once or None,
                polling_interval_sec=self._poll,
                on_conflict="always_update",
            )
        if not self._shared:
            self.take_up(frozenset)

    def stop(self, patience: float = STOP_PATIENCE) -> None:
        """Let running steps leave at their next check, at most `patience` seconds, and close the data base."""
        self.stopping.set()
        deadline = time.monotonic() + patience
        with self._idle:
            left = self._idle.wait_for(lambda: self._running == 0, timeout=max(0.0, deadline - time.monotonic()))
        if not left:
            _log.warning("stopped while %d workflows were still in a step; they are repeated", self._running)
        DBOS.destroy(destroy_registry=True)

    def submit(self, name: str, workflow_id: str, *args: Any, queue: str) -> None:
        """Enqueue a workflow; an id that is known already is left as it is."""
        with SetWorkflowID(workflow_id):
            DBOS.enqueue_workflow(queue, self._registered[name], *args)

    @staticmethod
    def step(name: str, act: Callable[..., Any], *args: Any) -> Any:
        """Run `act(*args)` as a step of the calling workflow, or return what it returned when it ran before.

        The result goes through JSON also the first time, so that a workflow sees the same on a replay.
        """
        return DBOS.run_step({"name": name}, lambda: json.loads(json.dumps(_through_outages(act, *args))))

    @staticmethod
    def statuses(workflow_ids: Sequence[str]) -> dict[str, str]:
        """The engine's words for the states of those of the given workflows that it knows."""
        found: dict[str, str] = {}
        for start in range(0, len(workflow_ids), GC_BATCH):
            some = list(workflow_ids[start : start + GC_BATCH])
            known = DBOS.list_workflows(workflow_ids=some, load_input=False, load_output=False)
            found |= {status.workflow_id: status.status for status in known}
        return found

    @staticmethod
    def open(workflow_ids: Collection[str]) -> frozenset[str]:
        """Those of the given workflows that have not ended."""
        if not workflow_ids:
            return frozenset()
        found = DBOS.list_workflows(
            workflow_ids=list(workflow_ids), status=list(_OPEN), load_input=False, load_output=False
        )
        return frozenset(status.workflow_id for status in found)

    @staticmethod
    def status(workflow_id: str) -> str | None:
        """The engine's word for the state of a workflow, or None when it does not know the id."""
        found = DBOS.list_workflows(workflow_ids=[workflow_id], load_input=False, load_output=False)
        return found[0].status if found else None

    @staticmethod
    def retry_from(workflow_id: str, step: int) -> None:
        """Run an ended workflow again from a step (1 is the first), keeping what the steps before it returned."""
        DBOS.rewind_workflow(workflow_id, start_step=step)

    @staticmethod
    def gc(older_than: dt.timedelta) -> int:
        """Forget workflows that ended longer ago than `older_than`; return how many."""
        before = (dt.datetime.now(dt.UTC) - older_than).isoformat()
        total = 0
        while True:
            over = DBOS.list_workflows(
                status=list(OVER), completed_before=before, limit=GC_BATCH, load_input=False, load_output=False
            )
            if not over:
                return total
            DBOS.delete_workflows([status.workflow_id for status in over])
            total += len(over)

    def _counted(self, name: str, body: Body) -> Body:
        def run(*args: Any) -> Any:
            with self._idle:
                self._running += 1
            try:
                return body(*args)
            finally:
                with self._idle:
                    self._running -= 1
                    self._idle.notify_all()

        run.__name__ = run.__qualname__ = name
        return run

    def take_up(self, living: Callable[[], frozenset[str]]) -> None:
        """Enqueue again what runs under an executor that neither lives nor is this one; one controller at a time."""
        left = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        # asked after the list: who joined before it began what is in it, and its work would be done twice
        alive = living() if left else frozenset()
        by_queue: defaultdict[str | None, list[str]] = defaultdict(list)
        for status in left:
            if status.executor_id != self.executor_id and status.executor_id not in alive:
                by_queue[status.queue_name].append(status.workflow_id)
        for queue, ids in by_queue.items():
            _log.info("taking up %d unfinished workflows of queue %s", len(ids), queue)
            DBOS.resume_workflows(ids, queue_name=queue)


def _through_outages(act: Callable[..., Any], *args: Any) -> Any:
    """Run a step, and again while the data base does not answer: all steps may be repeated."""
    deadline = time.monotonic() + OUTAGE
    while True:
        try:
            return act(*args)
        except OperationalError as error:
            if time.monotonic() > deadline:
                raise
            _log.warning("a step is repeated, as the data base does not answer: %s", error)
        time.sleep(_OUTAGE_PAUSE)


def _use_wal(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    base = sqlite3.connect(path)
    try:
        base.execute("PRAGMA journal_mode=WAL")
    finally:
        base.close()
    path.chmod(0o600)
