# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked about restore points, wherever they lie: each is found, pinned and restored on its own target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import Workload
from overkeep.controller.targets import Away, PlacedPoint, TargetsAway
from overkeep.errors import Conflict, NotFound
from overkeep.model.points import Pin, RestorePoint
from overkeep.units import utc_now


class AmbiguousPoint(Conflict):
    """Points of several VMs have the id: those that one run of a workload made."""

    code = "ambiguous-point"
    template = "{count} VMs have a restore point {point}; say which VM you mean with --vm: {vms}."


class PointOnTargets(Conflict):
    """A point of the id lies on several targets: somebody has copied the tree."""

    code = "point-on-several-targets"
    template = "Restore point {point} is on the targets {targets}; say which one you mean with --target."


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Restore points, oldest first, and the targets that could not be read: on them may be more."""

    points: tuple[PlacedPoint, ...]
    away: tuple[Away, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which points are meant: the VM by name or id, the target by name."""

    vm: str | None = None
    target: str | None = None

    def __contains__(self, point: RestorePoint) -> bool:
        return self.vm is None or self.vm in (point.vm_id, point.vm_name)


ANY = Wanted()


class PointDesk:
    """The restore points of all targets."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def all(self, *, workload_id: str | None = None, wanted: Wanted = ANY) -> Listing:
        """Restore points on all targets that can be read."""
        found = self._ports.targets.survey(
            lambda target: target.repository.points(workload_id=workload_id), name=wanted.target
        )
        placed = [
            PlacedPoint(point=point, target=target)
            for target, points in found.answers
            for point in points
            if point in wanted
        ]
        placed.sort(key=lambda one: (one.point.created, one.point.vm_name, one.point.vm_id, one.target.name))
        return Listing(points=tuple(placed), away=found.away)

    def find(
        self, point_id: str, *, wanted: Wanted = ANY, known: Callable[[str], bool] = lambda _vm_id: True
    ) -> PlacedPoint:
        """One restore point; `wanted` says which when one run made points of several VMs.

        Points of VMs that are not `known` to who asks do not exist for him. One that is not found while a target is
        away may be there: then `TargetsAway` is raised, not `NotFound`.
        """
        listing = self.all(wanted=wanted)
        found = [one for one in listing.points if one.point.id == point_id and known(one.point.vm_id)]
        if not found:
            if listing.away:
                first = listing.away[0]
                names = ", ".join(one.target for one in listing.away)
                raise TargetsAway(what=f"Restore point {point_id!r}", away=names, reason=first.error.message)
            raise NotFound(kind="restore point", name=point_id, how="overkeep points")
        vms = {one.point.vm_id: one.point.vm_name for one in found}
        if len(vms) > 1:
            raise AmbiguousPoint(count=len(vms), point=point_id, vms=", ".join(vms.values()))
        if len(found) > 1:
            raise PointOnTargets(point=point_id, targets=", ".join(one.target.name for one in found))
        return found[0]

    def left_on(self, workload: Workload) -> Listing:
        """The points of a workload on the targets that it had before and that are still in the settings."""
        parts = [
            self.all(workload_id=workload.id, wanted=Wanted(target=target.name))
            for target in self._ports.targets.had_by(workload.id)
            if target.name != workload.target
        ]
        return Listing(
            points=tuple(point for part in parts for point in part.points),
            away=tuple(away for part in parts for away in part.away),
        )

    def pin(self, placed: PlacedPoint) -> Pin | None:
        """Why a point must stay; None when it need not."""
        return placed.target.repository.pin(placed.point)

    def put_pin(self, placed: PlacedPoint, reason: str, *, caller: str) -> Pin:
        """Let a point stay whatever a retention says."""
        pin = Pin(reason=reason, by=caller, pinned_at=utc_now())
        placed.target.ready()
        placed.target.repository.put_pin(placed.point, pin)
        text = f"Restore point {placed.point.id} of VM {placed.point.vm_name!r} is pinned: {reason}"
        self._tell(Kind.POINT_PINNED, text, placed, caller=caller)
        return pin

    def remove_pin(self, placed: PlacedPoint, *, caller: str = "") -> None:
        """Let a point go again, as its retention says."""
        placed.target.ready()
        pinned = self.pin(placed) is not None
        placed.target.repository.remove_pin(placed.point)
        if pinned:
            text = f"Restore point {placed.point.id} of VM {placed.point.vm_name!r} is no longer pinned"
            self._tell(Kind.POINT_UNPINNED, text, placed, caller=caller)

    def _tell(self, kind: Kind, text: str, placed: PlacedPoint, *, caller: str) -> None:
        point = placed.point
        about = About(
            workload_id=point.workload_id,
            vm_id=point.vm_id,
            vm_name=point.vm_name,
            point_id=point.id,
            target=placed.target.name,
        )
        self._ports.store.events.add(Draft(kind=kind, text=text, about=about, caller=caller))
