# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check of an image's structure found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from overkeep.blocks.qcow2.runs import Unsigned

_MOST_LISTED = 20  # of one kind; the others are only counted


class Fault(StrEnum):
    """Kinds of findings. All but leaks are errors: the image is broken, or would break when it is written."""

    OUTSIDE = "outside"
    MISALIGNED = "misaligned"
    RESERVED_BITS = "reserved-bits"
    OVERLAP = "overlap"
    UNCOUNTED = "uncounted"
    COPIED_FLAG = "copied-flag"
    SUBCLUSTERS = "subclusters"
    REFCOUNTS = "refcounts"
    LISTS = "lists"
    LEAK = "leak"


_TEXTS = {
    Fault.OUTSIDE: "what is said to be at {offset} ends behind the file",
    Fault.MISALIGNED: "what is said to be at {offset} does not begin with a cluster",
    Fault.RESERVED_BITS: "the entry {offset:#x} has bits that mean nothing",
    Fault.OVERLAP: "the cluster at {offset} is used more than once, which its refcount does not say",
    Fault.UNCOUNTED: "the cluster at {offset} is used and counted as free",
    Fault.COPIED_FLAG: "the entry {offset:#x} says the wrong thing about its being the only one",
    Fault.SUBCLUSTERS: "the entry {offset:#x} has a bitmap of subclusters that contradicts itself",
    Fault.REFCOUNTS: "the refcount block at {offset} cannot be one",
    Fault.LISTS: "the list of snapshots or of bitmaps is broken at {offset}",
    Fault.LEAK: "the cluster at {offset} is counted as used and is not",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `offset` is in the file, or the entry itself where the text says so."""

    fault: Fault
    offset: int

    def __str__(self) -> str:
        return _TEXTS[self.fault].format(offset=self.offset)


@dataclass
class Findings:
    """Findings as they come up: the first few of each kind, and how many there are."""

    counts: Counter[Fault] = field(default_factory=Counter)
    first: list[Finding] = field(default_factory=list)

    def add(self, fault: Fault, offset: int) -> None:
        """Note one finding."""
        self.add_all(fault, np.array([offset], np.uint64))

    def add_all(self, fault: Fault, offsets: Unsigned) -> None:
        """Note one finding for each offset."""
        if not len(offsets):
            return
        room = _MOST_LISTED - self.counts[fault]
        self.counts[fault] += len(offsets)
        if room > 0:
            self.first += [Finding(fault, offset) for offset in offsets[:room].tolist()]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The structure of one image file. Counts are in clusters; those of the disk leave snapshots out."""

    file: str
    errors: int
    leaks: int
    findings: tuple[Finding, ...]
    """The first few of each kind."""
    data: int
    """Clusters of the disk that have a place in the file, also those that read as zeroes in spite of it."""
    zero: int
    """Clusters of the disk that are marked to read as zeroes."""
    compressed: int

    @property
    def broken(self) -> bool:
        """Whether there is an error; leaks only waste room."""
        return self.errors > 0
