# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover digest`: the digests of an image, made anew by reading it, or those of any disk."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from overkeep.blocks.copy import CopyStats
from overkeep.blocks.copy import Progress as Told
from overkeep.blocks.digesting import digest_disk, make_digests
from overkeep.blocks.digests import SUMS_SUFFIX, sums_name
from overkeep.daemons.mover_commands.command import Report
from overkeep.daemons.mover_commands.ends import HELP as END
from overkeep.daemons.mover_commands.ends import End, Image, open_source, read_end
from overkeep.errors import BadRequest, Conflict
from overkeep.mover.bookkeeping import require_no_merge
from overkeep.mover.copy_terms import Watch, interruptible
from overkeep.mover.orders import Progress
from overkeep.units import human_size

NAME = "digest"
HELP = (
    "Make the digests of an image anew by reading it, so that damage that it has is then no longer noticed; "
    "or those of any disk, into a file of their own."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("end", type=read_end, metavar="END", help=f"what is read: {END}")
    add("--to", type=Path, metavar="FILE", help=f"the new file of digests, NAME{SUMS_SUFFIX}; without, beside an image")


def run(options: argparse.Namespace, watch: Watch) -> Report:
    """Make the digests and tell how much was read."""
    end: End = options.end
    if options.to:
        path = _new(options.to)
        stats = _of_disk(end, path, watch)
    elif isinstance(end, Image):
        path = end.folder / sums_name(end.name)
        stats = _of_image(end, watch)
    else:
        raise BadRequest(what=f"{end} is no image, beside which its digests could lie", todo="add --to FILE")
    return Report(
        line=f"{path}: digests of {human_size(stats.covered)}, {human_size(stats.moved)} read in {stats.seconds:.2f} s",
        document={
            "of": str(end),
            "digests": str(path),
            "covered": stats.covered,
            "moved": stats.moved,
            "seconds": stats.seconds,
        },
    )


def _new(path: Path) -> Path:
    if path.suffix != SUMS_SUFFIX:
        raise BadRequest(what=f"{path} is no name for digests", todo=f"choose one that ends in {SUMS_SUFFIX}")
    if path.exists():
        raise Conflict(what=f"The file {path} exists", todo="choose another name, or remove it first")
    return path


def _of_image(image: Image, watch: Watch) -> CopyStats:
    require_no_merge(image.folder)
    return make_digests(
        image.folder,
        image.name,
        progress=lambda total: _teller(watch, total),
        cancelled=lambda: watch.stopped,
    )


def _of_disk(end: End, path: Path, watch: Watch) -> CopyStats:
    with interruptible(watch) as sockets, closing(open_source(end, sockets=sockets)) as source:
        return digest_disk(source, path, progress=_teller(watch, source.size), cancelled=lambda: watch.stopped)


def _teller(watch: Watch, total: int) -> Told:
    return lambda covered, moved: watch.progress(Progress(done=covered, total=total, moved=moved))
