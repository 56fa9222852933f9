# SPDX-License-Identifier: GPL-3.0-or-later
"""Why VMs of jobs wait, for those who look at them: which resources are full or paused, and who has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from overkeep.controller.store import Store
from overkeep.controller.store.admission import Holder
from overkeep.model.admission import (
    TOTAL,
    Change,
    Limit,
    Limits,
    Setting,
    in_words,
    is_group,
    is_workload,
    kind_of,
    until_in_words,
)

Sees = Callable[[str], bool]
"""Whether who asks may see a VM, by its id."""

_MOST_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class Usage:
    """A resource with its limit, how many slots are taken, and how many VMs wait that need it.

    `setting` is what was set for it, `usual` the limit outside of all windows, `change` the next one by a window.
    """

    limit: Limit
    setting: Setting
    usual: int
    used: int
    waiting: int
    change: Change | None = None

    @property
    def by_default(self) -> bool:
        """Whether nobody set a limit for the very resource."""
        return self.setting.capacity is None and not self.setting.windows


@dataclass(frozen=True, kw_only=True)
class _Blocked:
    limit: Limit
    change: Change | None
    used: int
    holders: tuple[Holder, ...]


class Waits:
    """Why the waiting VMs of some jobs wait, as it is now."""

    def __init__(self, needs: Mapping[tuple[str, str], tuple[str, ...]], blocked: Mapping[str, _Blocked]) -> None:
        self._needs = needs
        self._blocked = blocked

    def why(self, job_id: str, vm_id: str, sees: Sees = lambda _vm_id: False) -> str:
        """One phrase for a VM that waits, empty for one that does not. VMs that are not seen are counted, not named."""
        needs = self._needs.get((job_id, vm_id))
        if needs is None:
            return ""
        told = [_phrase(self._blocked[need], sees) for need in _in_order(needs) if need in self._blocked]
        return "waiting for " + ("; ".join(told) or "its turn")


def waits(store: Store, job_ids: Sequence[str]) -> Waits:
    """Why the waiting VMs of jobs wait; nothing waits in those that are over, which had better be left out."""
    needs = store.admission.needs_of(job_ids)
    if not needs:
        return Waits({}, {})
    limits, used = store.admission.limits(), store.admission.used()
    found = [limits.of(resource) for resource in {need for all_needs in needs.values() for need in all_needs}]
    blocking = [limit for limit in found if limit.closed or used.get(limit.resource, 0) >= limit.capacity]
    holders = store.admission.holders([limit.resource for limit in blocking])
    return Waits(
        needs,
        {
            limit.resource: _Blocked(
                limit=limit,
                change=limits.change_of(limit.resource),
                used=used.get(limit.resource, 0),
                holders=holders.get(limit.resource, ()),
            )
            for limit in blocking
        },
    )


def usage(store: Store) -> tuple[Usage, ...]:
    """All resources that are used, waited for, or have a limit of their own, in order of kind and name."""
    limits, used = store.admission.limits(), store.admission.used()
    waiting: dict[str, int] = {}
    for line in store.admission.lines():
        for need in line.needs:
            waiting[need] = waiting.get(need, 0) + line.length
    names = {TOTAL, *limits.defaults, *limits.settings, *used, *waiting}
    idle = {name for name in names if is_workload(name) and name not in used | waiting}
    names -= {*idle, *filter(is_group, names)}
    return tuple(
        usage_of(limits, name, used=used.get(name, 0), waiting=waiting.get(name, 0)) for name in _in_order(names)
    )


def usage_of(limits: Limits, resource: str, *, used: int = 0, waiting: int = 0) -> Usage:
    """One resource."""
    return Usage(
        limit=limits.of(resource),
        setting=limits.settings.get(resource, Setting(resource=resource)),
        usual=limits.usual(resource),
        used=used,
        waiting=waiting,
        change=limits.change_of(resource),
    )


def _phrase(blocked: _Blocked, sees: Sees) -> str:
    name = in_words(blocked.limit.resource)
    if blocked.limit.paused:
        return f"{name}, which is paused"
    until = f" {until_in_words(blocked.change)}" if blocked.change else ""
    if blocked.limit.closed:
        return f"{name}, which takes nothing new{until}"
    slots = f"{name}: {blocked.used} of {blocked.limit.capacity} slots{until} in use"
    return f"{slots} by {_who(blocked.holders, sees)}" if blocked.holders else slots


def _who(holders: Sequence[Holder], sees: Sees) -> str:
    seen = [holder.vm_name for holder in holders if sees(holder.vm_id)][:_MOST_NAMES]
    others = len(holders) - len(seen)
    if not seen:
        return f"{others} VMs" if others > 1 else "a VM"
    more = [f"{others} other{'s' if others > 1 else ''}"] if others else []
    *first, last = [*seen, *more]
    return f"{', '.join(first)} and {last}" if first else last


def place(resource: str) -> tuple[int, str]:
    """Where a resource stands in a list, the widest last: who waits for a host does not care for the total."""
    return (["group", "workload", "host", "domain", "target", "total"].index(kind_of(resource)), resource)


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=place)
