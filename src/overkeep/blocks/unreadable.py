# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells what a target does not let be read, as a bad place of its disk, from a target that does not answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from overkeep.blocks.digests import sums_name
from overkeep.blocks.errors import ImageUnreadable, TargetFailed, TargetReadOnly
from overkeep.blocks.reading import TargetFile
from overkeep.errors import OverkeepError
from overkeep.units import KIB

T = TypeVar("T")
_REFUSALS = (TargetFailed, TargetReadOnly)  # the latter also for a file that somebody else may read only
_BEGINNING = 4 * KIB


def read_twice(act: Callable[[], T], folder: Path, name: str) -> T:
    """Return what `act` returns, which reads image `name` or what it is built upon; a failure is tried once more.

    Raises `ImageUnreadable` when the target refuses both times and answers otherwise, and whatever else `act` raises.
    """
    with suppress(*_REFUSALS):
        return act()
    try:
        return act()
    except _REFUSALS as error:
        if not _answers(folder, name):
            raise
        raise ImageUnreadable(file=Path(error.fields["path"]).name, reason=error.fields["reason"]) from error


def _answers(folder: Path, name: str) -> bool:
    """Whether the target gives the beginning of an image, or of its digests."""
    for path in (folder / name, folder / sums_name(name)):
        with suppress(OverkeepError), closing(TargetFile(path, cached=False)) as file:
            file.fill(0, memoryview(bytearray(_BEGINNING)))
            return True
    return False
