# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the table of restore points as the targets are: lists them at the start, by the hour, and when asked to."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.ports import Ports
from overkeep.controller.store.listings import Listed
from overkeep.controller.store.points import Known, Place, known, place_of
from overkeep.controller.targets.target import Target
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.model.points import RestorePoint
from overkeep.repository.verification import last_verification
from overkeep.units import utc_now

EVERY = dt.timedelta(hours=1)  # between two listings of a target
AGAIN = dt.timedelta(minutes=1)  # after one that failed
LOOK = 15.0  # seconds between two looks whether a listing is due: another controller may have been asked for one
_LEAVE = 5.0  # seconds that a stop waits for a target; one that hangs holds up nobody

_log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What a listing found: points, and in how many rows it differed from what was known."""

    points: int = 0
    added: int = 0
    corrected: int = 0
    removed: int = 0
    missing: list[Place] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.points} restore points; of the table {self.added} rows were added, {self.corrected} corrected "
            f"and {self.removed} dropped"
        )


class Stopped(Exception):
    """The controller stops in the midst of a listing."""


class Catalogue:
    """Lists the targets, each in a thread of its own: one that hangs keeps no other from being listed."""

    def __init__(self, ports: Ports, *, alone: bool = True, clock: Callable[[], dt.datetime] = utc_now) -> None:
        self._ports = ports
        self._clock = clock
        self._wake = ports.store.listings.news
        self._begun: set[str] = set()  # targets that were listed since the start
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._run, args=(target,), name=f"listing-{target.name}", daemon=True)
            for target in ports.targets
        ]
        if alone:  # what a dead controller had begun is begun anew at once
            ports.store.listings.leave([target.name for target in ports.targets])

    def start(self) -> None:
        """Begin to list what is due."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End in the midst of a listing, which is begun anew at the next start."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(_LEAVE)

    def round(self) -> None:
        """List the targets that are due, one after the other."""
        for target in self._ports.targets:
            self.list_if_due(target)

    def list_if_due(self, target: Target) -> None:
        """List a target if that is due; that it fails is told, and the rows stay as they are."""
        began = self._clock()
        every = EVERY if target.name in self._begun else dt.timedelta()  # a dead controller may have left a row wrong
        before = self._ports.store.listings.begin(target.name, began, every=every, again=AGAIN)
        if before is None:
            return
        whole = before.asked is not None or before.listed is None
        try:
            tally = self._list(target, whole=whole)
        except Stopped:
            self._ports.store.listings.leave([target.name])
        except OverkeepError as error:
            self._ports.store.listings.end(target.name, before, began, error=error.message)
            self._tell_failure(target, before, error)
        else:
            self._begun.add(target.name)
            self._ports.store.listings.end(target.name, before, began)
            self._tell(target, before, tally)

    def _list(self, target: Target, *, whole: bool) -> Tally:
        """Compare the rows with the target; a failure is raised before any row was dropped.

        Only a `whole` listing reads the manifests and pins of points that are known: those never change but by us.
        """
        target.readable()
        tally, store = Tally(), self._ports.store
        for workload_id in sorted({*target.repository.workload_ids(), *store.points.workloads(target.name)}):
            target.readable()  # still the same repository, and no empty folder in place of it
            self._list_workload(target, workload_id, tally, whole=whole)
            store.listings.beat(target.name, self._clock())
        self._drop_ended(target, tally)
        return tally

    def _list_workload(self, target: Target, workload_id: str, tally: Tally, *, whole: bool) -> None:
        rows = self._ports.store.points
        # first of all: what is removed meanwhile must not come back
        known_rows = rows.known(target.name, workload_id) if whole else {}
        before = known_rows.keys() if whole else rows.places_on(target.name, workload_id)
        there: set[Place] = set()
        new = []
        for vm_id, point_id in target.repository.places(workload_id):
            self._check()
            place = (workload_id, vm_id, point_id)
            if place in before and not whole:
                there.add(place)
                continue
            item = target.repository.look(*place)
            if item is None:
                continue  # a draft
            there.add(place)
            if not isinstance(item, RestorePoint):
                _log.warning("point cannot be read %s", fields(target=target.name, point=point_id, reason=item.reason))
            elif place not in before:
                new.append((item, target.repository.pin(item)))
            else:
                tally.corrected += self._correct(target, item, known_rows[place])
        tally.points += len(there)
        tally.missing += sorted(before - there)
        if new:
            rows.add(target.name, new)
            tally.added += len(new)
            for point, _ in new:  # one that ended after it was read had no row yet that could be dropped with it
                if not target.repository.exists(*place_of(point)):
                    rows.remove(target.name, point)
                elif verification := last_verification(target.repository, point):
                    rows.set_verification(target.name, point, verification)

    def _correct(self, target: Target, point: RestorePoint, was: Known) -> bool:
        rows = self._ports.store.points
        rows.set_verification(target.name, point, last_verification(target.repository, point))
        now = known(point, target.repository.pin(point))
        if was == now:
            return False
        rows.correct(target.name, point, before=was, now=now)
        return True

    def _drop_ended(self, target: Target, tally: Tally) -> None:
        """Drop the rows of points that are not there, once all was listed and each was asked for by itself."""
        gone = [place for place in tally.missing if not target.repository.exists(*place)]
        target.readable()
        for place in gone:
            self._ports.store.points.remove(target.name, place)
        tally.removed = len(gone)

    def _check(self) -> None:
        if self._stopped:
            raise Stopped

    def _tell(self, target: Target, before: Listed, tally: Tally) -> None:
        _log.info("target listed %s", fields(target=target.name, points=tally.points))
        differs = before.listed is not None and (tally.added or tally.corrected or tally.removed)
        if before.asked is None and not differs:
            return
        told = {name: getattr(tally, name) for name in ("points", "added", "corrected", "removed")}
        text = f"Backup target {target.name!r} holds {tally}"
        self._add(Draft(kind=Kind.TARGET_LISTED, text=text, about=About(target=target.name), fields=told))

    def _tell_failure(self, target: Target, before: Listed, error: OverkeepError) -> None:
        _log.info("target not listed %s", fields(target=target.name, code=error.code))
        if before.error == error.message:
            return  # it was told
        text = f"The restore points on target {target.name!r} are shown as they were last seen: {error.message}"
        about = About(target=target.name)
        self._add(Draft(kind=Kind.TARGET_UNLISTED, text=text, about=about, fields={"code": error.code}))

    def _add(self, draft: Draft) -> None:
        self._ports.store.events.add(draft)

    def _run(self, target: Target) -> None:
        for _ in self._looks():
            try:
                self.list_if_due(target)
            except Exception:  # noqa: BLE001 - the outermost loop of a thread: logged, and the next look comes
                _log.exception("the listing of target %s failed", target.name)

    def _looks(self) -> Iterator[None]:
        while not self._stopped:
            yield
            with self._wake:
                if not self._stopped:
                    self._wake.wait(LOOK)
