# SPDX-License-Identifier: GPL-3.0-or-later
"""How a step waits, hears of a cancel, tries again, and turns an error into an outcome."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError

from overkeep.controller.activities.stopwatch import Stopwatch
from overkeep.controller.durable import Stopping
from overkeep.controller.ports import Ports
from overkeep.controller.records import Failure, JobState
from overkeep.engine.errors import Busy, EngineUnreachable, NotReadyInTime
from overkeep.errors import Cancelled, OverkeepError
from overkeep.mover.errors import MoverBusy, MoverStopping, MoverUnreachable

State = dict[str, Any]  # what the finished steps of a workflow found out; JSON, under 10 kB
_Value = TypeVar("_Value")

# Errors that pass by themselves within seconds. Others may pass as well, but not while somebody waits.
PASSING = (EngineUnreachable, Busy, MoverBusy, MoverStopping, MoverUnreachable)
_CANCEL_CHECK = 1.0
_LONGEST_PAUSE = 60.0

_log = logging.getLogger(__name__)


class JobCancelled(Cancelled):
    """Somebody asked for the job to end."""

    template = "{what} was cancelled; nothing of it was kept."


@dataclass
class _Asked:
    """When it was asked last whether a job is to end."""

    at: float = -math.inf


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The clock of a step. `heeds_cancel` is off in what must happen on every exit; `spent` counts waits."""

    ports: Ports
    job_id: str
    heeds_cancel: bool = True
    spent: Stopwatch = field(default_factory=Stopwatch, compare=False)
    _asked: _Asked = field(default_factory=_Asked, init=False, compare=False, repr=False)

    def check(self) -> None:
        """Raise `Stopping` when the controller stops, `JobCancelled` when the job is to end.

        Waits while the controller may have been declared dead: others go on with the job then.
        """
        if self.ports.stopping.is_set():
            raise Stopping
        self.ports.hold()
        if self.heeds_cancel:
            self._asked.at = time.monotonic()
            if self.ports.store.jobs.cancel_requested(self.job_id):
                raise JobCancelled(what=f"Job {self.job_id}")

    def pause(self, seconds: float) -> None:
        """Wait, at most a second between two checks."""
        deadline = time.monotonic() + seconds
        self._check_if_due()
        while (left := deadline - time.monotonic()) > 0:
            self.ports.stopping.wait(min(left, _CANCEL_CHECK))
            self._check_if_due()

    def _check_if_due(self) -> None:
        """As `check`, but the data base is asked once a second: of many short pauses few ask."""
        if self.ports.stopping.is_set():
            raise Stopping
        self.ports.hold()
        if time.monotonic() - self._asked.at >= _CANCEL_CHECK:
            self.check()

    def until(self, probe: Callable[[], _Value | None], *, seconds: float, act: str, what: str) -> _Value:
        """Call `probe` until it returns something; raise `NotReadyInTime` after `seconds`.

        A Manager that does not answer for a while is waited for as well.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = probe()
            except (EngineUnreachable, Busy):
                if time.monotonic() > deadline:
                    raise
                found = None
            if found is not None:
                return found
            if time.monotonic() > deadline:
                raise NotReadyInTime(act=act, seconds=seconds, seen="no end", what=what)
            self.pause(self.ports.patience.poll)

    def persist(
        self,
        act: Callable[[], _Value],
        *,
        seconds: float,
        on: type[OverkeepError] | tuple[type[OverkeepError], ...] = PASSING,
        tell: Callable[[OverkeepError], None] = lambda _error: None,
    ) -> _Value:
        """Call `act` until it does not raise one of `on`, with growing pauses, at most for `seconds`.

        `tell` hears of the first error. The last error is raised.
        """
        deadline = time.monotonic() + seconds
        pause = self.ports.patience.poll
        told = False
        while True:
            try:
                return act()
            except on as error:
                if time.monotonic() + pause > deadline:
                    raise
                if not told:
                    tell(error)
                    told = True
                _log.info("job %s tries again in %.1f s: %s", self.job_id, pause, error)
            self.pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def outcome(act: Callable[[], State], *, job_id: str) -> State:
    """Run `act` and return what it found, or its error as values: a step must not raise what a replay would retype."""
    try:
        return act()
    except OverkeepError as error:
        _log.info("job %s: a step ended with %s: %s", job_id, error.code, error)
        return {"code": error.code, "error": error.message}
    except OperationalError:  # the data base does not answer: `Durable.step` repeats the step
        raise
    except Exception:  # noqa: BLE001 - the outermost worker of a step: logged, recorded, and the release still runs
        _log.exception("job %s: a step failed unexpectedly", job_id)
        unexpected = OverkeepError(reason="a step of the job failed")
        return {"code": unexpected.code, "error": unexpected.message}


def failed(state: State) -> bool:
    """Whether a step ended with an error."""
    return "error" in state


def cancelled(state: State) -> bool:
    """Whether the error is that the job was cancelled."""
    return state.get("code") == JobCancelled.code


def end_with_its_vm(ports: Ports, job_id: str, vm_id: str, state: State, *, result: Mapping[str, Any]) -> State:
    """Write what came of a job of one VM into both; return its state. May be repeated."""
    ended = JobState.SUCCEEDED
    if failed(state):
        ended = JobState.CANCELLED if cancelled(state) else JobState.FAILED
    failure = Failure(code=state.get("code", ""), text=state.get("error", ""))
    jobs = ports.store.jobs
    jobs.set_vm(job_id, vm_id, state=ended, phase="", error_code=failure.code, error=failure.text, busy=False)
    jobs.end(job_id, ended, failure=failure, result=dict(result))
    return {"state": ended}
