# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked about restore points: lists are of what was last seen, each point is read on its own target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import Member, Workload
from overkeep.controller.store.listings import Listed
from overkeep.controller.store.points import PointFilter, SeenPoint
from overkeep.controller.targets.configured import Away, PlacedPoint, TargetsAway
from overkeep.errors import Conflict, NotFound, OverkeepError
from overkeep.model.points import Pin, RestorePoint
from overkeep.repository.verification import Verification, last_verification
from overkeep.units import utc_now

PAGE = 100


class AmbiguousPoint(Conflict):
    """Points of several VMs have the id: those that one run of a workload made."""

    code = "ambiguous-point"
    template = "{count} VMs have a restore point {point}; say which VM you mean with --vm: {vms}."


class PointOnTargets(Conflict):
    """A point of the id lies on several targets: somebody has copied the tree."""

    code = "point-on-several-targets"
    template = "Restore point {point} is on the targets {targets}; say which one you mean with --target."


class NotListedYet(OverkeepError):
    """The controller has not read all of a target since it knows it."""

    code = "target-not-listed"
    template = "The restore points on target {target!r} are still being listed for the first time; more may be there."
    retry = True
    status = 503


@dataclass(frozen=True, kw_only=True)
class Left:
    """How many points a workload has by target, and the targets that cannot be read now."""

    counts: Mapping[str, int]
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

    def page(
        self, wanted: PointFilter, *, after: tuple[int, int] | None = None, limit: int = PAGE
    ) -> tuple[SeenPoint, ...]:
        """Points as they were last seen, oldest first: the first ones, or those after the one with a key."""
        names = {target.name for target in self._ports.targets}
        if wanted.target is not None:
            self._ports.targets.get(wanted.target)
        elif not self._ports.store.listings.all().keys() <= names:  # one that is no longer in the settings has rows
            wanted = replace(wanted, targets=names)
        return self._ports.store.points.page(wanted, after=after, limit=limit)

    def away(self, *, target: str | None = None) -> tuple[Away, ...]:
        """The targets that cannot be read now, or were never read whole: on them may be other points than are listed.

        A target that does not answer is waited for a moment only.
        """
        away = {one.target: one for one in self._ports.targets.away(name=target)}
        known = self._ports.store.listings.all()
        chosen = self._ports.targets if target is None else (self._ports.targets.get(target),)
        unlisted = [one.name for one in chosen if known.get(one.name, Listed()).listed is None]
        never = {name: Away(target=name, error=NotListedYet(target=name)) for name in unlisted}
        return tuple((never | away).values())

    def listed(self) -> Mapping[str, Listed]:
        """When the points of each target were last listed."""
        return self._ports.store.listings.all()

    def find(
        self, point_id: str, *, wanted: Wanted = ANY, known: Callable[[str], bool] = lambda _vm_id: True
    ) -> PlacedPoint:
        """One restore point; `wanted` says which when one run made points of several VMs.

        Points of VMs that are not `known` to who asks do not exist for him. It is read from its target: the table tells
        where to look, and where that leads to nothing all VMs are looked through. One that is not found while a target
        is away may be there: then `TargetsAway` is raised, not `NotFound`.
        """
        found, away = self._look(point_id, wanted, known, places=self._ports.store.points.places(point_id))
        if not found:
            found, away = self._look(point_id, wanted, known, places=None)
        if not found:
            if away:
                first = away[0]
                names = ", ".join(one.target for one in away)
                raise TargetsAway(what=f"Restore point {point_id!r}", away=names, reason=first.error.message)
            raise NotFound(kind="restore point", name=point_id, how="overkeep points")
        vms = {one.point.vm_id: one.point.vm_name for one in found}
        if len(vms) > 1:
            raise AmbiguousPoint(count=len(vms), point=point_id, vms=", ".join(vms.values()))
        if len(found) > 1:
            raise PointOnTargets(point=point_id, targets=", ".join(one.target.name for one in found))
        return found[0]

    def _look(
        self,
        point_id: str,
        wanted: Wanted,
        known: Callable[[str], bool],
        *,
        places: frozenset[tuple[str, str]] | None,
    ) -> tuple[list[PlacedPoint], tuple[Away, ...]]:
        """Read the points of an id, at `places` or wherever they are, on all targets that can be read."""
        seen = self._ports.targets.survey(
            lambda target: target.repository.find(point_id, places=places), name=wanted.target
        )
        placed = [PlacedPoint(point=point, target=target) for target, points in seen.answers for point in points]
        placed.sort(key=lambda one: (one.point.vm_name, one.point.vm_id))
        return [one for one in placed if one.point in wanted and known(one.point.vm_id)], seen.away

    def left_on(self, workload: Workload) -> Left:
        """How many points a workload has on targets that it had before and that are still in the settings."""
        counts = self._ports.store.points.counts(workload.id)
        before = [one.name for one in self._ports.targets.had_by(workload.id) if one.name != workload.target]
        return Left(
            counts={name: counts[name] for name in before if counts.get(name)},
            away=tuple(away for name in before for away in self.away(target=name)),
        )

    def member(self, workload: Workload, vm: str, *, known: Callable[[str], bool]) -> Member:
        """A VM of a workload, by name or id, or one that has left it and of which points were seen.

        VMs that are not `known` to who asks do not exist for him. Raises `NotFound`.
        """
        for one in workload.members:
            if vm in (one.vm_id, one.vm_name) and known(one.vm_id):
                return one
        for seen in self.page(PointFilter(workload_id=workload.id, vm=vm)):
            if known(seen.vm_id):
                return Member(vm_id=seen.vm_id, vm_name=seen.point.vm_name)
        raise NotFound(kind="VM of this workload", name=vm, how=f"overkeep points --workload {workload.name}")

    def pin(self, placed: PlacedPoint) -> Pin | None:
        """Why a point must stay; None when it need not."""
        return placed.target.repository.pin(placed.point)

    def verification(self, placed: PlacedPoint) -> Verification | None:
        """How the last check of a point went; None when it was never checked."""
        return last_verification(placed.target.repository, placed.point)

    def put_pin(self, placed: PlacedPoint, reason: str, *, caller: str) -> Pin:
        """Let a point stay whatever a retention says."""
        pin = Pin(reason=reason, by=caller, pinned_at=utc_now())
        placed.target.ready()
        placed.target.repository.put_pin(placed.point, pin)
        self._ports.store.points.set_pin(placed.target.name, placed.point, pin)
        text = f"Restore point {placed.point.id} of VM {placed.point.vm_name!r} is pinned: {reason}"
        self._tell(Kind.POINT_PINNED, text, placed, caller=caller)
        return pin

    def remove_pin(self, placed: PlacedPoint, *, caller: str = "") -> None:
        """Let a point go again, as its retention says."""
        placed.target.ready()
        pinned = self.pin(placed) is not None
        placed.target.repository.remove_pin(placed.point)
        self._ports.store.points.set_pin(placed.target.name, placed.point, None)
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
