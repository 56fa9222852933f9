# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked about limits: what is in force and used, and what administrators change while it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from overkeep.controller.desks.waits import Usage, usage, usage_of
from overkeep.controller.ports import Ports
from overkeep.errors import BadRequest, NotFound
from overkeep.model.admission import MOST_SLOTS, TOTAL, ResourceKind, Setting, SlotsWindow, is_general, kind_of


class LimitDesk:
    """Limits of resources. A change counts for what begins from now on; nothing that runs is ended by it."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._store = ports.store

    def all(self) -> tuple[Usage, ...]:
        """What is in force, used and waited for."""
        return usage(self._store)

    def one(self, resource: str) -> Usage:
        """One limit; raises `BadRequest` for what is no name of a resource, `NotFound` for one that is not there."""
        self._require_known(resource)
        return self._of(resource)

    def set(
        self,
        resource: str,
        capacity: int | None,
        *,
        windows: Sequence[SlotsWindow] = (),
        zone: str = "UTC",
        caller: str = "",
    ) -> Usage:
        """Let so many VMs use a resource at once, and other numbers in windows of the week.

        None goes back to the default. Raises `BadRequest`, and `BadSchedule` for a zone that there is not.
        """
        self._require_known(resource)
        for number, least in ((capacity, 1), *((each.capacity, 0) for each in windows)):
            if number is not None and not least <= number <= MOST_SLOTS:
                what = f"{number} is no limit for {resource}"
                todo = f"give 1 to {MOST_SLOTS}, or 0 in a window in which nothing begins, or pause the resource"
                raise BadRequest(what=what, todo=todo)
        asked = Setting(resource=resource, capacity=capacity, windows=tuple(windows), zone=zone)
        self._store.resources.set_slots(asked if windows else replace(asked, zone="UTC"), caller=caller)
        return self._changed(resource)

    def pause(self, resource: str, *, caller: str = "") -> Usage:
        """Let nothing new use a resource; what runs goes on."""
        self._require_one(resource)
        self._store.resources.pause(resource, caller=caller)
        return self._changed(resource)

    def resume(self, resource: str, *, caller: str = "") -> Usage:
        """Let it be used again."""
        self._require_one(resource)
        self._store.resources.resume(resource, caller=caller)
        return self._changed(resource)

    def _require_one(self, resource: str) -> None:
        self._require_known(resource)
        if is_general(resource):
            raise BadRequest(what=f"{resource!r} stands for every {resource}", todo="name one, or total for everything")

    def _changed(self, resource: str) -> Usage:
        self._store.admission.news.set()
        return self._of(resource)

    def _of(self, resource: str) -> Usage:
        found = {item.limit.resource: item for item in self.all()}
        return found.get(resource) or self._unused(resource)

    def _unused(self, resource: str) -> Usage:
        return usage_of(self._store.admission.limits(), resource)

    def _require_known(self, resource: str) -> None:
        """Raise `BadRequest` for what is no name of a resource, `NotFound` for one that is not there.

        A limit that was written down may be changed although its resource is gone since.
        """
        kind = kind_of(resource)
        if kind in (ResourceKind.WORKLOAD, ResourceKind.GROUP):
            what = "How many VMs of a workload are backed up at once is a setting of the workload"
            raise BadRequest(what=what, todo="use `overkeep workload change --parallel`")
        if resource == TOTAL or is_general(resource) or resource in self._store.resources.all():
            return
        name = resource.partition(":")[2]
        if name not in self._names(kind):
            raise NotFound(kind=kind.value, name=name, how="overkeep limit list")

    def _names(self, kind: ResourceKind) -> Iterable[str]:
        if kind is ResourceKind.TARGET:
            return [target.name for target in self._ports.targets]
        if kind is ResourceKind.HOST:
            return [host.name for host in self._ports.engine.hosts()]
        return self._ports.engine.storage_domains()
