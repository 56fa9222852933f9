# SPDX-License-Identifier: GPL-3.0-or-later
"""Spreads work that any host can do: the copies of disks that no VM runs with, and merges on a target."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from overkeep.engine.api import Engine
from overkeep.engine.cache import Cache
from overkeep.errors import OverkeepError
from overkeep.model.inventory import Host
from overkeep.mover.api import Load, Mover

LOOK = 5.0
"""Seconds for which what the movers told of their load is good; what they are given meanwhile is added."""

_HOSTS = 30.0  # seconds for which the hosts of a storage domain are good
_DOMAINS = 1000  # remembered
_IDLE = Load(at_once=1, running=0, waiting=0)  # an older mover, which does not say
_ANY = ""  # in place of a storage domain


class Movers(Protocol):
    """Where the movers are."""

    def at(self, host_id: str) -> Mover:
        """The mover of a host of the Manager; raises `overkeep.errors.NotFound` for a host that does not exist."""


class Spread:
    """Chooses the host with the least loaded mover. Safe for several threads; asks no more often than needed."""

    def __init__(self, engine: Engine, movers: Movers, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._movers = movers
        self._hosts: Cache[str, tuple[Host, ...]] = Cache(_HOSTS, _DOMAINS, clock=clock)
        self._loads: Cache[tuple[str, ...], Mapping[str, Load]] = Cache(LOOK, _DOMAINS, clock=clock)
        self._given: Counter[str] = Counter()
        self._choosing = threading.Lock()

    def for_disk(self, storage_domain_id: str) -> str | None:
        """The host for a disk of this storage domain; None leaves it to the Manager, when no mover answers."""
        hosts = self._hosts.get(storage_domain_id, lambda: self._engine.hosts_seeing(storage_domain_id))
        return next(iter(self._by_load(hosts)), None)

    def order(self, *, first: str = "") -> tuple[str, ...]:
        """The hosts that are up whose movers answer, the least loaded first, but `first` before all others."""
        hosts = self._hosts.get(_ANY, lambda: tuple(host for host in self._engine.hosts() if host.status == "up"))
        return tuple(sorted(self._by_load(hosts), key=lambda host_id: host_id != first))

    def _by_load(self, hosts: Iterable[Host]) -> list[str]:
        """Ids of hosts, least loaded first; the first of them counts as given one more thing to do."""
        ids = tuple(sorted(host.id for host in hosts))
        with self._choosing:  # who comes at the same time sees what was given just before
            loads = self._loads.get(ids, lambda: self._ask(ids))
            ranked = sorted(loads, key=lambda host_id: (loads[host_id].share(more=self._given[host_id]), host_id))
            if ranked:
                self._given[ranked[0]] += 1
        return ranked

    def _ask(self, ids: tuple[str, ...]) -> Mapping[str, Load]:
        """What each mover has to do now; those that do not answer are left out."""
        if not ids:
            return {}
        with ThreadPoolExecutor(max_workers=len(ids), thread_name_prefix="load") as pool:
            loads = dict(zip(ids, pool.map(self._load, ids), strict=True))
        for host_id in ids:
            del self._given[host_id]
        return {host_id: load for host_id, load in loads.items() if load is not None}

    def _load(self, host_id: str) -> Load | None:
        try:
            return self._movers.at(host_id).health().load or _IDLE
        except OverkeepError:
            return None
