# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered of a disk that differs from what it should hold."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.differences import Differences
from overkeep.blocks.digests import Row, row
from overkeep.blocks.ends import Extent
from overkeep.blocks.hashing import ZERO, Blake3, Hashing

RIGHT, WRONG, EMPTY = (byte * CLUSTER for byte in (b"r", b"w", b"\0"))


@dataclass
class Wanted:
    """A disk of which clusters 1 and 3 should be zeroes, and all others RIGHT."""

    hashing: Hashing = field(default_factory=Blake3)

    def range(self, first: int, count: int) -> Row:
        right = self.hashing.of(memoryview(RIGHT))
        return row(b"".join(ZERO if number in (1, 3) else right for number in range(first, first + count)))


@pytest.fixture
def differences() -> Differences:
    return Differences(Wanted(), size=5 * CLUSTER)


def test_each_cluster_is_told_with_what_it_should_hold(differences: Differences) -> None:
    differences.write(0, memoryview(RIGHT + WRONG + WRONG + EMPTY + RIGHT))
    assert list(differences.numbers()) == [1, 2]
    assert list(differences.extents()) == [
        Extent(2 * CLUSTER, CLUSTER, False),
        Extent(CLUSTER, CLUSTER, True),
    ]
    differences.zero(2 * CLUSTER, 3 * CLUSTER)
    assert (differences.clusters, list(differences.numbers())) == (3, [1, 2, 4])


def test_what_turns_out_to_be_right_differs_no_more(differences: Differences) -> None:
    differences.write(0, memoryview(WRONG + WRONG + WRONG))
    differences.write(0, memoryview(RIGHT + EMPTY))
    assert list(differences.numbers()) == [2]
    differences.write(2 * CLUSTER, memoryview(RIGHT))
    assert (differences.clusters, list(differences.extents())) == (0, [])
