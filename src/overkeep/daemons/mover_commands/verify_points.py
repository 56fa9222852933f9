# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of `overkeep-mover verify` that checks the points of a repository, those checked longest ago first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from overkeep import exits
from overkeep.blocks.errors import TargetFull, TargetMissing, TargetReadOnly
from overkeep.daemons.mover_commands.command import Report
from overkeep.errors import NotFound
from overkeep.model.points import RestorePoint
from overkeep.mover.verifying import ImageChecks
from overkeep.repository.repository import DamagedPoint, Repository
from overkeep.repository.verification import Verification, Verifier, in_turn, record


def report_on_points(root: Path, checks: ImageChecks, *, point_id: str | None) -> Report:
    """Check the points of the repository at `root`, or one of them; raises `NotFound` when it is not there."""
    repository = Repository(root).open()
    points, damaged = _chosen(repository, point_id)
    kept = _Kept()
    found = _check(repository, points, checks, kept)
    found = replace(found, unreadable=tuple(f"{item.point_id}: NOT SOUND, {item.reason}" for item in damaged))
    return Report(
        line="\n".join([*_told(found), *found.unreadable, *kept.told]),
        document={
            "sound": found.sound,
            "checked": len(found.results),
            "total": found.total,
            "points": [_document(*one) for one in found.results],
            "unreadable": list(found.unreadable),
            "not_kept": list(kept.told),
        },
        status=exits.OK if found.sound or not (found.total or found.unreadable) else exits.FAILED,
    )


def incomplete(looked: int, total: int, what: str) -> str:
    """What is said when the time did not suffice for all."""
    if not looked:
        return f"Nothing was checked: the time was over before any of {total} {what} could be."
    return f"Only {looked} of {total} {what} were checked before the time was over."


@dataclass(kw_only=True)
class _Kept:
    """Keeps how the checks of points went; where nothing can be written, lets them go on and remembers why."""

    refused: int = 0
    reason: str = ""

    def __call__(self, repository: Repository, point: RestorePoint, result: Verification) -> None:
        try:
            record(repository, point, result)
        except (TargetReadOnly, TargetFull) as error:
            self.refused += 1
            self.reason = self.reason or str(error)

    @property
    def told(self) -> tuple[str, ...]:
        """What is said of it: nothing when all could be kept."""
        return (f"The results of {self.refused} checks could not be kept: {self.reason}",) if self.refused else ()


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What was found in those of `total` points for which there was time, and in those that cannot be read."""

    results: Sequence[tuple[RestorePoint, Verification]]
    total: int
    unreadable: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether something was checked, and nothing is wrong."""
        return bool(self.results) and not self.unreadable and all(result.sound for _, result in self.results)


def _chosen(repository: Repository, point_id: str | None) -> tuple[Sequence[RestorePoint], Sequence[DamagedPoint]]:
    points, damaged = repository.survey()
    if point_id is None:
        return points, damaged
    named = [point for point in points if point.id == point_id]
    unreadable = [item for item in damaged if item.point_id == point_id]
    if not (named or unreadable):
        how = f"ls {repository.root}/workloads/*/vms/*/points"
        raise NotFound(kind="restore point", name=point_id, how=how)
    return named, unreadable


def _check(repository: Repository, points: Sequence[RestorePoint], checks: ImageChecks, keep: _Kept) -> _Found:
    """Check points until the time is over; one that has ended meanwhile does not count."""
    verifier = Verifier(repository, checks, keep)
    results: list[tuple[RestorePoint, Verification]] = []
    ended = 0
    for point in in_turn(repository, points):
        if checks.over:
            break
        result = _checked(repository, point, verifier)
        if result is None:
            ended += 1
        elif result.says:
            results.append((point, result))
    return _Found(results=results, total=len(points) - ended)


def _checked(repository: Repository, point: RestorePoint, verifier: Verifier) -> Verification | None:
    """How a point is; None when it has ended: then nothing that it misses is a fault."""

    def exists() -> bool:
        return repository.exists(point.workload_id, point.vm_id, point.id)

    if not exists():
        return None
    try:
        result = verifier.verify(point)
    except TargetMissing:  # so says the target when the result is written
        if exists():
            raise
        return None
    return result if result.sound or exists() else None


def _told(found: _Found) -> Iterator[str]:
    for point, result in found.results:
        verdict = "sound" if result.sound else "NOT SOUND"
        left = f", {result.left} of its images not reached" if result.left else ""
        yield f"{point.id} of VM {point.vm_name!r}: {verdict}, {_percent(result.share)} of its data read{left}"
        yield from (f"  {sentence}" for sentence in result.findings)
    looked = len(found.results)
    yield incomplete(looked, found.total, "points") if looked < found.total else f"{looked} of {looked} points checked"


def _percent(share: float) -> str:
    """A share for people, who are never told of more than was read."""
    return f"{math.floor(100 * share)}%" if share >= 0.01 or not share else "less than 1%"


def _document(point: RestorePoint, result: Verification) -> dict[str, object]:
    return {
        "id": point.id,
        "vm_id": point.vm_id,
        "vm_name": point.vm_name,
        "sound": result.sound,
        "share": result.share,
        "left": result.left,
        "findings": list(result.findings),
    }
