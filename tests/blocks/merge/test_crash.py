# SPDX-License-Identifier: GPL-3.0-or-later
"""Merges that are stopped at any instant: every remaining point reads back exactly, and doing it again ends it."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from overkeep.blocks.digests import sums_name
from overkeep.blocks.merge import extend
from overkeep.blocks.merge.acts import merge_away
from overkeep.blocks.merge.making import Watch
from overkeep.errors import OverkeepError
from overkeep.repository.merging import MergeJournal
from overkeep.units import KIB
from tests.blocks.killing import Victim, kill_in_time
from tests.blocks.merge.effects import Counter, Failing, Gate, Killer, PowerCut, Recorder, Short, gated
from tests.blocks.merge.world import World, random_world
from tests.filesystems.mounting import FailingTarget
from tests.forks import preload

preload(__name__)
SMALL_BATCH = 128 * KIB


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small merge note how far it is several times."""
    monkeypatch.setattr(extend, "BATCH", SMALL_BATCH)


class Scene:
    """A world of which copies are made, one for each crash, and what is merged there."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.world, self.names = random_world(folder / "before", seed)
        self._folder = folder
        self._copies = 0

    def fresh(self) -> World:
        """A copy of the world; its points to be removed have ended."""
        folder = self.empty()
        shutil.copytree(self.world.folder, folder.folder, dirs_exist_ok=True)
        return folder

    def empty(self) -> World:
        """The world in a folder that is still to be filled."""
        self._copies += 1
        folder = self._folder / f"copy{self._copies}"
        folder.mkdir()
        twin = self.world.at(folder)
        twin.forget(*self.names)
        return twin

    def settle(self, world: World, *, qemu: bool = False) -> None:
        """What is there reads rightly, and the merge ends when it is done again."""
        world.verify(qemu=False)
        world.merge(*self.names)
        world.verify(qemu=qemu)
        world.verify_tidy()
        for name in world.points if qemu else ():
            world.verify_digests(name)
        shutil.rmtree(world.folder)

    @contextmanager
    def attempt(self, gate: Gate, *, qemu: bool) -> Iterator[Victim]:
        """A process that merges; what it leaves is looked at, also with QEMU's programs when `qemu`."""
        world = self.fresh()
        yield Victim(merge_in_small_batches, world, self.names, gate)
        self.settle(world, qemu=qemu)

    def count_effects(self) -> int:
        """How many effects the whole merge has."""
        counter, world = Counter(), self.fresh()
        merge(world, self.names, counter)
        shutil.rmtree(world.folder)
        return counter.count


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Scene]]:
    """Scenes by their seeds, each made once; in memory, as thousands of syncs of a disk would take most of the time."""
    memory = Path("/dev/shm")
    folder = tmp_path_factory.mktemp("scenes")
    if os.access(memory, os.W_OK):
        folder = Path(tempfile.mkdtemp(prefix="merges", dir=memory))

    def scene(seed: int) -> Scene:
        (folder / str(seed)).mkdir()
        return Scene(folder / str(seed), seed)

    yield cache(scene)
    shutil.rmtree(folder)


def merge(world: World, names: list[str], gate: Gate) -> None:
    """Merge behind a gate."""
    with gated(gate):
        merge_away(world.folder, names, journal=MergeJournal(world.folder), watch=Watch())


# power


def record(scene: Scene) -> PowerCut:
    """Merge once, and know what was done."""
    recorder, world = Recorder(), scene.fresh()
    names = {path.name: path.stat().st_ino for path in world.folder.iterdir()}
    merge(world, scene.names, recorder)
    return PowerCut(scene.world.folder, names, recorder.effects)


def cut_power(scene: Scene, power: PowerCut, instants: list[int], *, choices: int = 1) -> None:
    """Let the power fail behind that many effects."""
    rng = random.Random(len(power.effects))
    for number, instant in enumerate(instants * choices):
        after = scene.empty()
        power.restore(after.folder, instant, rng)
        scene.settle(after, qemu=number % 25 == 0)


@pytest.mark.parametrize("seed", [6, 17])
def test_power_fails(scenes: Callable[[int], Scene], seed: int) -> None:
    power = record(scenes(seed))
    cut_power(scenes(seed), power, [*range(seed % 5, len(power.effects) + 1, 5)])


@pytest.mark.parametrize("seed", [8, 13])
def test_power_fails_around_the_switch(scenes: Callable[[int], Scene], seed: int) -> None:
    power = record(scenes(seed))
    (switch,) = power.switches
    cut_power(scenes(seed), power, [*range(switch - 1, switch + 12)], choices=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 4, 5, 7, 8, 10, 16])
def test_power_fails_at_every_instant(scenes: Callable[[int], Scene], seed: int) -> None:
    power = record(scenes(seed))
    assert len(power.effects) > 30
    cut_power(scenes(seed), power, [*range(len(power.effects) + 1)], choices=2)


# kill -9


def merge_in_small_batches(world: World, names: list[str], gate: Gate) -> None:
    """Body of a process that is killed."""
    extend.BATCH = SMALL_BATCH
    merge(world, names, gate)


def die(scene: Scene, gate: Killer, *, qemu: bool) -> bool:
    """Let a process be killed where `gate` says; whether it was."""
    with scene.attempt(gate, qemu=qemu) as victim:
        return victim.die_by_itself()


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_some_effects(scenes: Callable[[int], Scene], seed: int) -> None:
    scene = scenes(seed)
    for number, at in enumerate(range(1 + seed, scene.count_effects() + 1, 7)):
        die(scene, Killer(at, after=bool(number % 2), half=number % 3 == 2), qemu=number % 10 == 0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [11, 16, 17])
