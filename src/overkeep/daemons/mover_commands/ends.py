# SPDX-License-Identifier: GPL-3.0-or-later
"""The ends of a copy as they are written on a command line: an NBD server, an image, or a raw file or device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from overkeep.blocks.ends import Sink, Source
from overkeep.blocks.files import PartialFile
from overkeep.blocks.image import ChainReader
from overkeep.blocks.nbd import NbdSink, NbdSource
from overkeep.blocks.nbd_address import parse_url
from overkeep.blocks.qcow2.layout import MAGIC, is_bare_name
from overkeep.blocks.rawfile import RawSink, RawSource
from overkeep.blocks.sockets import Sockets
from overkeep.errors import BadRequest, Conflict

IMAGE_SUFFIX = ".qcow2"
QCOW2 = "qcow2"
FORMATS = ("raw", QCOW2)
_NBD = re.compile(r"nbds?(\+[a-z]+)?:", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
HELP = (
    f"an NBD server (nbd:unix:/PATH[:exportname=NAME], nbd+unix:///NAME?socket=/PATH, nbd://HOST[:PORT]/NAME), "
    f"a QCOW2 image (its name ends in {IMAGE_SUFFIX}), or a raw file or block device"
)


@dataclass(frozen=True)
class Nbd:
    """An NBD server."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class Image:
    """A QCOW2 image: a bare name in a folder."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder / self.name

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Raw:
    """A raw file or block device."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


End = Nbd | Image | Raw


def read_end(text: str) -> End:
    """Understand an end; what it is depends on the text alone, never on what a file holds."""
    if _NBD.match(text):
        parse_url(text)
        return Nbd(text)
    if _URL.match(text):
        raise BadRequest(what=f"{text} is not an address that can be used", todo="give one of an NBD server, or a path")
    path = Path(text)
    if path.suffix != IMAGE_SUFFIX:
        return Raw(path)
    return Image(path.parent, checked_name(path.name))


def checked_name(name: str) -> str:
    """Return `name`; raise `BadRequest` when it cannot be that of an image."""
    if not is_bare_name(name):
        raise BadRequest(
            what=f"{name!r} cannot be the name of an image",
            todo="rename it: at most 255 bytes, neither '.' nor '-' at its beginning, no ':' and nothing unprintable",
        )
    return name


def of_format(end: End, format_: str | None) -> End:
    """What is read as `end`, of a format of `FORMATS`, or of the one that its text says.

    Raises `BadRequest` for a file that begins like an image and is not called one: a guest may have written that on its
    disk, so nothing is made of it without being told.
    """
    if format_ is None:
        if isinstance(end, Raw) and _begins_like_an_image(end.path):
            raise BadRequest(what=f"{end} begins like a QCOW2 image", todo="say --from-format qcow2, or raw")
        return end
    if isinstance(end, Nbd):
        raise BadRequest(what=f"{end} has no format", todo="leave --from-format out")
    return Image(end.path.parent, end.path.name) if format_ == QCOW2 else Raw(end.path)


def _begins_like_an_image(path: Path) -> bool:
    if not (path.is_file() or path.is_block_device()):  # a pipe would wait for its writer
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:  # whoever opens it tells
        return False


def read_image(text: str) -> Image:
    """Understand an end that must be an image."""
    end = read_end(text)
    if not isinstance(end, Image):
        raise BadRequest(what=f"{text!r} is not an image", todo=f"name a file that ends in {IMAGE_SUFFIX}")
    return end


def open_source(end: End, *, dirty: bool = False, sockets: Sockets) -> Source:
    """Open an end that is read."""
    if isinstance(end, Nbd):
        return NbdSource(end.url, dirty=dirty, sockets=sockets)
    if isinstance(end, Image):
        return ChainReader(end.folder, end.name, cached=False)
    return RawSource(end.path)


@contextmanager
def opened_sink(end: Nbd | Raw, *, size: int, sockets: Sockets) -> Iterator[Sink]:
    """Open a disk that is written; a raw file that does not exist is made, `size` bytes large, whole or not at all."""
    if isinstance(end, Raw) and not end.path.exists():
        with _new_file(end.path, size) as sink:
            yield sink
        return
    with closing(NbdSink(end.url, sockets=sockets) if isinstance(end, Nbd) else RawSink(end.path)) as sink:
        yield sink


@contextmanager
def _new_file(path: Path, size: int) -> Iterator[Sink]:
    """A file that has its name when it is whole.

    Raises `WriterReplaced` when another copy made it anew meanwhile, and `Conflict` when anything else did.
    """
    file = PartialFile(path)
    try:
        file.truncate(size)
        with closing(RawSink(file.path)) as sink:
            yield sink
        if path.exists():
            raise Conflict(what=f"{path} was made by somebody else meanwhile", todo="choose another name")
        file.publish()
    finally:
        file.discard()
