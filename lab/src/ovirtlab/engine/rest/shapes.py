# SPDX-License-Identifier: GPL-3.0-or-later
"""Small parts that many entities are shown with."""

from __future__ import annotations

import uuid

from ovirtlab.engine.access import sees
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import BadRequest, NotFound
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.rest.documents import API, Collection, Entity, Items, Value
from ovirtlab.engine.rest.routing import Call


def address(*parts: str) -> str:
    """The address of an entity, e.g. `address("vms", vm.id)`."""
    return "/".join((API, *parts))


def version(level: tuple[int, int], *, tag: str = "version") -> Entity:
    """A compatibility level."""
    return Entity(tag, {"major": level[0], "minor": level[1]})


def cause_of(call: Call) -> Cause:
    """Who a job or an event is owed to."""
    return Cause(call.user, call.correlation_id)


def vm_of(call: Call) -> Vm:
    """The VM of the path; `NotFound` when there is none, or none that this user sees."""
    vm = call.context.state.vm(call.id("vm"))
    check_seen(call, ("vm", vm.id))
    return vm


def check_seen(call: Call, place: tuple[str, str]) -> None:
    """Raise `NotFound` when the user-level view does not have this object."""
    if call.filtered and not sees(call.context.state, call.user, on=place):
        raise NotFound(place[1])


def check_unfiltered(call: Call) -> None:
    """Raise for the user-level view of what the engine has in the administrators' view only."""
    if call.filtered:
        raise BadRequest("Query execution failed due to insufficient permissions.")


def nothing(tag: str, member: str) -> Collection:
    """An empty list of things that the lab's machines do not have."""
    return Collection(tag, member, [])


def statistic(base: str, name: str, description: str, *, unit: str, value: float, owner: Entity | None) -> Entity:
    """A gauge of the object at `base`; the id is made from both, so it stays the same."""
    key = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{base}/{name}"))
    fields: dict[str, Value] = {
        "name": name,
        "description": description,
        "kind": "gauge",
        "type": "decimal",
        "unit": unit,
        "values": Items("value", [Entity("value", {"datum": value})]),
    }
    if owner is not None:
        fields[owner.tag] = owner
    return Entity("statistic", fields, id=key, href=f"{base}/statistics/{key}")
