# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision which waiting VMs begin: each needs slots of several resources, and gets all of them or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from overkeep.errors import BadRequest

TOTAL = "total"
MOST_SLOTS = 10_000


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


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an administrator wrote down for a resource, or, by the bare name of a kind, for all of that kind."""

    resource: str
    capacity: int | None = None
    paused: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Settings over defaults: the setting of the very resource, that of its kind, the default of its kind.

    A kind without a default has no limit.
    """

    defaults: Mapping[ResourceKind, int]
    settings: Mapping[str, Setting]

    def of(self, resource: str) -> Limit:
        """The limit of a resource."""
        kind = kind_of(resource)
        own, general = self.settings.get(resource), self.settings.get(kind)
        for setting in (own, general):
            if setting is not None and setting.capacity is not None:
                capacity = setting.capacity
                break
        else:
            capacity = self.defaults.get(kind, MOST_SLOTS)
        return Limit(resource=resource, capacity=capacity, paused=own is not None and own.paused)


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


def rank(priority: Priority, since: str, position: int) -> str:
    """What orders those that wait: priority, age (ISO 8601, UTC, of one precision), position in the workload."""
    return f"{priority:d}/{since}/{position:06d}"


def room(limits: Limits, used: Mapping[str, int], resources: Iterable[str]) -> dict[str, int]:
    """How many more may use each resource now."""
    found = {resource: limits.of(resource) for resource in resources}
    return {
        resource: 0 if limit.paused else max(0, limit.capacity - used.get(resource, 0))
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
