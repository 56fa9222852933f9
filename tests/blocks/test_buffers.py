# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory for disk data: aligned, zeroed, used again without what was in it."""

from __future__ import annotations

import ctypes
import itertools
import os

import pytest

from overkeep.blocks.buffers import CLUSTER, aligned_buffer
from overkeep.blocks.qcow2.packing import Packing
from overkeep.units import KIB, MIB


@pytest.mark.parametrize("size", [512, 4 * KIB, CLUSTER, MIB, 2 * MIB, 3 * MIB + 512, 8 * MIB])
def test_buffers_are_aligned_and_zeroed(size: int) -> None:
    buffer = aligned_buffer(size)
    assert len(buffer) == size
    assert buffer == bytes(size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    assert address % (2 * MIB if size >= 2 * MIB else 4 * KIB) == 0
    buffer[:] = os.urandom(size)


def test_a_child_does_not_share_a_buffer() -> None:
    buffer = aligned_buffer(CLUSTER)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    child = os.fork()
    if not child:
        with open("/proc/self/maps") as maps:
            spans = [line.split()[0].split("-") for line in maps]
        os._exit(any(int(start, 16) <= address < int(end, 16) for start, end in spans))
    assert os.waitpid(child, 0)[1] == 0


def test_memory_of_regions_is_used_again_and_clean() -> None:
    numbers = itertools.count(1)
    packing = Packing(CLUSTER, lambda _: 2 * MIB * next(numbers))
    regions = []
    for payload in [b"y" * 700] * 10_000 + [b"x" * 60_000] * 200:
        _, full = packing.add(payload)
        if full:
            regions.append((full.data.obj, bytes(full.data).rstrip(b"\0")))
            packing.written([full.offset])
    assert regions[-1][0] is regions[-3][0]  # one is filled while the other is written
    assert {content.strip(b"x") for _, content in regions[-3:]} == {b""}
    packing.add(b"z")
    last = packing.flush()
    assert last is not None
    assert not set(bytes(last.data)) - set(b"xz\0")
