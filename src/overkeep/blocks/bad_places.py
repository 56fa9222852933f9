# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells a place that a target cannot read, as on a bad disk of its server, from a target that does not answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from overkeep.blocks.digests import sums_name
from overkeep.blocks.errors import ImageUnreadable, TargetFailed
from overkeep.blocks.reading import TargetFile
from overkeep.errors import OverkeepError
from overkeep.units import KIB

T = TypeVar("T")
_BEGINNING = 4 * KIB


def read_twice(act: Callable[[], T], folder: Path, name: str) -> T:
    """Return what `act` returns, which reads image `name` or what it is built upon; a failure is tried once more.

    Raises `ImageUnreadable` when it fails with `TargetFailed` both times and the target answers otherwise, and whatever
    else `act` raises.
    """
    with suppress(TargetFailed):
        return act()
    try:
        return act()
    except TargetFailed as error:
        if not _answers(folder, name):
            raise
        raise ImageUnreadable(file=name, reason=error.fields["reason"]) from error


def _answers(folder: Path, name: str) -> bool:
    """Whether the target gives the beginning of an image, or of its digests."""
    for path in (folder / name, folder / sums_name(name)):
        with suppress(OverkeepError), closing(TargetFile(path, cached=False)) as file:
            file.fill(0, memoryview(bytearray(_BEGINNING)))
            return True
    return False
