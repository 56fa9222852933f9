# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover merge`: images go, and their data into the images that are built upon them."""

from __future__ import annotations

import argparse
import dataclasses

from overkeep.daemons.mover_commands.command import Report
from overkeep.daemons.mover_commands.ends import read_image
from overkeep.errors import BadRequest
from overkeep.mover.bookkeeping import merge_by_hand
from overkeep.mover.copy_terms import Watch
from overkeep.mover.orders import rounded
from overkeep.units import human_size

NAME = "merge"
HELP = "Remove images of a disk; their data go into the images above them. One that was stopped is gone on with."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("images", type=read_image, nargs="+", metavar="IMAGE", help="images to remove, of one folder")
    parser.add_argument(
        "--delete", action="store_true", help="also images that nothing is built upon: their data are lost"
    )


def run(options: argparse.Namespace, watch: Watch) -> Report:
    """Merge and tell what was moved."""
    folders = {image.folder for image in options.images}
    if len(folders) > 1:
        raise BadRequest(what="The images are not all in one folder", todo="merge one disk after the other")
    names = tuple(image.name for image in options.images)
    stats = merge_by_hand(folders.pop(), names, delete=options.delete, watch=watch)
    removed = len(stats.removed)
    return Report(
        line=(
            f"{removed} image{'' if removed == 1 else 's'} removed, {human_size(stats.moved)} moved, "
            f"{human_size(max(0, stats.freed))} freed in {stats.seconds:.2f} s"
        ),
        document={**dataclasses.asdict(stats), "stages": rounded(stats.stages)},
    )
