# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision which waiting VMs begin: each needs slots of several resources, and gets all of them or none."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from overkeep.errors import BadRequest
from overkeep.model.cron import DAYS
from overkeep.model.schedule import known_zone
from overkeep.model.windows import edges, window

TOTAL = "total"
MOST_SLOTS = 10_000
_MINUTE = dt.timedelta(minutes=1)


class ResourceKind(StrEnum):
    """What has slots; the value is the first part of a resource's name, as in `target:nfs1`.

    A workload has as many as VMs of it are backed up at once: that is a setting of its own, not one of limits. A group
    has no end of them: VMs that need it begin together.
    """

    TOTAL = "total"
    HOST = "host"
    TARGET = "target"
    DOMAIN = "domain"
    WORKLOAD = "workload"
    GROUP = "group"


class Priority(IntEnum):
    """Who comes first: a tenant needs yesterday's VM now, somebody waits for what was asked for by hand."""

    RESTORE = 0
    ASKED = 1
    PLANNED = 2


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How many VMs use a resource at once; of a paused one nothing new does."""

    resource: str
    capacity: int
    paused: bool = False

    @property
    def closed(self) -> bool:
        """Whether nothing new uses it, however little is used."""
        return self.paused or self.capacity == 0


@dataclass(frozen=True, kw_only=True)
class SlotsWindow:
    """Another number of slots in a window of the week: `mon-fri 08:00-18:00`. Raises `BadSchedule`."""

    when: str
    capacity: int

    def __post_init__(self) -> None:
        window(self.when)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an administrator wrote down for a resource, or, by the bare name of a kind, for all of that kind.

    In `windows`, by the clocks of `zone`, other numbers hold than `capacity`; the first that is open counts. Where
    neither says something, that of the kind, or the default, does. Raises `BadSchedule`.
    """

    resource: str
    capacity: int | None = None
    paused: bool = False
    windows: tuple[SlotsWindow, ...] = ()
    zone: str = "UTC"

    def __post_init__(self) -> None:
        known_zone(self.zone)

    def at(self, instant: dt.datetime) -> int | None:
        """How many slots it gives at an instant; None when it does not say."""
        if not self.windows:
            return self.capacity
        local = instant.astimezone(known_zone(self.zone))
        return next((each.capacity for each in self.windows if window(each.when).holds(local)), self.capacity)

    def edges(self, after: dt.datetime) -> Iterator[dt.datetime]:
        """When that may change within a week (`overkeep.model.windows.edges`)."""
        return edges([window(each.when) for each in self.windows], known_zone(self.zone), after)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Another number of slots that comes into force; `zone` is that whose clocks tell so."""

    at: dt.datetime
    capacity: int
    zone: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Settings over defaults: the setting of the very resource, that of its kind, the default of its kind.

    They are asked as they hold at the instant `at`. A kind without a default has no limit.
    """

    defaults: Mapping[ResourceKind, int]
    settings: Mapping[str, Setting]
    at: dt.datetime

    def of(self, resource: str) -> Limit:
        """The limit of a resource."""
        own = self.settings.get(resource)
        return Limit(
            resource=resource, capacity=self._capacity(resource, self.at), paused=own is not None and own.paused
        )

    def usual(self, resource: str) -> int:
        """How many slots there are outside of all windows."""
        given = (setting.capacity for setting in self._told(resource) if setting.capacity is not None)
        return next(given, self._default(resource))

    def most(self, resource: str) -> int:
        """How many slots there are at the best time."""
        found: list[int] = []
        for setting in self._told(resource):
            found += [each.capacity for each in setting.windows]
            if setting.capacity is not None:
                return max(setting.capacity, *found, 0)
        return max(self._default(resource), *found, 0)

    def change_of(self, resource: str) -> Change | None:
        """When another number of slots comes into force, and which; None when none does within a week."""
        timed = [setting for setting in self._told(resource) if setting.windows]
        now, before = self._capacity(resource, self.at), self.at
        for edge in sorted({edge for setting in timed for edge in setting.edges(self.at)}):
            if self._capacity(resource, edge) != now:
                at = _first(lambda instant: self._capacity(resource, instant) != now, before, edge)
                return Change(at=at, capacity=self._capacity(resource, at), zone=timed[0].zone)
            before = edge
        return None

    def _capacity(self, resource: str, at: dt.datetime) -> int:
        given = (slots for setting in self._told(resource) if (slots := setting.at(at)) is not None)
        return next(given, self._default(resource))

    def _told(self, resource: str) -> list[Setting]:
        """What was written down that counts for a resource, its own first."""
        names = dict.fromkeys((resource, str(kind_of(resource))))
        return [self.settings[name] for name in names if name in self.settings]

    def _default(self, resource: str) -> int:
        return self.defaults.get(kind_of(resource), MOST_SLOTS)


