# SPDX-License-Identifier: GPL-3.0-or-later
"""Several controllers on one data base: each says that it lives, and goes on with what a dead one left."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from types import TracebackType

from sqlalchemy.exc import SQLAlchemyError

from overkeep.controller.background.fence import Fence, seconds_awake_or_not
from overkeep.controller.store.controllers import Controllers
from overkeep.logs import fields

TTL = 30.0  # seconds without a beat after which a controller is declared dead
DECLARED_DEAD = 75  # exit status: systemd starts it again, as a new one
_BEATS = 6  # in a TTL

_log = logging.getLogger(__name__)


def die() -> None:
    """End this process at once, without any clean-up: another controller goes on with its work already."""
    _log.critical("this controller was declared dead by another one and ends; what it did goes on there")
    logging.shutdown()
    os._exit(DECLARED_DEAD)


class Peers:
    """The pulse of this controller, and its eye on the others. Use as a context manager, before work is taken.

    `take_up` is given what tells the controllers that live, and takes up what belongs to none of them. Nobody is
    declared dead while this controller's own beats came late: after an outage of the data base, or a pause of this
    process, all have a TTL to be heard again. What this one does goes through its `fence`, which holds it while its
    beats are late.
    """

    def __init__(
        self,
        controllers: Controllers,
        executor_id: str,
        *,
        take_up: Callable[[Callable[[], frozenset[str]]], None],
        stopping: threading.Event,
        ttl: float = TTL,
        lost: Callable[[], None] = die,
        clock: Callable[[], float] = seconds_awake_or_not,
    ) -> None:
        self._controllers = controllers
        self._executor_id = executor_id
        self._take_up = take_up
        self._ttl = ttl
        self._lost = lost
        self._clock = clock
        self.fence = Fence(ttl, stopping=stopping, clock=clock)
        self._steady_since = self._last = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> Peers:
        asked = self._clock()
        self._controllers.join(self._executor_id, f"{socket.gethostname()}:{os.getpid()}")
        self.fence.heard(asked)
        self._steady_since = self._last = self._clock()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self._controllers.leave(self._executor_id)
        except SQLAlchemyError as failed:
            _log.warning("the data base does not answer; the others learn of this end in %g s: %s", self._ttl, failed)

    def beat(self) -> None:
        """Say that this controller lives; look after the others when its beats were in time for a while."""
        asked = self._clock()
        if not self._controllers.beat(self._executor_id):
            self._lost()
            return
        self.fence.heard(asked)
        now = self._clock()
        if now - self._last > self._ttl / 2:
            self._steady_since = now
        self._last = now
        if now - self._steady_since < self._ttl:
            return
        with self._controllers.burying(self._executor_id, self._ttl) as (living, dead):
            for place in dead:
                _log.warning("controller declared dead %s", fields(place=place, silent=f"{self._ttl:g} s"))
            if self._executor_id in living():
                self._take_up(living)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.beat()
            except SQLAlchemyError as error:
                _log.warning("no beat: the data base does not answer: %s", error)
            except Exception:  # noqa: BLE001 - the outermost loop of a thread: logged, and the next beat comes
                _log.exception("a beat failed")
            self._stop.wait(self._ttl / _BEATS)
