# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover verify`: images with all they are built upon, or the points of a repository."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from overkeep import exits
from overkeep.blocks.image import ChainReader
from overkeep.blocks.verify import Findings, Sample, verify_image
from overkeep.daemons.mover_commands.command import Report
from overkeep.daemons.mover_commands.ends import Image, read_image
from overkeep.errors import BadRequest, NotFound
from overkeep.model.points import RestorePoint
from overkeep.mover.copy_terms import Watch
from overkeep.mover.orders import Progress
from overkeep.repository.repository import Repository
from overkeep.repository.verification import Verification, Verifier, in_turn, said
from overkeep.units import human_size

NAME = "verify"
HELP = "Check images and all they are built upon, or the points of a repository, where the result is kept."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("images", type=read_image, nargs="*", metavar="IMAGE", help="images to check")
    add("--repository", type=Path, metavar="FOLDER", help="check points of this repository; those checked longest ago")
    add("--point", help="only this point of the repository")
    add("--share", type=float, default=1.0, help="read this share (0 to 1) of the data, in pieces chosen by chance")
    add("--seconds", type=float, help="begin no more after this time")


def run(options: argparse.Namespace, watch: Watch) -> Report:
    """Check and tell what was found; the status says whether all is sound."""
    if bool(options.images) == bool(options.repository):
        raise BadRequest(what="Name either images or a repository", todo="see overkeep-mover verify --help")
    if not 0 < options.share <= 1:
        raise BadRequest(what="The share to be read is no share", todo="give one above 0 and up to 1")
    check = _Check(options, watch)
    if options.repository:
        return _points(options, check)
    return _images(options.images, check)


class _Check:
    """Checks images one after the other until the time is over."""

    def __init__(self, options: argparse.Namespace, watch: Watch) -> None:
        self._share = options.share
        self._end = None if options.seconds is None else time.monotonic() + options.seconds
        self._watch = watch
        self._before = 0

    @property
    def sample(self) -> Sample:
        """How much of the next image is read."""
        left = None if self._end is None else max(0.0, self._end - time.monotonic())
        return Sample(share=self._share, seconds=left)

    @property
    def over(self) -> bool:
        """Whether no more is to be begun."""
        return self._end is not None and time.monotonic() >= self._end

    def __call__(self, folder: Path, name: str, sample: Sample) -> Findings:
        self._watch.check()
        before = self._before
        found = verify_image(
            folder,
            name,
            sample=sample,
            progress=lambda covered, _: self._watch.progress(Progress(done=before + covered, moved=before + covered)),
            cancelled=lambda: self._watch.stopped,
        )
        self._before += found.checked
        return found


def _images(images: list[Image], check: _Check) -> Report:
    found = [check(folder, name, check.sample) for folder, name in _chains(images) if not check.over]
    lines = [line for one in found for line in (_summary(one), *(f"  {sentence}" for sentence in said(one)))]
    sound = all(one.sound for one in found)
    return Report(
        line="\n".join(lines),
        document={"sound": sound, "images": [_document(one) for one in found]},
        status=exits.OK if sound else exits.FAILED,
    )


def _chains(images: list[Image]) -> Iterator[tuple[Path, str]]:
    """Yield each image of the chains once."""
    seen: set[tuple[Path, str]] = set()
    for image in images:
        with closing(ChainReader(image.folder, image.name)) as chain:
            names = chain.names
        for name in names:
            if (image.folder, name) not in seen:
                seen.add((image.folder, name))
                yield image.folder, name


def _summary(found: Findings) -> str:
    verdict = "sound" if found.sound else "NOT SOUND"
    return f"{found.image}: {verdict}, {human_size(found.checked)} of {human_size(found.held)} read"


def _document(found: Findings) -> dict[str, object]:
    return {
        "image": found.image,
        "sound": found.sound,
        "held": found.held,
        "checked": found.checked,
        "damaged": found.damaged,
        "named": list(found.named),
        "undigested": found.undigested,
        "leaked": found.leaked,
        "errors": list(found.errors),
        "stages": dict(found.stages),
    }


def _points(options: argparse.Namespace, check: _Check) -> Report:
    repository = Repository(options.repository).open()
    points = [point for point in repository.points() if options.point in (None, point.id)]
    if options.point and not points:
        raise NotFound(
            kind="restore point", name=options.point, how=f"ls {options.repository}/workloads/*/vms/*/points"
        )
    verifier = Verifier(repository, check)
    results: list[tuple[RestorePoint, Verification]] = []
    for point in in_turn(repository, points):
        if check.over:
            break
        results.append((point, verifier.verify(point, check.sample)))
    unreadable = (
        [] if options.point else [f"{item.point_id}: NOT SOUND, {item.reason}" for item in repository.damaged()]
    )
    sound = not unreadable and all(result.sound for _, result in results)
    return Report(
        line="\n".join([*_told(results, len(points)), *unreadable]),
        document={"sound": sound, "points": [_point(*one) for one in results], "unreadable": unreadable},
        status=exits.OK if sound else exits.FAILED,
    )


def _told(results: list[tuple[RestorePoint, Verification]], total: int) -> Iterator[str]:
    for point, result in results:
        verdict = "sound" if result.sound else "NOT SOUND"
        yield f"{point.id} of VM {point.vm_name!r}: {verdict}, {result.share:.0%} of its data read"
        yield from (f"  {sentence}" for sentence in result.findings)
    yield f"{len(results)} of {total} points checked"


def _point(point: RestorePoint, result: Verification) -> dict[str, object]:
    return {
        "id": point.id,
        "vm_id": point.vm_id,
        "vm_name": point.vm_name,
        "sound": result.sound,
        "share": result.share,
        "findings": list(result.findings),
    }
