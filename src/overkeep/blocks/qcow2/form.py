# SPDX-License-Identifier: GPL-3.0-or-later
"""How an image is written: the size of its clusters, and whether they are compressed."""

from __future__ import annotations

from dataclasses import dataclass

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.compression import Compression
from overkeep.units import MIB

SMALLEST_CLUSTER, LARGEST_CLUSTER = CLUSTER, 2 * MIB
"""Changed blocks and digests are counted in 64 KiB, so smaller clusters would save nothing."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """`cluster` in bytes, a power of two; `level` is that of the compression, higher being slower and smaller."""

    cluster: int = CLUSTER
    compression: Compression | None = None
    level: int = 2

    def __post_init__(self) -> None:
        if not SMALLEST_CLUSTER <= self.cluster <= LARGEST_CLUSTER or self.cluster & (self.cluster - 1):
            raise ValueError(
                f"clusters are powers of two from {SMALLEST_CLUSTER} to {LARGEST_CLUSTER} bytes, not {self.cluster}"
            )


PLAIN = Form()
"""Clusters of 64 KiB, stored as they are."""