def test_killed_at_every_effect(scenes: Callable[[int], Scene], seed: int) -> None:
    scene = scenes(seed)
    count = scene.count_effects()
    killed = [
        die(scene, Killer(at, after=bool(at % 2), half=at % 3 == 2), qemu=at % 10 == 0) for at in range(1, count + 1)
    ]
    assert sum(killed) >= count - 10, "what several threads do comes in another order, not in another number"


def kill_at_random(scene: Scene, *, times: int) -> None:
    """Kill processes at random instants of their merges."""
    numbers = itertools.count()
    kill_in_time(lambda: scene.attempt(Counter(), qemu=next(numbers) % 20 == 1), random.Random(), times=times)


def test_killed_at_random(scenes: Callable[[int], Scene]) -> None:
    kill_at_random(scenes(3), times=12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(8, 14))
def test_killed_at_many_random_instants(scenes: Callable[[int], Scene], seed: int) -> None:
    """300 in all."""
    kill_at_random(scenes(seed), times=50)


# a target that fails


def fail(scene: Scene, gate: Failing, *, qemu: bool) -> None:
    """Let an effect fail: an error that the user understands, and nothing is lost."""
    world = scene.fresh()
    with pytest.raises((OverkeepError, OSError)):
        merge(world, scene.names, gate)
    scene.settle(world, qemu=qemu)


ERRORS = (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EACCES, errno.EDQUOT)


@pytest.mark.parametrize("seed", range(3))
def test_an_effect_fails(scenes: Callable[[int], Scene], seed: int) -> None:
    scene = scenes(seed)
    for number, at in enumerate(range(1 + seed, scene.count_effects() + 1, 4)):
        fail(scene, Failing(at, ERRORS[number % len(ERRORS)], lasting=bool(number % 2)), qemu=number % 20 == 0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4, 7))
@pytest.mark.parametrize("lasting", [False, True])
def test_every_effect_fails(scenes: Callable[[int], Scene], seed: int, lasting: bool) -> None:
    scene = scenes(seed)
    for at in range(1, scene.count_effects() + 1):
        fail(scene, Failing(at, ERRORS[at % len(ERRORS)], lasting=lasting), qemu=at % 20 == 0)


@pytest.mark.parametrize("seed", [1, 3, 6, 8])
def test_digests_that_are_lost_while_it_is_stopped_are_made_anew(scenes: Callable[[int], Scene], seed: int) -> None:
    scene = scenes(seed)
    for at in range(1, scene.count_effects() + 1, 3):
        world = scene.fresh()
        with pytest.raises((OverkeepError, OSError)):
            merge(world, scene.names, Failing(at, errno.EIO, lasting=True))
        if (pending := MergeJournal(world.folder).load()) is not None:
            (world.folder / sums_name(pending.run.newest)).unlink(missing_ok=True)
        world.merge(*scene.names)
        for name in world.points:
            world.verify_digests(name)
        world.verify_tidy()
        shutil.rmtree(world.folder)


@pytest.mark.parametrize("seed", [3, 8, 10, 21])
def test_digests_say_what_is_there_while_it_is_stopped(scenes: Callable[[int], Scene], seed: int) -> None:
    """Whoever compares a disk with a point meanwhile must find what differs."""
    scene = scenes(seed)
    for at in range(1, scene.count_effects() + 1, 2):
        world = scene.fresh()
        with pytest.raises((OverkeepError, OSError)):
            merge(world, scene.names, Failing(at, errno.EIO, lasting=True))
        for name in world.points:
            world.verify_digests(name)
        shutil.rmtree(world.folder)


@pytest.mark.parametrize("seed", range(4))
def test_writes_are_short(scenes: Callable[[int], Scene], seed: int) -> None:
    scene = scenes(seed)
    world = scene.fresh()
    merge(world, scene.names, Short(seed))
    world.verify()
    world.verify_tidy()


# a file system that fails: what its calls return goes through the kernel


def fail_there(target: FailingTarget, scene: Scene, call: tuple[str, int], number: int, *, qemu: bool) -> None:
    """Let a call to the file system fail: an error that the user understands, and nothing is lost."""
    world = scene.fresh()
    target.fail(call, number, lambda: merge(world, scene.names, Counter()))
    scene.settle(world, qemu=qemu)


@pytest.mark.parametrize("seed", [3, 8])
def test_a_call_to_a_file_system_fails(failing: FailingTarget, seed: int) -> None:
    scene = Scene(failing.root, seed)
    calls = failing.calls(scene.fresh, lambda world: merge(world, scene.names, Counter()))
    for number, call in enumerate(itertools.islice(calls, seed % 5, None, 9)):
        fail_there(failing, scene, call, ERRORS[number % 3], qemu=number % 20 == 0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [6, 10])
@pytest.mark.parametrize("number", ERRORS[:3], ids=errno.errorcode.get)
def test_every_call_to_a_file_system_fails(failing: FailingTarget, seed: int, number: int) -> None:
    scene = Scene(failing.root, seed)
    for call in failing.calls(scene.fresh, lambda world: merge(world, scene.names, Counter())):
        fail_there(failing, scene, call, number, qemu=call[1] % 20 == 0)


@pytest.mark.parametrize("seed", range(4))
def test_a_file_system_moves_only_a_part(failing: FailingTarget, seed: int) -> None:
    scene = Scene(failing.root, seed)
    world = scene.fresh()
    with failing.short():
        merge(world, scene.names, Counter())
    world.verify()
    world.verify_tidy()
