# SPDX-License-Identifier: GPL-3.0-or-later
"""Images are checked while a merge goes on: a merge is never taken for damage."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from overkeep.blocks.merge import extend
from overkeep.blocks.merge.acts import merge_away
from overkeep.blocks.merge.making import Watch
from overkeep.blocks.verify import verify_image
from overkeep.repository.merging import MergeJournal
from overkeep.units import KIB
from tests.blocks.merge.effects import Stepping, gated
from tests.blocks.merge.world import World, random_world


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small merge note how far it is several times."""
    monkeypatch.setattr(extend, "BATCH", 128 * KIB)


@contextmanager
def merging(world: World, names: list[str], gate: Stepping) -> Iterator[None]:
    """Merge beside the body, as far as it lets `gate` pass, and to the end behind it."""

    def merge() -> None:
        with gate.ending():
            merge_away(world.folder, names, journal=MergeJournal(world.folder), watch=Watch())

    with ExitStack() as stack:
        stack.enter_context(gated(gate))
        work = stack.enter_context(ThreadPoolExecutor(1)).submit(merge)
        with gate.released():
            yield
        work.result(timeout=90)


def check_during_a_merge(folder: Path, seed: int) -> None:
    """Let a merge go on step by step while an image that stays is checked."""
    world, names = random_world(folder, seed)
    rng, gate = random.Random(seed), Stepping()
    name = rng.choice([name for name in world.points if name not in names])
    steps = rng.choice((1, 3, 10, 30, 1000))  # a merge has 30 to some hundred

    def go_on() -> bool:
        gate.let(rng.randrange(steps + 1))
        return False

    with merging(world, names, gate):
        gate.let(rng.randrange(rng.choice((2, 60, 300))))
        found = verify_image(folder, name, workers=rng.choice((1, 4)), cancelled=go_on)
    assert found.sound, (names, found)
    assert found.checked == found.held


@pytest.mark.parametrize("seed", range(12))
def test_a_merge_during_a_check_is_no_damage(tmp_path: Path, seed: int) -> None:
    check_during_a_merge(tmp_path / "world", seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_merges_during_checks_are_no_damage(tmp_path: Path) -> None:
    for seed in range(100, 500):
        check_during_a_merge(tmp_path / str(seed), seed)
