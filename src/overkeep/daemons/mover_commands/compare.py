# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover compare`: whether a disk holds what an image, or a file of digests, says."""

from __future__ import annotations

import argparse
from contextlib import closing
from itertools import islice
from pathlib import Path

from overkeep import exits
from overkeep.blocks.digests import SUMS_SUFFIX, Digests
from overkeep.blocks.expected import ChainDigests
from overkeep.daemons.mover_commands.command import Report
from overkeep.daemons.mover_commands.ends import FORMATS, End, of_format, open_source, read_end, read_image
from overkeep.daemons.mover_commands.ends import HELP as END
from overkeep.errors import BadRequest
from overkeep.mover.copy_terms import Options, Watch, interruptible
from overkeep.mover.disk_copies import Difference, differing_from
from overkeep.units import human_size, read_size

NAME = "compare"
HELP = "Compare a disk with an image, or with digests that were made of it elsewhere; nothing is written."

_NAMED = 16  # differences that are told one by one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("disk", type=read_end, metavar="DISK", help=f"what is read: {END}")
    add("expected", metavar="IMAGE", help=f"what it should hold: an image, or digests (NAME{SUMS_SUFFIX})")
    add("--from-format", choices=FORMATS, help="the disk has this format, whatever its name ends in")
    add("--bandwidth", type=read_size, default=0, metavar="SIZE", help="read at most so much in a second")


def run(options: argparse.Namespace, watch: Watch) -> Report:
    """Compare and tell where they differ; the status says whether they do."""
    disk = of_format(options.disk, options.from_format)
    with (
        closing(_expected(options.expected)) as expected,
        interruptible(watch) as sockets,
        closing(open_source(disk, sockets=sockets)) as present,
    ):
        found = differing_from(expected, present, options=Options(bandwidth=options.bandwidth), watch=watch)
        beyond = present.size - expected.size
        return _report(disk, options.expected, found, size=expected.size, beyond=beyond)


def _expected(text: str) -> ChainDigests | Digests:
    path = Path(text)
    if path.suffix == SUMS_SUFFIX:
        return Digests(path)
    try:
        image = read_image(text)
    except BadRequest as error:
        raise BadRequest(what=f"{text} is neither an image nor a file of digests", todo="give one of them") from error
    return ChainDigests(image.folder, image.name)


def _report(disk: End, expected: str, found: Difference, *, size: int, beyond: int) -> Report:
    differ = found.extents.total
    pieces = [{"start": extent.start, "length": extent.length} for extent in islice(found.extents, _NAMED)]
    verdict = f"DIFFERS from {expected} in {human_size(differ)}" if differ else f"holds what {expected} says"
    where = "".join(f"\n  {piece['length']} bytes at {piece['start']}" for piece in pieces)
    longer = f", which has {human_size(beyond)} more that were not read," if beyond else ""
    more = "\n  and elsewhere" if sum(piece["length"] for piece in pieces) < differ else ""
    return Report(
        line=f"{disk}{longer} {verdict}, {human_size(found.read)} read in {found.seconds:.2f} s{where}{more}",
        document={
            "disk": str(disk),
            "expected": expected,
            "same": not differ,
            "size": size,
            "beyond": beyond,
            "differs": differ,
            "pieces": pieces,
            "read": found.read,
            "seconds": found.seconds,
        },
        status=exits.FAILED if differ else exits.OK,
    )