def _first(holds: Callable[[dt.datetime], bool], before: dt.datetime, at: dt.datetime) -> dt.datetime:
    """The first minute in which something holds that does not hold `before` and holds `at`, a whole minute."""
    while at - before > _MINUTE:
        middle = at - max(1, (at - before) // _MINUTE // 2) * _MINUTE
        if holds(middle):
            at = middle
        else:
            before = middle
    return at


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A VM of a job that waits. `rank` orders: priority, then age. `overdue`: others passed it by for too long."""

    job_id: str
    vm_id: str
    rank: str
    needs: tuple[str, ...]
    overdue: bool = False


def host(name: str) -> str:
    """The resource of a host."""
    return f"{ResourceKind.HOST}:{name}"


def target(name: str) -> str:
    """The resource of a backup target."""
    return f"{ResourceKind.TARGET}:{name}"


def domain(name: str) -> str:
    """The resource of a storage domain."""
    return f"{ResourceKind.DOMAIN}:{name}"


def workload(workload_id: str) -> str:
    """The resource of a workload of which only so many VMs are backed up at once."""
    return f"{ResourceKind.WORKLOAD}:{workload_id}"


def kind_of(resource: str) -> ResourceKind:
    """The kind of a resource, or of the name of a kind itself; raise `BadRequest` for anything else."""
    kind, colon, name = resource.partition(":")
    if kind not in set(ResourceKind) or (colon and (not name or kind == TOTAL)):
        todo = "use total, host:NAME, target:NAME, domain:NAME, or host, target, domain for each of them"
        raise BadRequest(what=f"{resource!r} is not the name of a resource", todo=todo)
    return ResourceKind(kind)


def is_general(resource: str) -> bool:
    """Whether a name stands for all resources of a kind."""
    return resource != TOTAL and ":" not in resource


def group(job_id: str) -> str:
    """The resource of the VMs of a run that begin together."""
    return f"{ResourceKind.GROUP}:{job_id}"


def is_group(resource: str) -> bool:
    """Whether a name stands for VMs that begin together."""
    return resource.startswith(f"{ResourceKind.GROUP}:")


def is_workload(resource: str) -> bool:
    """Whether a name stands for a workload."""
    return resource.startswith(f"{ResourceKind.WORKLOAD}:")


def in_words(resource: str) -> str:
    """A resource as it is told to users."""
    kind, _, name = resource.partition(":")
    if is_workload(resource):
        return "its workload"
    words = {TOTAL: "the total", ResourceKind.DOMAIN: "storage domain"}
    return f"{words.get(kind, kind)} {name}".rstrip()


def until_in_words(change: Change) -> str:
    """How long what is before a change lasts: `until fri 18:00 (Europe/Berlin)`."""
    local = change.at.astimezone(known_zone(change.zone))
    return f"until {DAYS[local.weekday()]} {local:%H:%M} ({change.zone})"


def rank(priority: Priority, since: str, position: int) -> str:
    """What orders those that wait: priority, age (ISO 8601, UTC, of one precision), position in the workload."""
    return f"{priority:d}/{since}/{position:06d}"


def room(limits: Limits, used: Mapping[str, int], resources: Iterable[str]) -> dict[str, int]:
    """How many more may use each resource now."""
    found = {resource: limits.of(resource) for resource in resources}
    return {
        resource: 0 if limit.closed else max(0, limit.capacity - used.get(resource, 0))
        for resource, limit in found.items()
    }


def in_order(limits: Limits, resources: Iterable[str]) -> frozenset[str]:
    """The workloads among some resources whose VMs are backed up one after the other, in their order."""
    return frozenset(name for name in resources if is_workload(name) and limits.of(name).capacity == 1)


def admit(
    waiting: Sequence[Waiting], free: Mapping[str, int], *, ordered: Set[str] = frozenset()
) -> tuple[Waiting, ...]:
    """Those of `waiting`, in the order of their ranks, that begin now; `free` has the slots of what they need.

    One that does not fit is passed by, so that a full resource holds up nobody who does not need it; but not by those
    that need the same resource of `ordered`. VMs of a group begin together or not at all. One that is overdue keeps a
    slot of what it needs from those behind it, at most one of each resource, or a group as many as it needs: so it gets
    them one after the other and is never passed by for ever, and no resource has more slots idle for that than the
    largest group needs. One that only its own workload holds up keeps nothing.
    """
    left = dict(free)
    kept: Counter[str] = Counter()
    begun: list[Waiting] = []
    for party in _parties(waiting):
        wanted = Counter(need for one in party for need in one.needs)
        full = [need for need, count in wanted.items() if left[need] - kept[need] < count]
        if not full:
            for need, count in wanted.items():
                left[need] -= count
            begun += party
            continue
        keeps = {need: 1 for need in wanted if need in ordered}
        if any(one.overdue for one in party) and not any(map(is_workload, full)):
            keeps = {need: min(count, left[need]) for need, count in wanted.items()}
        kept |= Counter(keeps)
    return tuple(begun)


def _parties(waiting: Iterable[Waiting]) -> list[list[Waiting]]:
    """Who begins together, by rank of the first of each: one alone, or a group."""
    parties: dict[str, list[Waiting]] = {}
    for one in sorted(waiting, key=lambda item: item.rank):
        name = next(filter(is_group, one.needs), f"{one.job_id}/{one.vm_id}/{one.rank}")
        parties.setdefault(name, []).append(one)
    return list(parties.values())
