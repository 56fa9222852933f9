# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover copy`: one disk, from anything that can be read to anything that can be written."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from overkeep.blocks.compression import Compression
from overkeep.blocks.ends import Source
from overkeep.blocks.qcow2.form import PLAIN, Form
from overkeep.blocks.qcow2.layout import SECTOR
from overkeep.blocks.sockets import Sockets
from overkeep.daemons.mover_commands.command import Report
from overkeep.daemons.mover_commands.ends import (
    FORMATS,
    End,
    Image,
    Nbd,
    Raw,
    checked_name,
    of_format,
    open_source,
    opened_sink,
    read_end,
)
from overkeep.daemons.mover_commands.ends import HELP as END
from overkeep.errors import BadRequest, Conflict
from overkeep.model.points import Changes
from overkeep.mover.copy_terms import Options, Place, Watch, interruptible
from overkeep.mover.disk_copies import Difference, back_up, differing, pour, restored
from overkeep.mover.orders import CopyResult
from overkeep.units import human_size, read_size

NAME = "copy"
HELP = "Copy one disk: into a new image, out of an image, or from disk to disk."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("--from", dest="source", type=read_end, required=True, metavar="END", help=f"what is read: {END}")
    add(
        "--to",
        dest="sink",
        type=read_end,
        required=True,
        metavar="END",
        help="what is written: the same, but no image that exists",
    )
    add("--from-format", choices=FORMATS, help="what is read has this format, whatever its name ends in")
    add("--base", metavar="IMAGE", help="make the new image an overlay over this one, in the same folder")
    changes = parser.add_mutually_exclusive_group()
    changes.add_argument("--dirty", action="store_true", help="copy what the NBD server's bitmap says changed")
    changes.add_argument("--compare", action="store_true", help="keep what differs from the base, by its digests")
    add("--differential", action="store_true", help="write only what differs from what the disk holds")
    add("--compress", nargs="?", type=int, const=PLAIN.level, metavar="LEVEL", help="compress the image with zstd")
    add("--cluster", type=read_size, metavar="SIZE", help="clusters of the image, 64K (as it is without) to 2M")
    add("--bandwidth", type=read_size, default=0, metavar="SIZE", help="read at most so much in a second")
    add(
        "--read-back", type=float, default=0.0, metavar="SHARE", help="read this share (0 to 1) of it again and compare"
    )


def run(options: argparse.Namespace, watch: Watch) -> Report:
    """Copy and tell what was done."""
    options.source = of_format(options.source, options.from_format)
    _check(options)
    how = Options(form=_form(options), bandwidth=options.bandwidth, read_back=options.read_back)
    with interruptible(watch) as sockets:
        if isinstance(options.sink, Image):
            result = _into_image(options, options.sink, sockets, how=how, watch=watch)
        else:
            result = _to_disk(options, options.sink, sockets, how=how, watch=watch)
    return _report(options, result)


def _check(options: argparse.Namespace) -> None:
    """Raise `BadRequest` for options that do not fit together."""
    image = isinstance(options.sink, Image)
    faults = (
        ((options.dirty or options.compare) and not options.base, "changes need a base", "add --base"),
        (options.dirty and not isinstance(options.source, Nbd), "only an NBD server knows changes", "use --compare"),
        (options.base and not image, "only an image has a base", "leave --base out, or copy to an image"),
        (options.differential and image, "an image is always new", "leave --differential out"),
        (
            options.differential and not isinstance(options.source, Image),
            "what a disk should hold is known only of an image",
            "leave --differential out, or copy from an image",
        ),
        (not 0 <= options.read_back <= 1, "the share to be read back is no share", "give one from 0 to 1"),
        (
            options.read_back and not image and not isinstance(options.source, Image),
            "what is read back can be compared only with an image",
            "leave --read-back out",
        ),
        (
            not image and (options.compress is not None or options.cluster is not None),
            "only an image is compressed and has clusters",
            "leave --compress and --cluster out, or copy to an image",
        ),
        (options.compress is not None and not 1 <= options.compress <= 19, "there is no such level", "use 1 to 19"),
    )
    for wrong, what, todo in faults:
        if wrong:
            raise BadRequest(what=what[0].upper() + what[1:], todo=todo)


def _form(options: argparse.Namespace) -> Form:
    compressed = options.compress is not None
    try:
        return Form(
            cluster=PLAIN.cluster if options.cluster is None else options.cluster,
            compression=Compression.ZSTD if compressed else None,
            level=options.compress if compressed else PLAIN.level,
        )
    except ValueError as error:
        raise BadRequest(what=str(error).capitalize(), todo="correct --cluster") from error


def _into_image(
    options: argparse.Namespace, sink: Image, sockets: Sockets, *, how: Options, watch: Watch
) -> CopyResult:
    if sink.path.exists():
        raise Conflict(what=f"The image {sink.path} exists", todo="choose another name, or remove it first")
    backing = _base(options.base, sink) if options.base else None
    place = Place(folder=sink.folder, name=sink.name, backing=backing, new=True)
    changes = Changes.TRACKED if options.dirty else Changes.COMPARED if options.compare else Changes.ALL
    with closing(open_source(options.source, dirty=options.dirty, sockets=sockets)) as source:
        _require_sectors(source, options.source)
        return back_up(source, place, changes=changes, options=how, watch=watch)


def _base(text: str, sink: Image) -> str:
    path = Path(text)
    if len(path.parts) > 1 and path.parent.resolve() != sink.folder.resolve():
        raise BadRequest(what=f"The base {text} is not in the folder of {sink.path}", todo="put both in one folder")
    return checked_name(path.name)


def _require_sectors(source: Source, end: End) -> None:
    if source.size % SECTOR:
        what = f"{end} has {source.size} bytes, which are no whole sectors of {SECTOR}"
        raise BadRequest(what=what, todo=f"make it larger with `truncate --size=%{SECTOR}`")


def _to_disk(
    options: argparse.Namespace, sink: Nbd | Raw, sockets: Sockets, *, how: Options, watch: Watch
) -> CopyResult:
    with closing(open_source(options.source, sockets=sockets)) as source:
        only = None
        if options.differential:
            only = _difference(options.source, sink, sockets, how=how, watch=watch)
        with opened_sink(sink, size=source.size, sockets=sockets) as disk:
            result = pour(source, disk, only=only, options=how, watch=watch)
    if not how.read_back:
        return result
    with closing(open_source(sink, sockets=sockets)) as present:
        return restored(_place(options.source), present, result, only=only, name=str(sink), options=how, watch=watch)


def _difference(source: Image, sink: Nbd | Raw, sockets: Sockets, *, how: Options, watch: Watch) -> Difference:
    with closing(open_source(sink, sockets=sockets)) as present:
        return differing(_place(source), present, options=how, watch=watch)


def _place(image: Image) -> Place:
    return Place(folder=image.folder, name=image.name)


def _report(options: argparse.Namespace, result: CopyResult) -> Report:
    read, again = result.moved + result.compared, result.stages.get("read_back", 0.0)
    copying = result.seconds - again  # what was read back is not among what was read
    speed = int(read / copying) if copying > 0 else 0
    stored = f", {human_size(result.stored)} stored" if result.stored else ""
    back = f", {again:.2f} s of them reading back" if again else ""
    return Report(
        line=(
            f"{human_size(result.virtual_size)} disk: {human_size(result.covered)} copied, "
            f"{human_size(read)} read{stored} in {result.seconds:.2f} s{back} ({human_size(speed)}/s)"
        ),
        document={"from": str(options.source), "to": str(options.sink), **result.model_dump(mode="json")},
    )
