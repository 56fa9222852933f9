# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover digest`: the digests of an image, made anew by reading it."""

from __future__ import annotations

import argparse

from overkeep.blocks.copy import Progress as Told
from overkeep.blocks.digesting import make_digests
from overkeep.blocks.digests import sums_name
from overkeep.daemons.mover_commands.command import Report
from overkeep.daemons.mover_commands.ends import read_image
from overkeep.mover.bookkeeping import require_no_merge
from overkeep.mover.copy_terms import Watch
from overkeep.mover.orders import Progress
from overkeep.units import human_size

NAME = "digest"
HELP = "Make the digests of an image anew by reading it; damage that it has is then no longer noticed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("image", type=read_image, metavar="IMAGE", help="the image; its backing images are beside it")


def run(options: argparse.Namespace, watch: Watch) -> Report:
    """Make the digests and tell how much was read."""
    image = options.image
    require_no_merge(image.folder)

    def teller(total: int) -> Told:
        return lambda covered, moved: watch.progress(Progress(done=covered, total=total, moved=moved))

    stats = make_digests(image.folder, image.name, progress=teller, cancelled=lambda: watch.stopped)
    path = image.folder / sums_name(image.name)
    return Report(
        line=f"{path}: digests of {human_size(stats.covered)}, {human_size(stats.moved)} read in {stats.seconds:.2f} s",
        document={
            "image": str(image.path),
            "digests": str(path),
            "covered": stats.covered,
            "moved": stats.moved,
            "seconds": stats.seconds,
        },
    )
