# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mover does, called as the mover calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from overkeep.blocks.files import forget_cached
from overkeep.blocks.nbd import NbdSink, NbdSource
from overkeep.model.points import Changes
from overkeep.mover.copy_terms import Options, Place
from overkeep.mover.disk_copies import back_up, restore
from overkeep.mover.orders import CopyResult, Progress


class Unwatched:
    """Nobody looks at the copy, and nobody stops it."""

    stopped = False

    def check(self) -> None:
        """Go on."""

    def progress(self, progress: Progress) -> None:
        """Nobody wants to know."""

    @contextmanager
    def on_stop(self, hook: Callable[[], None]) -> Iterator[None]:
        """It will not be stopped."""
        yield


def backup(
    url: str,
    image: Path,
    *,
    backing: str | None = None,
    changes: Changes = Changes.ALL,
    options: Options | None = None,
) -> CopyResult:
    """Make `image` from the disk at `url`."""
    place = Place(folder=image.parent, name=image.name, backing=backing)
    with closing(NbdSource(url, dirty=changes is Changes.TRACKED)) as disk:
        return back_up(disk, place, changes=changes, options=options or Options(), watch=Unwatched())


def restored(image: Path, url: str) -> CopyResult:
    """Write the disk of `image` to `url`."""
    with closing(NbdSink(url)) as disk:
        place = Place(folder=image.parent, name=image.name)
        return restore(place, disk, options=Options(), watch=Unwatched())


def remove(image: Path) -> None:
    """Remove an image and its digests."""
    image.unlink(missing_ok=True)
    image.with_suffix(".sums").unlink(missing_ok=True)


def forget(*paths: Path) -> None:
    """Let nothing of the files be in memory."""
    for path in paths:
        forget_cached(path)
