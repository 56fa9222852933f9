# SPDX-License-Identifier: GPL-3.0-or-later
"""Points are checked by movers, and nothing is built upon one that was found to be unsound."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from overkeep.controller.activities.bookkeeping import Bookkeeping
from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.targets.target import Target
from overkeep.errors import OverkeepError
from overkeep.model.points import DiskImage, RestorePoint
from overkeep.mover.api import Mover
from overkeep.mover.orders import MOST_IMAGES, ImageFindings, OrderState, VerifyOrder, VerifyResult
from overkeep.repository.errors import ChainBroken
from overkeep.repository.repository import Repository
from overkeep.repository.verification import Found, Verification, judge, last_verification, unreached

_Found = dict[tuple[Path, str], ImageFindings]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a mover reads of images: a `share` of their data, 0 to 1, and for no longer than `seconds`."""

    share: float
    seconds: float | None = None


class PointUnsound(OverkeepError):
    """A new restore point does not read as it was written."""

    code = "point-unsound"
    template = (
        "Restore point {point} of VM {vm!r} was made and did not verify: {finding} "
        "Nothing is built upon it: the next backup is a full one. Restore from an earlier point until then."
    )
    retry = True
    status = 502


class NotVerified(OverkeepError):
    """A mover could not check a point; nothing is known about it."""

    code = "not-verified"
    template = "Disk {disk!r} of restore point {point} could not be checked: {reason}"
    retry = True
    status = 502


class Verifying:
    """Has a mover check points of a VM, one after the other: each image of each of their chains, by itself and once.

    The whole chain is read, or the same share of each of its images: a restore reads them all, and what the next
    backup is built upon is all of them. May be repeated.
    """

    def __init__(self, exposure: Exposure, target: Target, *, host_id: str) -> None:
        self._exposure = exposure
        self._ports = exposure.ports
        self._target = target
        self._bookkeeping = Bookkeeping(exposure, host_id=host_id)
        self._found: _Found = {}

    def run(self, point: RestorePoint, share: float, *, end: float | None = None) -> Verification:
        """Check a share of a point's data, 0 to 1, and write down beside its manifest what was found.

        After `end`, a moment of `time.monotonic()`, movers read nothing more; what they did not come to is told.

        Raises `NotVerified`, and the errors of movers and of the target, when it could not be checked; a cancel stops
        the check and is raised as well.
        """
        self._bookkeeping.begin()
        try:
            return self._run(point, share, end)
        except OverkeepError:
            self._bookkeeping.stop()
            raise

    def _run(self, point: RestorePoint, share: float, end: float | None) -> Verification:
        chosen = self._bookkeeping.mover()
        for image in point.images:
            left = None if end is None else end - time.monotonic()
            if left is None or left > 0:
                self._found |= self._check(point, image, chosen, Budget(share=share, seconds=left))

        def look(folder: Path, name: str) -> Found:
            if (folder, name) in self._found:
                return self._found[(folder, name)]
            if end is None:
                raise NotVerified(disk=folder.name, point=point.id, reason=f"{name} was not looked at.")
            return unreached(folder, name)

        def write(target: Target) -> Verification:
            target.ready()
            verification = judge(target.repository, point, look)
            self._ports.store.points.set_verification(target.name, point, verification)
            return verification

        return self._ports.targets.ask(self._target, write)

    def _check(self, point: RestorePoint, image: DiskImage, chosen: tuple[str, Mover], budget: Budget) -> _Found:
        """What is found in the images of a disk; nothing when its chain is broken, which the verifier tells."""
        names: tuple[str, ...] = ()
        with suppress(ChainBroken):
            names = self._ports.targets.ask(self._target, lambda one: one.repository.chain(point, image.disk_id))
        folder = self._target.repository.folder(point, image.disk_id)
        root = self._target.repository.root / PurePosixPath(folder)
        names = tuple(name for name in names if (root, name) not in self._found)
        if not names:
            return {}

        def order(host: str) -> VerifyOrder:
            return VerifyOrder(
                host=host,
                target=self._target.name,
                repository=self._target.repository.id,
                folder=folder,
                images=names[:MOST_IMAGES],
                share=budget.share,
                seconds=budget.seconds,
                lease=self._ports.patience.lease,
            )

        status = self._bookkeeping.carry_out(chosen, act="verify", disk_id=image.disk_id, make=order)
        if status.state is not OrderState.DONE or not isinstance(status.result, VerifyResult):
            reason = status.error or f"the order ended as {status.state}."
            raise NotVerified(disk=image.name, point=point.id, reason=reason)
        return {(root, one.image): one for one in status.result.images}


class Soundness:
    """Which points of a VM are known to be unsound; what was read of the target is not read again."""

    def __init__(self, repository: Repository, points: Iterable[RestorePoint]) -> None:
        self._repository = repository
        self._points: Mapping[str, RestorePoint] = {point.id: point for point in points}
        self._unsound: dict[str, bool] = {}

    def unsound_below(self, names: Iterable[str]) -> str:
        """The id of the first point, of those whose images (names) a chain has, that did not verify; else empty."""
        return next(self._unsound_of(names), "")

    def _unsound_of(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            point = self._points.get(PurePosixPath(name).stem)
            if point is not None and self._is_unsound(point):
                yield point.id

    def _is_unsound(self, point: RestorePoint) -> bool:
        if point.id not in self._unsound:
            last = last_verification(self._repository, point)
            self._unsound[point.id] = last is not None and not last.sound
        return self._unsound[point.id]
