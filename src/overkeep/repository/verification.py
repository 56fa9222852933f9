# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of restore points: what is checked first, what was found, and where that is kept."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from overkeep.blocks.errors import on_target
from overkeep.blocks.verify import Findings
from overkeep.errors import NotFound
from overkeep.logs import fields
from overkeep.model.points import RestorePoint
from overkeep.repository import documents, layout
from overkeep.repository.configuration import configuration_faults
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
    @property
    def reached(self) -> bool: ...


Look = Callable[[Path, str], Found]
"""What was found in an image of a folder."""

Image = tuple[Path, str]
"""A folder, and the bare name of an image in it."""

Check = Callable[[Sequence[Image]], Sequence[Findings]]
"""Checks images; what is found in each, in their order (`overkeep.mover.verifying.ImageChecks`)."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The last check of a point: when, what `share` of its data was read, and what was found, as sentences.

    `sound` when something was looked at and nothing is known to be wrong. `left` counts the images, of all its chains,
    that were not looked at because the time was over.
    """

    checked_at: dt.datetime
    share: float
    sound: bool
    findings: tuple[str, ...] = ()
    left: int = 0

    @property
    def says(self) -> bool:
        """Whether it says anything about the point; else there was no time for it."""
        return self.sound or bool(self.findings)


Keep = Callable[[Repository, RestorePoint, Verification], None]
"""Keeps how the check of a point went (`record`)."""


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
        left=document.get("left", 0),
    )


def record(repository: Repository, point: RestorePoint, verification: Verification) -> None:
    """Keep how the check of a point went, in place of the one before."""
    content = {
        "checked_at": verification.checked_at.isoformat(),
        "share": verification.share,
        "sound": verification.sound,
        "findings": list(verification.findings),
        "left": verification.left,
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

    `check` checks the images of a point that were not checked yet. Everything found is a sentence of the point's
    verification; only a target that does not answer raises.
    """

    def __init__(self, repository: Repository, check: Check, keep: Keep | None = None) -> None:
        self._repository = repository
        self._check = check
        self._keep = keep or record
        self._known: dict[Image, Findings] = {}

    def verify(self, point: RestorePoint) -> Verification:
        """Check the configuration, the chains and the images of a point, and keep the result."""
        images = [image for image in dict.fromkeys(_images(self._repository, point)) if image not in self._known]
        found = dict(zip(images, self._check(images), strict=True)) if images else {}
        self._known |= {image: one for image, one in found.items() if one.reached}

        def look(folder: Path, name: str) -> Findings:
            image = (folder, name)
            if image in self._known:
                return self._known[image]
            # a chain that was merged meanwhile may have others
            return found.get(image) or Findings(image=name, reached=False)

        return judge(self._repository, point, look, keep=self._keep)


def unreached(folder: Path, name: str) -> Found:
    """An image for which there was no time; it counts with the size of its file, so that no share is told too high."""
    with on_target(folder / name):
        try:
            size = (folder / name).stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            size = 0
    return Findings(image=name, held=size, reached=False)


def _images(repository: Repository, point: RestorePoint) -> Iterator[Image]:
    """The images of a point's chains; `judge` tells those that are broken."""
    for image in point.images:
        folder = _folder(repository, point, image.disk_id)
        with suppress(ChainBroken, NotFound):
            for name in repository.chain(point, image.disk_id):
                yield folder, name


def _folder(repository: Repository, point: RestorePoint, disk_id: str) -> Path:
    return repository.root / PurePosixPath(repository.folder(point, disk_id))


def judge(repository: Repository, point: RestorePoint, look: Look, *, keep: Keep | None = None) -> Verification:
    """Conclude from what is found in the images of a point's chains how the point is, and record it there.

    The configuration and the headers of the chains are looked at here. What an earlier check found wrong stays until a
    check finds nothing and has read everything: a sample may have missed it. A check that had no time to read anything
    says nothing, and is not recorded. `keep` is what records it.
    """
    sentences = list(configuration_faults(repository, point))
    sums = _Sums()
    for image in point.images:
        folder = _folder(repository, point, image.disk_id)
        try:
            names = repository.chain(point, image.disk_id)
        except (ChainBroken, NotFound) as error:
            sentences.append(str(error))
            continue
        for name in names:
            found = look(folder, name)
            sums.add(found)
            sentences.extend(f"Disk {image.name!r}: {sentence}" for sentence in said(found))
    if not (sums.whole or sentences):
        sentences.extend(_not_refuted(repository, point))
    result = Verification(
        checked_at=utc_now(),
        share=sums.share,
        sound=not sentences and sums.any,
        findings=tuple(sentences),
        left=sums.left,
    )
    if result.says:
        (keep or record)(repository, point, result)
    log.info(
        "point verified %s",
        fields(point=point.id, sound=result.sound, checked=sums.checked, held=sums.held, left=sums.left),
    )
    return result


@dataclass(kw_only=True)
class _Sums:
    """What the images of a point hold, in bytes, what of it was checked, and how many images were not looked at."""

    held: int = 0
    checked: int = 0
    left: int = 0

    def add(self, found: Found) -> None:
        """Count an image."""
        self.held += found.held
        self.checked += found.checked
        self.left += not found.reached

    @property
    def whole(self) -> bool:
        """Whether everything was checked."""
        return not self.left and self.checked >= self.held

    @property
    def any(self) -> bool:
        """Whether something was checked, or there is nothing to be."""
        return self.whole or self.checked > 0

    @property
    def share(self) -> float:
        """The share that was checked; 1 only when that is all."""
        if self.whole:
            return 1.0
        return min(round(self.checked / self.held, 4), 0.9999) if self.held else 0.0


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


def _path(repository: Repository, point: RestorePoint) -> Path:
    folder = layout.located(repository.root, layout.point(point.workload_id, point.vm_id, point.id))
    return folder / layout.VERIFICATION
