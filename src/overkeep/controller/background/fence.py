# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller that may have been declared dead holds still: what it would do to the Manager and the movers waits.

Its peers declare a controller dead a TTL after its last beat, and go on with its work. One that lives all the same, as
its beats were late or it slept, knows by its own clock that this may have happened, and begins nothing before a beat
tells: either nobody has declared it dead, or it ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from overkeep.controller.durable import Stopping
from overkeep.controller.movers.spread import Movers
from overkeep.controller.ports import Ports
from overkeep.engine.api import Engine
from overkeep.mover.api import Mover

SHARE = 0.8  # of a TTL: what is begun just before that is with the Manager before others take the work up
_LOOK = 0.1  # seconds between two looks at whether there was a beat

# What only looks may be done at any time, and so may what ends a freeze: a guest that stays frozen is an outage.
ENGINE_ACTS = frozenset(
    {
        "delete_checkpoint",
        "delete_snapshot",
        "freeze",
        "start_backup",
        "finalize_backup",
        "start_transfer",
        "finalize_transfer",
        "cancel_transfer",
        "create_disk",
        "delete_disk",
        "create_vm",
        "start_vm",
        "delete_vm",
    }
)
MOVER_ACTS = frozenset({"put", "cancel"})

_log = logging.getLogger(__name__)


def seconds_awake_or_not() -> float:
    """A clock that nobody sets, and that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence:
    """Holds up the acts of a controller while its last beat is older than `SHARE` of a TTL. Safe for several threads.

    It holds nothing for ever: after an outage of the data base the next beat opens it.
    """

    def __init__(
        self, ttl: float, *, stopping: threading.Event, clock: Callable[[], float] = seconds_awake_or_not
    ) -> None:
        self._patience = ttl * SHARE
        self._stopping = stopping
        self._clock = clock
        self._heard = clock()
        self._told = False

    def heard(self, asked: float) -> None:
        """A beat was written that was begun at `asked` by the clock: the data base's time of it is no earlier."""
        self._heard = asked
        self._told = False

    def wait(self) -> None:
        """Return once the last beat is recent; raise `Stopping` when the controller stops.

        Who stops begins nothing more: it leaves after a while, whether its steps have ended or not, and others go on.
        """
        if self._stopping.is_set():
            raise Stopping
        while (age := self._clock() - self._heard) >= self._patience:
            if not self._told:
                self._told = True
                _log.warning("the last beat of this controller is %.1f s old: it begins nothing before the next", age)
            if self._stopping.wait(_LOOK):
                raise Stopping


def fenced(ports: Ports, fence: Fence) -> Ports:
    """The same world, in which steps and acts wait at the fence."""
    engine = cast(Engine, _Fenced(ports.engine, ENGINE_ACTS, fence.wait))
    return replace(ports, engine=engine, movers=_FencedMovers(ports.movers, fence.wait), hold=fence.wait)


class _FencedMovers:
    def __init__(self, movers: Movers, wait: Callable[[], None]) -> None:
        self._movers = movers
        self._wait = wait

    def at(self, host_id: str) -> Mover:
        return cast(Mover, _Fenced(self._movers.at(host_id), MOVER_ACTS, self._wait))


class _Fenced:
    """A port whose `acts` wait; all else is that of the port."""

    def __init__(self, port: object, acts: frozenset[str], wait: Callable[[], None]) -> None:
        self._port = port
        self._acts = acts
        self._wait = wait

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name not in self._acts:
            return found

        def act(*args: Any, **kwargs: Any) -> Any:
            self._wait()
            return found(*args, **kwargs)

        return act
