# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of restore points: what is checked first, what was found, and where that is kept."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from overkeep.blocks.verify import Findings, Sample
from overkeep.errors import NotFound
from overkeep.logs import fields
from overkeep.model.points import RestorePoint
from overkeep.repository import documents, layout
from overkeep.repository.errors import ChainBroken, DocumentDamaged
from overkeep.repository.repository import Repository
from overkeep.units import utc_now

log = logging.getLogger(__name__)


class Found(Protocol):
    """What somebody found in an image (`overkeep.blocks.verify.Findings`)."""

    @property
    def image(self) -> str: ...
    @property
    def held(self) -> int: ...
    @property
    def checked(self) -> int: ...
    @property
    def damaged(self) -> int: ...
    @property
    def named(self) -> tuple[int, ...]: ...
    @property
    def undigested(self) -> int: ...
    @property
    def errors(self) -> tuple[str, ...]: ...


Look = Callable[[Path, str], Found]
"""What was found in an image of a folder."""

Check = Callable[[Path, str, Sample], Findings]
"""Checks an image of a folder (`overkeep.blocks.verify.verify_image`)."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The last check of a point: when, what `share` of its data was read, and what was found, as sentences."""

    checked_at: dt.datetime
    share: float
    sound: bool
    findings: tuple[str, ...] = ()


def last_verification(repository: Repository, point: RestorePoint) -> Verification | None:
    """Read how the last check of a point went; None when it was never checked, or nobody can tell."""
    path = _path(repository, point)
    try:
        document = documents.read(path, "verification")
    except DocumentDamaged as error:
        log.warning("verification not read %s", fields(point=point.id, error=repr(str(error))))
        return None
    if document is None:
        return None
    return Verification(
        checked_at=dt.datetime.fromisoformat(document["checked_at"]),
        share=document["share"],
        sound=document["sound"],
        findings=tuple(document["findings"]),
    )


def record(repository: Repository, point: RestorePoint, verification: Verification) -> None:
    """Keep how the check of a point went, in place of the one before."""
    content = {
        "checked_at": verification.checked_at.isoformat(),
        "share": verification.share,
        "sound": verification.sound,
        "findings": list(verification.findings),
    }
    documents.write(_path(repository, point), {**documents.envelope("verification"), **content})


def in_turn(repository: Repository, points: Iterable[RestorePoint]) -> list[RestorePoint]:
    """Order points by when they were checked last, those never checked first, the newest of them before all."""
    never, known = [], []
    for point in points:
        last = last_verification(repository, point)
        if last is None:
            never.append(point)
        else:
            known.append((last.checked_at, point.id, point))
    never.sort(key=lambda point: (point.created, point.id), reverse=True)
    return [*never, *(point for _, _, point in sorted(known, key=lambda item: item[:2]))]


class Verifier:
    """Checks points one after the other; an image that several of them share is read once.

    `check` checks an image. Everything found is a sentence of the point's verification; only a target that does not
    answer raises.
    """

    def __init__(self, repository: Repository, check: Check) -> None:
        self._repository = repository
        self._check = check
        self._known: dict[tuple[Path, str], Findings] = {}

    def verify(self, point: RestorePoint, sample: Sample) -> Verification:
        """Check the configuration, the chains and the images of a point, and record the result in it."""
        return judge(self._repository, point, lambda folder, name: self._findings(folder, name, sample))

    def _findings(self, folder: Path, name: str, sample: Sample) -> Findings:
        found = self._known.get((folder, name))
        if found is None:
            found = self._known[(folder, name)] = self._check(folder, name, sample)
        return found


def judge(repository: Repository, point: RestorePoint, look: Look) -> Verification:
    """Conclude from what is found in the images of a point's chains how the point is, and record it there.

    The configuration and the headers of the chains are looked at here. What an earlier check found wrong stays until a
    check finds nothing and has read everything: a sample may have missed it.
    """
    sentences = list(_configuration(repository, point))
    held = checked = 0
    for image in point.images:
        folder = repository.root / PurePosixPath(repository.folder(point, image.disk_id))
        try:
            names = repository.chain(point, image.disk_id)
        except (ChainBroken, NotFound) as error:
            sentences.append(str(error))
            continue
        for name in names:
            found = look(folder, name)
            held, checked = held + found.held, checked + found.checked
            sentences.extend(f"Disk {image.name!r}: {sentence}" for sentence in said(found))
    if checked < held and not sentences:
        sentences.extend(_not_refuted(repository, point))
    result = Verification(
        checked_at=utc_now(),
        share=round(checked / held, 4) if held else 1.0,
        sound=not sentences,
        findings=tuple(sentences),
    )
    record(repository, point, result)
    log.info("point verified %s", fields(point=point.id, sound=result.sound, checked=checked, held=held))
    return result


def _not_refuted(repository: Repository, point: RestorePoint) -> Iterable[str]:
    last = last_verification(repository, point)
    return last.findings if last and not last.sound else ()


def said(found: Found) -> Iterable[str]:
    """What was found wrong with an image, as sentences."""
    yield from found.errors
    if found.damaged:
        named = ", ".join(map(str, found.named))
        yield (
            f"{found.damaged} clusters of {found.image} do not read as they were written (the first: {named}); "
            "restore from another point, and back the disk up in full."
        )
    if found.undigested:
        yield f"{found.undigested} clusters of {found.image} have no digest; make its digests anew."


def _configuration(repository: Repository, point: RestorePoint) -> Iterable[str]:
    try:
        repository.configuration(point)
    except DocumentDamaged as error:
        yield str(error)


def _path(repository: Repository, point: RestorePoint) -> Path:
    folder = layout.located(repository.root, layout.point(point.workload_id, point.vm_id, point.id))
    return folder / layout.VERIFICATION
