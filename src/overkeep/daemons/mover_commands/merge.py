# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover merge`: images go, and their data into the images that are built upon them."""

from __future__ import annotations

import argparse

from overkeep.daemons.mover_commands.command import Report
from overkeep.daemons.mover_commands.ends import read_image
from overkeep.errors import BadRequest
from overkeep.mover.bookkeeping import merge_images
from overkeep.mover.copy_terms import Watch
from overkeep.units import human_size

NAME = "merge"
HELP = "Remove images of a disk; their data go into the images above them. One that was stopped is gone on with."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("images", type=read_image, nargs="+", metavar="IMAGE", help="images to remove, of one folder")


def run(options: argparse.Namespace, watch: Watch) -> Report:
    """Merge and tell what was moved."""
    folders = {image.folder for image in options.images}
    if len(folders) > 1:
        raise BadRequest(what="The images are not all in one folder", todo="merge one disk after the other")
    result = merge_images(folders.pop(), tuple(image.name for image in options.images), watch=watch)
    removed = len(result.removed)
    return Report(
        line=(
            f"{removed} image{'' if removed == 1 else 's'} removed, {human_size(result.moved)} moved, "
            f"{human_size(max(0, result.freed))} freed in {result.seconds:.2f} s"
        ),
        document=result.model_dump(mode="json"),
    )
