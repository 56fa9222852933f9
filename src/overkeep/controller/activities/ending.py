# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of restore points: each is told and leaves the lists, also when its controller dies just then."""

from __future__ import annotations

from dataclasses import dataclass

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.events import Kind
from overkeep.controller.records import Held, HeldKind
from overkeep.controller.targets.configured import PlacedPoint
from overkeep.controller.targets.target import Target
from overkeep.errors import NotFound
from overkeep.repository.errors import PointPinned


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Ends points of a VM in a workload for a `reason` (`policy`, `asked`), with `why` as words for people."""

    exposure: Exposure
    workload_id: str
    reason: str
    why: str

    def recover(self) -> frozenset[str]:
        """Tell the points that an earlier run of this job ended and did not tell any more; return their ids."""
        told = set()
        for item in self.exposure.held(HeldKind.POINT):
            target, _, point_id = item.ref.split("/")  # one run gives the points of its VMs the same id
            if not self._is_there(target, point_id):
                self._tell(target, point_id)
                told.add(point_id)
            self._release(item)
        return frozenset(told)

    def end(self, placed: PlacedPoint) -> bool:
        """End a point and tell it; False when it was pinned since that was decided. Its images stay."""
        try:
            self.end_named(placed.target, placed.point.id)
        except PointPinned:
            return False
        return True

    def end_named(self, target: Target, point_id: str) -> None:
        """End a point and tell it; one that is gone is told as well. Raises `PointPinned` and errors of the target."""
        item = self.exposure.note(HeldKind.POINT, f"{target.name}/{self.exposure.vm_id}/{point_id}")
        self.exposure.ports.store.held.reopen(item)  # an earlier run may have found that it stays
        target.ready()
        try:
            target.repository.remove_point(self.workload_id, self.exposure.vm_id, point_id=point_id)
        except PointPinned:
            self._release(item)
            raise
        self._tell(target.name, point_id)
        self._release(item)

    def _is_there(self, target: str, point_id: str) -> bool:
        vm_id = self.exposure.vm_id
        ports = self.exposure.ports
        try:
            ports.targets.ask(
                ports.targets.get(target), lambda one: one.repository.point(self.workload_id, vm_id, point_id)
            )
        except NotFound:
            return False
        return True

    def _tell(self, target: str, point_id: str) -> None:
        place = (self.workload_id, self.exposure.vm_id, point_id)
        self.exposure.ports.store.points.remove(target, place)
        self.exposure.tell(
            Kind.POINT_REMOVED,
            f"Restore point {point_id} is removed: {self.why}",
            point_id=point_id,
            target=target,
            key=f"{Kind.POINT_REMOVED}/{self.exposure.vm_id}/{point_id}/{target}",
            reason=self.reason,
        )

    def _release(self, item: Held) -> None:
        self.exposure.ports.store.held.release(item)
