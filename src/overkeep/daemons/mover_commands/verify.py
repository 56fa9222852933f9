# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover verify`: images with all they are built upon, or the points of a repository."""

from __future__ import annotations

import argparse
import math
from contextlib import closing
from pathlib import Path

from overkeep import exits
from overkeep.blocks.image import ChainReader
from overkeep.blocks.verify import Findings, Sample
from overkeep.daemons.mover_commands.command import Report
from overkeep.daemons.mover_commands.ends import Image, read_image
from overkeep.daemons.mover_commands.verify_points import incomplete, report_on_points
from overkeep.errors import BadRequest
from overkeep.mover.copy_terms import Watch
from overkeep.mover.verifying import ImageChecks, Place
from overkeep.repository.verification import said
from overkeep.units import human_size

NAME = "verify"
HELP = "Check images and all they are built upon, or the points of a repository, where the result is kept."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("images", type=read_image, nargs="*", metavar="IMAGE", help="images to check")
    add(
        "--repository",
        type=Path,
        metavar="FOLDER",
        help="check points of this repository; those checked longest ago first",
    )
    add("--point", help="only this point of the repository")
    add("--share", type=_share, default=1.0, help="read this share (0 to 1) of the data, in pieces chosen by chance")
    add("--seconds", type=_seconds, help="begin nothing more after this time, of all that is checked together")


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise BadRequest(what=f"{text} is no share of the data to be read", todo="give one above 0 and up to 1")
    return share


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise BadRequest(what=f"{text} seconds are no time to check anything in", todo="give a number above 0")
    return seconds


def run(options: argparse.Namespace, watch: Watch) -> Report:
    """Check and tell what was found; the status says whether something is not sound, or nothing could be checked."""
    sample = Sample.within(options.seconds, share=options.share)
    if bool(options.images) == (options.repository is not None):
        raise BadRequest(what="Name either images or a repository", todo="see overkeep-mover verify --help")
    if options.point is not None and options.repository is None:
        raise BadRequest(what="--point is one of a repository", todo="name that with --repository, and no images")
    checks = ImageChecks(sample, watch)
    if options.repository is not None:
        return report_on_points(options.repository, checks, point_id=options.point)
    return _images(options.images, checks)


def _images(images: list[Image], checks: ImageChecks) -> Report:
    found = checks(_chains(images))
    looked = [one for one in found if one.reached]
    lines = [line for one in looked for line in (_summary(one), *(f"  {sentence}" for sentence in said(one)))]
    if len(looked) < len(found):
        lines.append(incomplete(len(looked), len(found), "images"))
    broken = any(not one.sound for one in looked)
    known = any(_is_known_sound(one) for one in looked)
    return Report(
        line="\n".join(lines),
        document={
            "sound": known and not broken,
            "checked": len(looked),
            "total": len(found),
            "images": [_document(one) for one in looked],
        },
        status=exits.OK if known and not broken else exits.FAILED,
    )


def _chains(images: list[Image]) -> list[Place]:
    """Each image of the chains once."""
    found: dict[Place, None] = {}
    for image in images:
        with closing(ChainReader(image.folder, image.name)) as chain:
            found.update(dict.fromkeys((image.folder, name) for name in chain.names))
    return list(found)


def _is_known_sound(found: Findings) -> bool:
    """Whether data were read, unless there are none, and nothing is wrong: a look at the structure says too little."""
    return found.sound and (found.checked > 0 or not found.held)


def _summary(found: Findings) -> str:
    read = f"{human_size(found.checked)} of {human_size(found.held)} read"
    if not found.sound:
        return f"{found.image}: NOT SOUND, {read}"
    return f"{found.image}: {'sound' if _is_known_sound(found) else 'only its structure was checked'}, {read}"


def _document(found: Findings) -> dict[str, object]:
    return {
        "image": found.image,
        "sound": _is_known_sound(found),
        "held": found.held,
        "checked": found.checked,
        "damaged": found.damaged,
        "named": list(found.named),
        "undigested": found.undigested,
        "leaked": found.leaked,
        "errors": list(found.errors),
        "stages": dict(found.stages),
    }
