# SPDX-License-Identifier: GPL-3.0-or-later
"""An image of a repository as an end of a copy: the QCOW2 file together with its digests."""

from __future__ import annotations

from pathlib import Path

from overkeep.blocks.digests import DigestWriter, check_range, digests_of
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.qcow2.writer import ImageWriter

__all__ = ["ChainReader", "ImageSink", "sums_name"]


def sums_name(image: str) -> str:
    """Name of the file of digests that belongs to an image."""
    return image.removesuffix(".qcow2") + ".sums"


class ImageSink:
    """A sink that makes `name` and its digests in `folder`; arguments and errors as of `ImageWriter`."""

    def __init__(self, folder: Path, name: str, *, size: int, backing: str | None = None) -> None:
        self._image = ImageWriter(folder, name, size=size, backing=backing)
        self._overlay = backing is not None
        try:
            self._digests = DigestWriter(folder / sums_name(name), size=size)
        except BaseException:
            self._image.close()
            raise

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._image.size

    @property
    def stored(self) -> int:
        """Bytes of the image file so far."""
        return self._image.stored

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` and keep its digests."""
        first, _ = check_range(offset, len(data), self.size)
        self._digests.put(first, digests_of(data))
        self._image.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """Let a run read as zeroes; in a full image such clusters are absent, also among the digests."""
        first, count = check_range(offset, length, self.size)
        if self._overlay:
            self._digests.put_zeroes(first, count)
        else:
            self._digests.forget(first, count)
        self._image.zero(offset, length)

    def clone(self) -> ImageSink:
        """Return this sink: it is safe for several threads."""
        return self

    def finish(self) -> None:
        """Make digests and image durable and give them their names, the image last."""
        self._digests.finish()
        self._image.finish()

    def close(self) -> None:
        """Remove what is unfinished; nothing happens after `finish`."""
        self._digests.close()
        self._image.close()
